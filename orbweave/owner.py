"""One process at a time at work on a place: a mark beside it, locked for as long.

The system lets go of a process's locks when it ends, however it ends: an unlocked mark has no
owner any more.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from orbweave.errors import OutputError

__all__ = ["owned"]


@contextmanager
def owned(target: Path, work: str) -> Iterator[BinaryIO | None]:
    """Keep others away from `target` as long as the block runs.

    Args:
        target: A file or folder, there or not; its parents are made if need be.
        work: What is done there, one word for the message.

    Yields:
        The mark, open to read what its last owner noted in it and to write; None where the disk
        takes no mark or knows no locks, so that nobody is kept away.

    Raises:
        OutputError: another process, or another part of this one, is at work there.
    """
    path = target.parent / f".{target.name}.owner"
    mark = _locked(path, target, work)
    if mark is None:
        yield None
        return
    with mark:
        try:
            mark.seek(0)
            yield mark
        finally:
            path.unlink(missing_ok=True)


def _locked(path: Path, target: Path, work: str) -> BinaryIO | None:
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
            f"wanted to write {target}, but another {work} into it is under way; "
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
    return _locked(path, target, work)
