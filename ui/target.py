"""Folders that results go to: fresh names, and what `--force` may replace."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

from orbweave.errors import OutputError
from orbweave.files import check_output

__all__ = ["check_target", "default_folder", "slug"]

SLUG_BYTES = 60
"""File names hold 255 bytes, and the hidden temporary name adds some."""


def check_target(
    target: Path, *, force: bool, is_ours: Callable[[Path], bool], typed: str = "--out"
) -> None:
    """Check that a result folder can be written, before the work.

    Args:
        target: The folder; its parents are made when it is written.
        force: An existing folder is replaced, if it is one of ours or empty:
            `--force --out ~` must not empty a home.
        is_ours: Tells whether an existing folder is an earlier result of this command.
        typed: What the folder is called on the command line.

    Raises:
        OutputError: it exists and may not be replaced, or cannot be written.
    """
    check_output(target, force=force)
    if not target.exists():
        return
    if (
        target.is_symlink()
        or not target.is_dir()
        or (any(target.iterdir()) and not is_ours(target))
    ):
        raise OutputError(
            f"wanted to replace an earlier result, found something else at {target}; "
            f"--force replaces results of this command only, choose another {typed}"
        )


def slug(concept: str) -> str:
    """Return a short name for a folder: letters and digits of any script, and dashes.

    It has no separators, dots or leading dash, and at most `SLUG_BYTES` bytes; a concept
    of symbols alone becomes `design`.
    """
    letters = "".join(
        c if c.isalnum() or unicodedata.category(c)[0] == "M" else "-"
        for c in unicodedata.normalize("NFKC", concept).lower()
    )
    # A mark without its letter, such as an emoji's variation selector, is no word.
    words = [word for word in letters.split("-") if any(c.isalnum() for c in word)]
    kept = ""
    for word in words:
        longer = f"{kept}-{word}" if kept else word
        if len(longer.encode()) > SLUG_BYTES:
            break
        kept = longer
    cut = words[0].encode()[:SLUG_BYTES].decode(errors="ignore") if words else ""
    return kept or cut or "design"


def default_folder(parent: Path, concept: str, seed: int) -> Path:
    """Return `parent/slug-seed`, with -2, -3 ... behind it if that exists."""
    name = f"{slug(concept)}-{seed}"
    target, count = parent / name, 1
    while target.exists() or target.is_symlink():
        count += 1
        target = parent / f"{name}-{count}"
    return target
