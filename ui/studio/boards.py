"""Boards: designs somebody put together under a name, in one small file a person."""

from __future__ import annotations

import threading
from pathlib import Path

from pydantic import ValidationError

from orbweave.errors import OutputError, UsageError, shown
from orbweave.files import write_text
from orbweave.records import Record

__all__ = ["MAX_BOARDS", "Boards"]

MAX_BOARDS = 50
"""Of one person."""
MAX_NAME = 60
MAX_DESIGNS = 2_000


class _File(Record):
    """What `boards.json` holds."""

    boards: dict[str, tuple[str, ...]] = {}
    """Names of designs, in the order they were put there."""


class Boards:
    """The boards of one person. Safe to use from several threads of one process."""

    _lock = threading.Lock()

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, tuple[str, ...]]:
        """Return names of designs by board, boards by name.

        Raises:
            OutputError: the file is broken; nothing is written over it.
        """
        try:
            boards = _File.model_validate_json(self._path.read_text("utf-8")).boards
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError, ValidationError) as err:
            raise OutputError(
                f"wanted the boards in {self._path}, they cannot be read; mend the file or move "
                "it away"
            ) from err
        return dict(sorted(boards.items(), key=lambda item: item[0].casefold()))

    def put(self, name: str, design: str) -> None:
        """Put a design on a board, which is made if it is new; twice is once.

        Raises:
            UsageError: the name is empty or too long, or there are too many boards or designs.
            OutputError: the file cannot be read or written.
        """
        name = " ".join("".join(c for c in name if c.isprintable()).split())
        if not 0 < len(name) <= MAX_NAME:
            raise UsageError(
                f"wanted a name of 1 to {MAX_NAME} characters for the board, got {shown(name)}"
            )
        with self._lock:
            boards = self.read()
            on_it = boards.get(name, ())
            if len(boards | {name: ()}) > MAX_BOARDS or len(on_it) >= MAX_DESIGNS:
                raise UsageError(
                    f"wanted at most {MAX_BOARDS} boards of {MAX_DESIGNS:,} designs; "
                    "take something off first"
                )
            if design not in on_it:
                self._write(boards | {name: (*on_it, design)})

    def take(self, name: str, design: str) -> None:
        """Take a design off a board; a board with nothing on it is gone.

        Raises:
            OutputError: the file cannot be read or written.
        """
        with self._lock:
            boards = self.read()
            left = tuple(each for each in boards.get(name, ()) if each != design)
            rest = {other: on_it for other, on_it in boards.items() if other != name}
            self._write(rest | ({name: left} if left else {}))

    def _write(self, boards: dict[str, tuple[str, ...]]) -> None:
        write_text(self._path, _File(boards=boards).model_dump_json(indent=1) + "\n")
