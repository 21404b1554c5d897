"""What glibc gives back when it is asked to."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import numpy as np
import pytest

from orbweave.memory import give_back


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that is asked")
def test_memory_freed_in_pieces_goes_back_to_the_system():
    # Pieces too small to be mapped one by one; those that stay keep the heap from shrinking.
    pieces = [np.ones(12_000) for _ in range(2_000)]
    kept = pieces[::50]
    full = resident_bytes()
    del pieces
    assert give_back()
    assert resident_bytes() < full - 100_000_000
    assert len(kept) == 40


def test_a_system_without_such_a_call_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert give_back() is False
