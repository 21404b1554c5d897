"""One merge at a time into a place, and what a killed one left there.

A mark beside the place is locked while a merge works, and names its half-made folder. The system
lets go of a process's locks when it ends, however it ends: what an unlocked mark names has no
owner any more.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import BinaryIO

from orbweave.errors import OutputError

__all__ = ["held"]


@contextmanager
def held(target: Path, on_progress: Callable[[str], None]) -> Iterator[Callable[[Path], None]]:
    """Keep other merges away from `target`, and remove what a killed one left half-made there.

    Whatever makes and renames the folder belongs into the block, so that there is no moment at
    which a kill would leave a folder without a mark.

    Args:
        target: The place of the merged model.
        on_progress: Is told what is named like a half-made folder and bears no mark: perhaps it
            is a model put aside, so it is not touched.

    Yields:
        What notes the half-made folder; for `orbweave.files.build_folder`.

    Raises:
        OutputError: another merge into `target` is under way.
    """
    path = target.with_name(f".{target.name}.owner")
    mark = _locked(path, target)
    if mark is None:  # what a kill leaves can then only be named, not removed
        _name_unmarked(target, on_progress)
        yield lambda folder: None
        return

    def note(folder: Path) -> None:
        mark.truncate(0)
        mark.write(folder.name.encode())

    with mark:
        try:
            mark.seek(0)
            name = mark.read().decode(errors="replace")
            if _is_half_made(name, target):
                shutil.rmtree(target.with_name(name), ignore_errors=True)
            _name_unmarked(target, on_progress)
            yield note
        finally:
            path.unlink(missing_ok=True)


def _name_unmarked(target: Path, on_progress: Callable[[str], None]) -> None:
    for place in sorted(target.parent.glob(f".{escape(target.name)}.*")):
        if _is_half_made(place.name, target):
            on_progress(f"left alone: {place}, perhaps of a merge that was killed; remove it if so")


def _is_half_made(name: str, target: Path) -> bool:
    return re.fullmatch(re.escape(f".{target.name}.") + r"[0-9a-f]{8}\.partial", name) is not None


def _locked(path: Path, target: Path) -> BinaryIO | None:
    """Return the mark with its lock; None where the disk takes no mark or knows no locks.

    Raises:
        OutputError: another process has the lock.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mark = path.open("a+b", buffering=0)
    except OSError:
        return None
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as err:
        mark.close()
        raise OutputError(
            f"wanted to write {target}, but another merge into it is under way; "
            "wait for its end or choose another place"
        ) from err
    except OSError:
        mark.close()
        with suppress(OSError):
            path.unlink()
        return None
    if os.fstat(mark.fileno()).st_nlink:
        return mark
    mark.close()  # who had the lock ended meanwhile, and took the mark away
    return _locked(path, target)
