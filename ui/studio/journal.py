"""What happened in a sitting, one JSON line an event; a cut line at the end is forgiven.

    {"at": 1795336800.123, "kind": "TurnStarted", "index": 0, ...}

The file is flushed to the system after every line, so a killed server loses nothing that
was said; only a machine that loses power may lose its last second.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from agents.events import Event, RenderStep, Spoke, TurnEnded, event_from_json, event_to_json
from orbweave.errors import UsageError
from orbweave.files import write_text

__all__ = ["Entry", "Happening", "Journal", "Moved", "Noted", "Status", "Steered"]

Status = Literal["queued", "running", "done", "stopped", "failed", "interrupted"]
"""`interrupted` is a run that was cut off twice at the same step; a person may let it go on."""


@dataclass(frozen=True)
class Moved:
    """The sitting is now something else, and why if that needs a word."""

    status: Status
    why: str = ""


@dataclass(frozen=True)
class Noted:
    """What is being waited for."""

    text: str


@dataclass(frozen=True)
class Steered:
    """A person changed what was said, and how."""

    text: str


Happening = Event | Moved | Noted | Steered
LAST_BYTES = 4_000
"""Longer than any `Moved`."""


@dataclass(frozen=True)
class Entry:
    """A happening and when it came."""

    at: float
    """Seconds since 1970."""
    what: Happening


class Journal:
    """The file of one sitting; one writer at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, entry: Entry) -> None:
        """Append one line."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(entry))

    def compact(self) -> None:
        """Drop the previews of what is over: words of finished turns, steps of drawn pictures."""
        kept = list(self.read())
        over = {e.what.turn.index for e in kept if isinstance(e.what, TurnEnded)}
        self.write(
            entry
            for entry in kept
            if not isinstance(entry.what, RenderStep)
            and not (isinstance(entry.what, Spoke) and entry.what.index in over)
        )

    def write(self, entries: Iterable[Entry]) -> None:
        """Replace everything, whole or not at all."""
        write_text(self._path, "".join(map(_line, entries)))

    def mend(self) -> None:
        """Remove a line that a killed process left half written, so that the next is whole."""
        if self._path.is_file():
            content = self._path.read_bytes()
            if content and not content.endswith(b"\n"):
                self._path.write_bytes(content[: content.rfind(b"\n") + 1])

    def status(self) -> Status:
        """Return what the sitting is by its last line alone: nothing but `Moved` ends a run."""
        if not self._path.is_file():
            return "queued"
        with self._path.open("rb") as file:
            file.seek(max(0, self._path.stat().st_size - LAST_BYTES))
            last = file.read().splitlines()[-1:]
        for entry in map(_entry, (line.decode("utf-8", "replace") for line in last)):
            if entry is not None and isinstance(entry.what, Moved):
                return entry.what.status
        return "running"

    def read(self) -> Iterator[Entry]:
        """Yield what was written; lines that cannot be read are passed over.

        Such a line is half written, or of a later version with other events: what is left
        still tells the story.
        """
        if not self._path.is_file():
            return
        with self._path.open(encoding="utf-8", errors="replace") as file:
            for text in file:
                entry = _entry(text)
                if entry is not None:
                    yield entry


def _line(entry: Entry) -> str:
    what = entry.what
    if isinstance(what, Moved | Noted | Steered):
        fields = {"kind": type(what).__name__, **asdict(what)}
    else:
        fields = event_to_json(what)
    return json.dumps({"at": entry.at, **fields}, ensure_ascii=False) + "\n"


def _entry(text: str) -> Entry | None:
    """Return what a line says; None if it cannot be read."""
    try:
        line: dict[str, Any] = json.loads(text)
        at = float(line.pop("at"))
        if line.get("kind") not in _OURS:
            return Entry(at, event_from_json(line))
        return Entry(at, TypeAdapter(_OURS[line.pop("kind")]).validate_python(line))
    except (ValueError, KeyError, TypeError, AttributeError, UsageError):
        return None


_OURS: dict[str, type[Moved | Noted | Steered]] = {
    kind.__name__: kind for kind in (Moved, Noted, Steered)
}
