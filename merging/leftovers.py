"""One merge at a time into a place, and what a killed one left there.

The mark beside the place, see `orbweave.owner`, names the half-made folder of the merge at work:
what an unlocked mark names has no owner any more.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from orbweave.owner import owned

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
    with owned(target, "merge") as mark:
        name = "" if mark is None else mark.read().decode(errors="replace")
        if _is_half_made(name, target):
            shutil.rmtree(target.with_name(name), ignore_errors=True)
        _name_unmarked(target, on_progress)

        def note(folder: Path) -> None:
            if mark is not None:  # else what a kill leaves can only be named, not removed
                mark.truncate(0)
                mark.write(folder.name.encode())

        yield note


def _name_unmarked(target: Path, on_progress: Callable[[str], None]) -> None:
    for place in sorted(target.parent.glob(f".{escape(target.name)}.*")):
        if _is_half_made(place.name, target):
            on_progress(f"left alone: {place}, perhaps of a merge that was killed; remove it if so")


def _is_half_made(name: str, target: Path) -> bool:
    return re.fullmatch(re.escape(f".{target.name}.") + r"[0-9a-f]{8}\.partial", name) is not None
