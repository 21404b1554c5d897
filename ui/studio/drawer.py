"""Folders of one kind, owner by owner: `data/<owner>/<kind>/<name>/`."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable
from pathlib import Path

from orbweave.errors import UsageError

__all__ = ["Drawer"]

NAME = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}")


class Drawer:
    """Where a page keeps what people made on it; nobody is handed another's.

    Args:
        data: The studio's folder.
        kind: Name of the folders' parent, in the plural.
        record: The file without which a folder is none of these.
    """

    def __init__(self, data: Path, kind: str, record: str) -> None:
        self._data, self._kind, self._record = data, kind, record

    def new(self, owner: str) -> Path:
        """Return the place of a new folder, which is not made yet."""
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
        return self._data / owner / self._kind / name

    def find(self, owner: str, name: str) -> Path:
        """Return one of the owner's folders.

        Raises:
            UsageError: the owner has none of that name; others' are not told from none.
        """
        folder = self._data / owner / self._kind / name
        if not NAME.fullmatch(name) or not (folder / self._record).is_file():
            raise UsageError(
                f"wanted one of your {self._kind}, found none of that name; see the list"
            )
        return folder

    def all(self, owner: str) -> list[Path]:
        """Return the owner's folders, the latest first."""
        return self._sorted(self._data.glob(f"{owner}/{self._kind}/*/{self._record}"))

    def everybody(self) -> list[Path]:
        """Return the folders of all owners, the latest first."""
        return self._sorted(self._data.glob(f"*/{self._kind}/*/{self._record}"))

    def _sorted(self, records: Iterable[Path]) -> list[Path]:
        folders = [path.parent for path in records]
        return sorted(folders, key=lambda folder: folder.name, reverse=True)
