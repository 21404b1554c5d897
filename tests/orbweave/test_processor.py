"""What the processor says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from orbweave.processor import multiplies_bfloat16

CPUINFO = Path("/proc/cpuinfo")


@pytest.mark.skipif(not CPUINFO.is_file(), reason="the system tells no flags of its processor")
def test_bfloat16_is_native_where_the_system_names_the_instructions() -> None:
    words = set(CPUINFO.read_text().split())
    assert multiplies_bfloat16() == bool(words & {"avx512_bf16", "amx_bf16", "bf16"})
