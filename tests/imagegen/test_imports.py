"""What importing costs, and that the face shows what it promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import imagegen


def test_importing_the_package_loads_no_torch() -> None:
    code = (
        "import sys, imagegen, imagegen.pipeline, imagegen.assembly, imagegen.png, "
        "imagegen.measure; print([m for m in ('torch', 'diffusers', 'transformers', 'scipy') "
        "if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_every_public_name_can_be_had() -> None:
    assert all(getattr(imagegen, name) is not None for name in imagegen.__all__)
    assert not hasattr(imagegen, "no_such_name")
