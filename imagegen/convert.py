"""Pickled checkpoints to safetensors, as an explicit step in a process of its own.

    python -m imagegen.convert FILE OUT

is that process. It reads with torch's `weights_only`, which refuses everything but tensors and
plain containers, and holds as little as can be: no environment but the path, no home folder,
few open files, a bounded output. It cannot be denied the net; who distrusts the file should run
this in a container without one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orbweave.errors import ModelError, UsageError, shown
from orbweave.files import check_output
from orbweave.weights import read_header

__all__ = ["convert_pickle"]

MAX_SECONDS = 1_800
"""Of processor time; 12 GB take some minutes on a slow disk."""
MAX_OPEN_FILES = 256
MAX_DEPTH = 8
"""Of containers within containers; checkpoints have two or three."""
GROWTH = 2
"""The output may be so many times as long as the input; pickles of half precision stay equal."""


def convert_pickle(source: Path, target: Path, *, trust: bool, force: bool = False) -> int:
    """Write the tensors of a pickled checkpoint as safetensors.

    Args:
        source: A `.ckpt`, `.bin`, `.pt` or `.pth` file.
        target: A `.safetensors` file, written whole or not at all.
        trust: That somebody vouches for the file.
        force: Replace an existing target.

    Returns:
        The number of tensors.

    Raises:
        UsageError: nobody vouches for it, or the target is no `.safetensors` file.
        ModelError: it holds more than tensors, or none.
        OutputError: the target cannot be written.
    """
    if not trust:
        raise UsageError(
            f"wanted somebody to vouch for {source}: a pickle can run any program when it is "
            "read; if you trust where it came from, add --trust-pickle"
        )
    if target.suffix != ".safetensors":
        raise UsageError(f"wanted a .safetensors file to write, got {target}")
    if not source.is_file():
        raise ModelError(f"wanted the checkpoint {source}, found no such file; check the path")
    check_output(target, force=force)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    command = [sys.executable, "-I", "-m", "imagegen.convert", str(source.absolute())]
    try:
        done = subprocess.run(
            [*command, str(partial.absolute())],
            env={"PATH": os.environ.get("PATH", "")},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            told = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
            raise ModelError(
                f"wanted nothing but tensors in {source}, the reader refused: {shown(told, 200)}; "
                "fetch the file again, or a safetensors one"
            )
        n_tensors = len(read_header(partial))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return n_tensors


def main() -> None:
    """Convert within limits; anything unusual ends the process with a line on stderr."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    import torch
    from safetensors.torch import save_file

    _limit(source.stat().st_size)
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
        # Cloned, for tensors that share their memory cannot be saved apart.
        tensors = {name: value.clone().contiguous() for name, value in _tensors(content)}
        if not tensors:
            raise ValueError("no tensors in it")
        save_file(tensors, target, metadata={"format": "pt"})
    except Exception as err:  # the edge of this process
        # Some errors say nothing but their name, at the end of an empty file for one.
        sys.exit(" ".join(str(err).split())[:300] or type(err).__name__)


def _limit(n_bytes: int) -> None:
    """Bound what this process may use from now on; the kernel enforces it."""
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (MAX_SECONDS, MAX_SECONDS))
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_OPEN_FILES, MAX_OPEN_FILES))
    size = GROWTH * n_bytes + 1_000_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _tensors(content: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Tensors by dotted names; the outer `state_dict` that trainers add leaves no trace."""
    import torch

    if isinstance(content, torch.Tensor):
        yield name, content
    elif isinstance(content, dict) and depth < MAX_DEPTH:
        if depth == 0 and isinstance(content.get("state_dict"), dict):
            content = content["state_dict"]
        for key, value in content.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key), depth + 1)


if __name__ == "__main__":
    main()
