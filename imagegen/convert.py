"""Pickled checkpoints to safetensors, as an explicit step in a process of its own.

    python -m imagegen.convert FILE OUT

is that process. It reads with torch's `weights_only`, which refuses everything but tensors and
plain containers, and holds as little as can be: no environment but the path, no home folder,
few open files, an output and a memory bounded by the file's length. It ends with whoever started
it. It cannot be denied the net; who distrusts the file should run this in a container without one.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orbweave.errors import ModelError, OutputError, UsageError, shown
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
SPARE_BYTES = 300_000_000
"""Memory for Python's own objects besides the tensors'; a large checkpoint has 10,000 of them."""
WATCH_S = 0.5
"""Between two looks at whether the starter still lives."""
NOT_WRITTEN = 3
"""Exit code where the file is sound and the disk refused."""


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
        UsageError: nobody vouches for it, it is safetensors already, or the target is no
            `.safetensors` file.
        ModelError: it holds more than tensors, none, or some that safetensors cannot hold; or it
            asks for more memory than a file of its length can need.
        OutputError: the target cannot be written.
    """
    if not trust:
        raise UsageError(
            f"wanted somebody to vouch for {source}: a pickle can run any program when it is "
            "read; if you trust where it came from, add --trust-pickle"
        )
    if target.suffix != ".safetensors":
        raise UsageError(f"wanted a .safetensors file to write, got {target}")
    _check_source(source)
    check_output(target, force=force)
    # A folder, for safetensors writes under a name of its own beside the one it is given.
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a killed conversion left
    try:
        partial.mkdir(parents=True)
        whole = partial / target.name
        _run_reader(source, whole, target)
        n_tensors = len(read_header(whole, "try again"))
        with whole.open("rb") as file:
            os.fsync(file.fileno())
        whole.replace(target)
    except OSError as err:
        raise OutputError(
            f"wanted to write {target}, the system said {shown(err.strerror or err)}; "
            "free some space or choose another place"
        ) from err
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return n_tensors


def _check_source(source: Path) -> None:
    """Raise for what is no pickle file at first sight."""
    if source.is_dir():
        raise ModelError(f"wanted a checkpoint file, got the folder {source}; name a file in it")
    if not source.is_file():
        raise ModelError(f"wanted the checkpoint {source}, found no such file; check the path")
    try:
        with source.open("rb") as file:
            head = file.read(9)
    except OSError as err:
        raise ModelError(
            f"wanted to read the checkpoint {source}, the system said {shown(err.strerror)}; "
            "mend that and try again"
        ) from err
    # Eight bytes of header length, then JSON; a pickle or a zip archive would be far longer.
    if head[8:] == b"{" and int.from_bytes(head[:8], "little") <= source.stat().st_size:
        raise UsageError(
            f"wanted a pickled checkpoint, {source} is safetensors already; use it as it is, "
            f"renamed to {source.with_suffix('.safetensors').name}"
        )


