"""A design under way in a folder of its own, from which it goes on after a restart.

    NAME.unfinished/
        order.json       what was asked for besides the brief
        state.json       the conversation, written after every step
        recording.jsonl  everything that was heard, with its time
        images/          the pictures so far
        .lock            held by the process that works there

It becomes the folder NAME when the design is done. One in which nobody has said anything yet is
not kept.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from orbweave.errors import OutputError, UsageError, shown
from orbweave.files import build_folder, check_output, write_text

if TYPE_CHECKING:
    from agents.state import State

__all__ = ["Busy", "Unfinished"]

ENDING = ".unfinished"
LOCK_FILE = ".lock"
ORDER_FILE = "order.json"
STATE_FILE = "state.json"
"""As `agents.state.STATE_FILE`, which takes long to import."""


class Busy(OutputError):
    """Another process works on the design: there is nothing to go on with yet."""


@dataclass(frozen=True)
class Unfinished:
    """Where a design is kept until it is done."""

    folder: Path
    target: Path
    """Where it goes when it is done."""
    asked: Mapping[str, Any]
    """What was asked for besides the brief, in JSON values; whoever asked knows what it means."""
    state: State | None = None
    """What there is of it; None for a new one."""

    @classmethod
    def begin(cls, target: Path, asked: Mapping[str, Any], *, force: bool = False) -> Unfinished:
        """Return a new one beside `target`; nothing is written yet.

        Raises:
            Busy: another process is at it.
            OutputError: there is one already and `force` is off, or it cannot be written.
        """
        folder = target.with_name(target.name + ENDING)
        if (folder / STATE_FILE).exists() and not force:
            with _held(folder):  # or there would be nothing to go on with
                pass
            raise OutputError(
                f"wanted to begin {target}, an unfinished design is in {folder}; go on with "
                f"--resume {folder}, or use --force to begin anew"
            )
        check_output(folder, force=True)
        return cls(folder, target, asked)

    @classmethod
    def find(cls, place: Path, *, force: bool = False) -> Unfinished:
        """Return the one in a folder, or beside the folder it is to become.

        Args:
            place: `NAME.unfinished` or `NAME`.
            force: Of a broken state take what can be read; the broken file is kept beside it.

        Raises:
            UsageError: there is none, or its order is broken.
            StateError: its state is broken, or of another schema.
        """
        from agents.state import StateError, read_state, write_state

        place = place.resolve()  # "." has no name
        beside = place.with_name(place.name + ENDING)
        folder = place if (place / STATE_FILE).is_file() else beside
        path = folder / STATE_FILE
        if not (folder / ORDER_FILE).is_file() or not path.is_file():
            raise UsageError(
                f"wanted an unfinished design, found none in {place} or {beside.name}; give the "
                f"folder that ends in {ENDING}"
            )
        try:
            state = read_state(path)
        except StateError as err:
            if not force or err.readable is None:
                raise
            path.replace(path.with_name(f"{STATE_FILE}.broken"))
            state = err.readable
            write_state(state, path)
        order = _read_order(folder / ORDER_FILE)
        return cls(folder, folder.with_name(order["target"]), order["asked"], state)

    @contextmanager
    def working(self, *, force: bool = False) -> Iterator[Path]:
        """Yield the folder to work in, which becomes the target if the block succeeds.

        On any exception it stays, if a state was kept in it, and goes otherwise.

        Raises:
            Busy: another process works there.
            OutputError: the target exists and `force` is off, or the disk refused.
        """
        with _held(self.folder):
            try:
                if self.state is None:
                    _empty(self.folder)
                    order = {"target": self.target.name, "asked": dict(self.asked)}
                    write_text(self.folder / ORDER_FILE, json.dumps(order, indent=2) + "\n")
                yield self.folder
                with build_folder(self.target, force=force) as whole:
                    ours = shutil.ignore_patterns(LOCK_FILE, ORDER_FILE)
                    shutil.copytree(self.folder, whole, ignore=ours, dirs_exist_ok=True)
            except BaseException:
                if not self.is_kept:
                    shutil.rmtree(self.folder, ignore_errors=True)
                raise
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def is_kept(self) -> bool:
        """Whether there is something to go on with."""
        return (self.folder / STATE_FILE).is_file()


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Make a folder if need be and hold it; a process that is killed lets go of it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = FileLock(folder / LOCK_FILE).acquire(timeout=0)
    except Timeout as err:
        raise Busy(
            f"wanted to work in {folder}, another process does; wait for it to end, or begin a "
            "design with another --out"
        ) from err
    except OSError as err:
        raise OutputError(
            f"wanted to work in {folder}, the system said {err.strerror}; choose another --out"
        ) from err
    with held:
        yield


def _empty(folder: Path) -> None:
    """Remove what a killed process left in a folder that is held."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK_FILE:
            path.unlink()


def _read_order(path: Path) -> dict[str, Any]:
    try:
        order = json.loads(path.read_text("utf-8"))
        name, asked = order["target"], order["asked"]
        if name == Path(name).name and isinstance(asked, dict):
            return {"target": name, "asked": asked}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UsageError(f"wanted what was asked for in {shown(path)}, it is broken; begin anew")
