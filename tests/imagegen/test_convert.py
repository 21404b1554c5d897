"""Pickled checkpoints: refused, or converted by somebody who vouches for them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from imagegen.convert import convert_pickle
from orbweave.errors import ModelError, OutputError, UsageError

pytestmark = pytest.mark.slow  # each case starts a Python with torch


class Program:
    """What a hostile pickle does when it is read."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        import os

        return os.system, (self.command,)


def test_tensors_come_over_and_the_outer_layer_is_dropped(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    shared = torch.arange(6.0).reshape(2, 3)
    content = {"state_dict": {"a.w": shared, "b": shared[0], "n": 3}, "epoch": 5}
    torch.save(content, tmp_path / "old.ckpt")

    assert convert_pickle(tmp_path / "old.ckpt", tmp_path / "new.safetensors", trust=True) == 2
    read = load_file(tmp_path / "new.safetensors")
    assert torch.equal(read["a.w"], shared) and torch.equal(read["b"], shared[0])
    with pytest.raises(OutputError, match="exists already"):
        convert_pickle(tmp_path / "old.ckpt", tmp_path / "new.safetensors", trust=True)


@pytest.mark.parametrize("kind", ["program", "torch program", "text", "empty", "no tensors"])
def test_anything_but_tensors_is_refused_and_nothing_runs(tmp_path: Path, kind: str) -> None:
    import torch

    path, trace = tmp_path / "bad.pt", tmp_path / "trace"
    hostile = {"w": Program(f"touch {trace}")}
    if kind == "program":
        path.write_bytes(pickle.dumps(hostile))
    elif kind == "torch program":
        torch.save(hostile, path)
    elif kind == "text":
        path.write_text("no pickle")
    elif kind == "empty":
        path.touch()
    else:
        torch.save({"a": 1}, path)
    with pytest.raises(ModelError, match="nothing but tensors.* refused: .(?!it ended).*; fetch"):
        convert_pickle(path, tmp_path / "new.safetensors", trust=True)
    assert not trace.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["bad.pt"]


def test_nobody_vouching_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="add --trust-pickle"):
        convert_pickle(tmp_path / "a.ckpt", tmp_path / "a.safetensors", trust=False)
    with pytest.raises(UsageError, match="wanted a .safetensors file"):
        convert_pickle(tmp_path / "a.ckpt", tmp_path / "a.bin", trust=True)
    with pytest.raises(ModelError, match="no such file"):
        convert_pickle(tmp_path / "a.ckpt", tmp_path / "a.safetensors", trust=True)