def _run_reader(source: Path, whole: Path, target: Path) -> None:
    """Let the process of its own write `whole`; `target` is for a message."""
    command = [sys.executable, "-I", "-m", "imagegen.convert"]
    done = subprocess.run(
        [*command, source.absolute(), whole.absolute(), str(os.getpid())],
        env={"PATH": os.environ.get("PATH", "")},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        return
    told = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
    if done.returncode == NOT_WRITTEN:
        raise OutputError(
            f"wanted to write {target}, got {shown(told, 200)}; "
            "free some space or choose another place"
        )
    if done.returncode == -signal.SIGXCPU:
        told = f"it takes more than {MAX_SECONDS:,} s of processor time"
    elif done.returncode < 0:
        told = f"the system ended it by {signal.Signals(-done.returncode).name}"
    raise ModelError(
        f"wanted nothing but tensors in {source}, the reader refused: {shown(told, 200)}; "
        "fetch the file again, or a safetensors one, or save its state_dict alone where it was made"
    )


# ------------------------------------------------------------------- in the process of its own


class _Refused(Exception):
    """What the file holds that cannot come over; the text says so."""


def main() -> None:
    """Convert within limits; anything unusual ends the process with a line on stderr."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    if len(sys.argv) > 3:  # our own call, whose output lies in a folder made for it
        owner = int(sys.argv[3])
        threading.Thread(target=_end_with, args=(owner, target.parent), daemon=True).start()
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(1)  # each thread would take of the memory that is bounded next
    n_bytes = source.stat().st_size
    _limit(n_bytes)
    try:
        if not n_bytes:
            raise _Refused("the file is empty")
        found = _found_in(torch.load(source, map_location="cpu", weights_only=True), n_bytes)
        # Cloned, for tensors that share their memory cannot be saved apart.
        tensors = {
            name: value.detach().clone(memory_format=torch.contiguous_format)
            for name, value in found.items()
        }
    except Exception as err:  # the edge of this process
        sys.exit(_in_words(err))
    try:
        save_file(tensors, target, metadata={"format": "pt"})
    except Exception as err:
        print(" ".join(str(err).split()), file=sys.stderr)
        sys.exit(NOT_WRITTEN)


def _end_with(owner: int, partial: Path) -> None:
    """End this process, and remove the folder it writes into, when its owner has ended."""
    while os.getppid() == owner:
        time.sleep(WATCH_S)
    shutil.rmtree(partial, ignore_errors=True)
    os._exit(1)


def _limit(n_bytes: int) -> None:
    """Bound what this process may use from now on; the kernel enforces it."""
    import resource

    size = _longest(n_bytes)
    limits = {
        resource.RLIMIT_CPU: MAX_SECONDS,
        resource.RLIMIT_NOFILE: MAX_OPEN_FILES,
        resource.RLIMIT_FSIZE: size,
    }
    if sys.platform == "linux":  # the others count no address space, or do not enforce it
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        # The file, and the clones of its tensors.
        limits[resource.RLIMIT_AS] = used + n_bytes + size + SPARE_BYTES
    for kind, limit in limits.items():
        hardest = resource.getrlimit(kind)[1]  # of a batch system, for one; it cannot be raised
        own = limit if hardest == resource.RLIM_INFINITY else min(limit, hardest)
        resource.setrlimit(kind, (own, own))


def _longest(n_bytes: int) -> int:
    """Bytes that may come of a file of so many."""
    return GROWTH * n_bytes + 1_000_000


def _found_in(content: Any, n_bytes: int) -> dict[str, Any]:
    """Return the tensors of a file of so many bytes by dotted names; refuse what would be lost."""
    found: dict[str, Any] = {}
    size = 0
    for name, tensor in _tensors(content):
        if name in found:
            raise _Refused(f"two tensors would be called {shown(name)}, and one be lost")
        if name == "__metadata__":
            raise _Refused(f"a tensor is called {name}, which safetensors keeps for itself")
        if not _can_be_saved(tensor):
            kind = f"{tensor.dtype}, {tensor.layout}, on {tensor.device}".replace("torch.", "")
            raise _Refused(f"safetensors cannot hold the tensor {shown(name)} ({kind})")
        found[name] = tensor
        size += tensor.numel() * tensor.element_size()
        if size > _longest(n_bytes):
            raise _Refused(f"{size:,} bytes of tensors or more in a file of {n_bytes:,}")
    if not found:
        raise _Refused("no tensors in it")
    return found


def _tensors(content: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Tensors by dotted names; the outer `state_dict` that trainers add leaves no trace."""
    import torch

    if isinstance(content, torch.Tensor):
        yield name, content
        return
    if isinstance(content, (list, tuple)):
        content = dict(enumerate(content))
    if not isinstance(content, dict):
        return
    if depth == MAX_DEPTH:
        raise _Refused(f"containers that hold themselves, or more than {MAX_DEPTH} in one another")
    if depth == 0 and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    for key, value in content.items():
        yield from _tensors(value, f"{name}.{key}" if name else str(key), depth + 1)


def _can_be_saved(tensor: Any) -> bool:
    """Whether a tensor holds plain numbers, of a type that safetensors has."""
    import torch
    from safetensors.torch import save

    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        return False
    try:
        save({"a": torch.empty(0, dtype=tensor.dtype)})
    except KeyError:
        return False
    return True


def _in_words(err: Exception) -> str:
    """Say what stopped the reading; torch's own words advise to read without its guard."""
    text = str(err)
    if isinstance(err, _Refused):
        return text
    if isinstance(err, MemoryError) or "allocate memory" in text or "bad_alloc" in text:
        return "it asks for more memory than a file of its length can need"
    named = re.search(r"GLOBAL ([\w.]{1,100})", text)
    if named is not None:
        return f"it names {named[1]}, which is neither tensor nor plain container"
    if "TorchScript" in text or ".tar format" in text:
        return "it is a TorchScript program or an archive of torch's first years"
    if "PytorchStreamReader" in text:
        return "its zip archive is cut off or damaged"
    return f"it is no pickle as torch writes it, or a damaged one ({type(err).__name__})"


if __name__ == "__main__":
    main()
