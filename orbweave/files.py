"""Files and folders that are written whole or not at all.

A result is built under a hidden temporary name beside its target, flushed to the disk and
renamed. A crash, a full disk or Ctrl-C leaves the old state, never half of the new one.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orbweave.errors import OutputError, shown

__all__ = [
    "append_line",
    "build_folder",
    "check_output",
    "remove_leftovers",
    "sha256_file",
    "write_bytes",
    "write_text",
]

_SUFFIX = ".partial"


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str, *, force: bool = True) -> None:
    """Write `text` as UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode(), force=force)


def write_bytes(path: Path, content: bytes, *, force: bool = True) -> None:
    """Write `content` to `path`, whole or not at all; the parent folder is made if need be.

    Args:
        path: The target; an existing file is replaced in one step.
        content: Everything the file shall hold.
        force: Without it an existing file is an error.

    Raises:
        OutputError: the target exists and `force` is off, is a folder, or cannot be written.
    """
    check_output(path, force=force)
    if path.is_dir():
        raise OutputError(f"wanted to write the file {path}, found a folder; choose another name")
    temporary = _temporary(path)
    try:
        with _disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def append_line(path: Path, line: bytes, whole: int) -> int:
    """Write a line behind the whole ones of a journal, and onto the disk before this returns.

    Args:
        path: The journal; made if need be.
        line: Without its end.
        whole: Bytes of the lines that stand there whole; what a crash left behind them is cut off.

    Returns:
        Bytes of the whole lines, this one included.

    Raises:
        OutputError: the disk refused; the next line takes the place of what it took of this one.
    """
    with _disk_errors(path, "free some space and run it again"), path.open("ab") as file:
        file.truncate(whole)
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return whole + len(line) + 1


@contextmanager
def build_folder(
    target: Path, *, force: bool = False, note: Callable[[Path], object] = lambda _: None
) -> Iterator[Path]:
    """Yield an empty hidden folder that becomes `target` if the block succeeds.

    On any exception, Ctrl-C included, the hidden folder is removed and `target` is as it
    was. With `force` an existing target is replaced, and only after the block.

    Args:
        target: The folder; its parents are made if need be.
        force: Replace an existing target.
        note: Is given the hidden folder before it is made: a killed process leaves it behind,
            and only who noted it can tell it from an old target that was put aside.

    Raises:
        OutputError: the target exists and `force` is off, or the disk refused.
    """
    check_output(target, force=force)
    temporary = _temporary(target)
    with _disk_errors(target):
        note(temporary)
        temporary.mkdir(parents=True)
    try:
        with _disk_errors(target):
            yield temporary
            _flush_tree(temporary)
            _swap(temporary, target, force=force)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_output(target: Path, *, force: bool = False) -> None:
    """Check that `target` can be written, before the work whose result it shall hold.

    Nothing is created.

    Raises:
        OutputError: it exists and `force` is off, a parent is a file, or the nearest
            existing parent folder is read-only.
    """
    with _disk_errors(target):
        if not force and (target.exists() or target.is_symlink()):
            raise OutputError(
                f"wanted to write {target}, but it exists already; "
                "choose another place or use --force"
            )
        target.is_dir()  # refuses names that are too long
        parent = target.absolute().parent
        while not (parent.exists() or parent.is_symlink()):
            parent = parent.parent
        if not parent.is_dir():
            raise OutputError(
                f"wanted to write {target}, but {parent} is no folder; choose another"
            )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(
            f"wanted to write {target}, but {parent} is not writable; "
            "choose another place or change its permissions"
        )


def remove_leftovers(target: Path) -> None:
    """Remove temporary names that a killed process left beside `target`.

    Only for a caller who holds a lock on the target: to others they may be work going on.
    """
    for leftover in target.parent.glob(f".{target.name}.*{_SUFFIX}"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _temporary(target: Path) -> Path:
    """Return a fresh hidden name in the target's own folder, so that a rename is one step."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}{_SUFFIX}")


def _swap(new: Path, target: Path, *, force: bool) -> None:
    """Rename `new` to `target`, putting an old target aside first and back on failure."""
    old = _temporary(target)
    if target.exists() or target.is_symlink():
        check_output(target, force=force)  # another process may have been faster
        target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        with suppress(FileNotFoundError):
            old.rename(target)
        raise
    _flush_folder(target.parent)
    if old.is_dir() and not old.is_symlink():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.unlink(missing_ok=True)


def _flush_tree(folder: Path) -> None:
    """Flush every file and folder below `folder` to the disk."""
    for root, _, names in os.walk(folder):
        for name in names:
            with (Path(root) / name).open("rb") as file:
                os.fsync(file.fileno())
        _flush_folder(Path(root))


def _flush_folder(folder: Path) -> None:
    """Flush a folder's list of names, which makes a rename lasting."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _disk_errors(
    target: Path, mend: str = "free some space or choose another place"
) -> Iterator[None]:
    """Say in our words what the operating system refused."""
    try:
        yield
    except OSError as err:
        raise OutputError(
            f"wanted to write {target}, the system said {shown(err.strerror or err)}; {mend}"
        ) from err
