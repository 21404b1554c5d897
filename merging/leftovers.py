"""What a killed merge leaves behind: told from the work of one that is still running, by a lock.

The system lets go of a process's locks when it ends, however it ends. So a half-made folder whose
mark can be locked has no owner any more.
"""

from __future__ import annotations

import fcntl
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

__all__ = ["claimed", "remove_dead"]

_MARK = ".owner"


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Mark a half-made folder as this process's own; without a mark inside once it is whole.

    Args:
        folder: As `orbweave.files.build_folder` gives it.

    Raises:
        OSError: the disk refused.
    """
    mark, fresh = folder / _MARK, folder / f"{_MARK}.new"
    with fresh.open("xb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            fresh.rename(mark)  # only now: a mark that nobody holds is a dead one's
        except OSError:
            pass  # a disk that knows no locks: this folder can then only be named, not removed
        try:
            yield
        finally:
            fresh.unlink(missing_ok=True)
            mark.unlink(missing_ok=True)


def remove_dead(target: Path) -> list[Path]:
    """Remove the half-made folders of dead processes beside `target`.

    Returns:
        What has such a name and bears no mark: perhaps a model put aside, so it is not touched.
    """
    unknown = []
    name = re.compile(re.escape(f".{target.name}.") + r"[0-9a-f]{8}\.partial")
    for place in sorted(target.parent.glob(f".{escape(target.name)}.*")):
        if not name.fullmatch(place.name):
            continue
        try:
            with (place / _MARK).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(place, ignore_errors=True)
        except BlockingIOError:
            continue  # somebody is at work there
        except OSError:
            unknown.append(place)
    return unknown
