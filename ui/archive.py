"""A folder as one zip file, to be sent to somebody."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["write_archive"]

_PACKED_ALREADY = {".png", ".parquet"}


def write_archive(folder: Path, target: Path) -> None:
    """Write everything in a folder but hidden names and zip files; below its own name.

    Args:
        folder: What to pack.
        target: The file to write; the caller gives it its final name when it is whole.
    """
    with zipfile.ZipFile(target, "w", strict_timestamps=False) as archive:
        for path in _files(folder):
            how = zipfile.ZIP_STORED if path.suffix in _PACKED_ALREADY else zipfile.ZIP_DEFLATED
            archive.write(path, Path(folder.name) / path.relative_to(folder), compress_type=how)


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and not name.endswith(".zip"):
                yield Path(root) / name
