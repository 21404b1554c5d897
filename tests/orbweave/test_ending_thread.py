"""A thread that ends takes its helpers with it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from orbweave.ending_thread import call_apart

HELPERS = """
import os, time, torch
from agents.embedding import MiniLM
def n_threads():
    found = [0]
    while len(found) < 10 or len(set(found[-10:])) > 1:  # until those that end have ended
        time.sleep(0.1)
        found.append(len(os.listdir("/proc/self/task")))
    return found[-1]
embed = MiniLM()
embed(["a web of spider silk that carries dew"] * 4)
before = n_threads()
torch.randn(600, 600) @ torch.randn(600, 600)
print(n_threads() - before)
"""


def test_what_is_returned_and_raised_comes_through():
    assert call_apart(lambda a, b: a - b, 5, b=3) == 2
    with pytest.raises(ZeroDivisionError):
        call_apart(lambda: 1 / 0)


def test_the_work_is_done_in_a_thread_that_is_gone_afterwards():
    before = threading.active_count()
    name = call_apart(lambda: threading.current_thread().name)
    assert name != threading.current_thread().name
    assert threading.active_count() == before


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_an_embedding_leaves_no_helpers_with_the_thread_that_asked_for_it():
    """Else the product behind it would find them there and need no new ones."""
    env = os.environ | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", HELPERS], env=env, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 1
