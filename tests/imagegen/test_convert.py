"""Pickled checkpoints: refused, or converted by somebody who vouches for them."""

from __future__ import annotations

import os
import pickle
import signal
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
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


def test_what_is_no_pickle_at_first_sight_is_told_as_what_it_is(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"w": np.ones(2)}, tmp_path / "new.ckpt")
    with pytest.raises(UsageError, match="is safetensors already; .* renamed to new.safetensors"):
        convert_pickle(tmp_path / "new.ckpt", tmp_path / "a.safetensors", trust=True)
    with pytest.raises(ModelError, match=f"got the folder {tmp_path}; name a file in it"):
        convert_pickle(tmp_path, tmp_path / "a.safetensors", trust=True)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"hello world e", "no pickle as torch writes it, or a damaged one .KeyError"),
        (b"", "the file is empty"),
        (b"PK\x03\x04 and no more", "zip archive is cut off or damaged"),
        (pickle.dumps(Program("true"), 2), "it names posix.system, which is neither tensor"),
    ],
    ids=["text", "empty", "cut off", "program"],
)
def test_why_a_file_is_refused_is_said_without_torchs_advice(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "bad.pt").write_bytes(content)
    with pytest.raises(ModelError, match=reason) as told:
        convert_pickle(tmp_path / "bad.pt", tmp_path / "new.safetensors", trust=True)
    assert "weights_only" not in str(told.value)


@pytest.mark.parametrize("kind", ["stretched", "deflated", "announced"])
def test_a_small_file_cannot_ask_for_much_memory(tmp_path: Path, kind: str) -> None:
    import torch

    path, plain = tmp_path / "bad.pt", tmp_path / "plain.pt"
    if kind == "stretched":
        torch.save({"w": torch.zeros(1).expand(25_000, 25_000)}, path)
    elif kind == "deflated":
        torch.save({"w": torch.zeros(3)}, plain)
        with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
            for name in old.namelist():
                n_bytes = 500_000_000 if name.endswith("/data/0") else 0
                new.writestr(name, bytes(n_bytes) or old.read(name))
    else:
        torch.save({"w": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)
        few, many = b"cpuq\x06K\x03N", b"cpuq\x06J" + struct.pack("<i", 600_000_000) + b"N"
        path.write_bytes(path.read_bytes().replace(few, many))
    with pytest.raises(ModelError, match="2,500,000,000 bytes of tensors|asks for more memory"):
        convert_pickle(path, tmp_path / "new.safetensors", trust=True)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("one name", "two tensors would be called 'a.b', and one be lost"),
        ("itself", "containers that hold themselves"),
        ("metadata", "called __metadata__, which safetensors keeps for itself"),
        ("quantised", r"cannot hold the tensor 'w' \(qint8, strided, on cpu\)"),
        ("sparse", r"cannot hold the tensor 'w' \(float32, sparse_coo, on cpu\)"),
        ("complex", r"cannot hold the tensor 'w' \(complex128, strided, on cpu\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_tensors_that_would_be_lost_or_doubled_are_refused(
    tmp_path: Path, kind: str, reason: str
) -> None:
    import torch

    one = torch.ones(2)
    content: dict[str, Any]
    if kind == "one name":
        content = {"a.b": one, "a": {"b": one + 1}}
    elif kind == "itself":
        content = {"w": one}
        content["self"] = content
    elif kind == "metadata":
        content = {"__metadata__": one}
    elif kind == "quantised":
        content = {"w": torch.quantize_per_tensor(one, 0.1, 0, torch.qint8)}
    else:
        content = {"w": one.to_sparse() if kind == "sparse" else one.to(torch.complex128)}
    torch.save(content, tmp_path / "bad.pt")
    with pytest.raises(ModelError, match=reason):
        convert_pickle(tmp_path / "bad.pt", tmp_path / "new.safetensors", trust=True)
    assert [p.name for p in tmp_path.iterdir()] == ["bad.pt"]


def test_tensors_in_lists_are_not_lost(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    torch.save({"w": [torch.ones(2), {"b": torch.zeros(1)}]}, tmp_path / "old.pt")
    assert convert_pickle(tmp_path / "old.pt", tmp_path / "new.safetensors", trust=True) == 2
    assert load_file(tmp_path / "new.safetensors").keys() == {"w.0", "w.1.b"}


def test_a_disk_that_refuses_is_told_as_that(tmp_path: Path) -> None:
    import resource

    import torch

    torch.save({"w": torch.ones(5_000)}, tmp_path / "old.pt")
    done = subprocess.run(
        [sys.executable, "-m", "ui.cli", "models", "convert", "old.pt", "new.safetensors",
         "--trust-pickle"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000)),
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "wanted to write new.safetensors, got " in done.stderr
    assert "File too large" in done.stderr and "choose another place" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["old.pt"]


def lives(pid: str) -> bool:
    """Whether a process runs; one that has ended and waits to be fetched has no command line."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="finds the reader in /proc")
def test_a_killed_conversion_takes_its_reader_along_and_leaves_nothing(tmp_path: Path) -> None:
    import torch

    torch.save({"w": torch.ones(2)}, tmp_path / "old.pt")
    call = "convert_pickle(Path('old.pt'), Path('new.safetensors'), trust=True)"
    code = f"from pathlib import Path; from imagegen.convert import convert_pickle; {call}"
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path) as owner:
        children = Path(f"/proc/{owner.pid}/task/{owner.pid}/children")
        while not (reader := children.read_text().strip()):
            time.sleep(0.01)
        os.kill(owner.pid, signal.SIGKILL)
    while lives(reader):
        time.sleep(0.1)
    assert [p.name for p in tmp_path.iterdir()] == ["old.pt"]
