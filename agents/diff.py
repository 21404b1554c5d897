"""What changed between two texts, word by word; nothing of either is lost."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

__all__ = ["Change", "Piece", "word_diff"]

Change = Literal["same", "removed", "added"]


class Piece(NamedTuple):
    """Neighbouring words with one fate, and the spaces between them."""

    text: str
    change: Change


def word_diff(old: str, new: str) -> tuple[Piece, ...]:
    """Return how `new` came from `old`: what was removed stands before what took its place.

    The kept and the added pieces joined are `new`, the kept and the removed ones `old`, spaces
    and all. Words that changed side by side are one piece: a kept space does not part them.
    """
    before, after = _words(old), _words(new)
    pieces: list[Piece] = []
    removed = added = ""
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    for kind, i1, i2, j1, j2 in matcher.get_opcodes():
        gone, come = "".join(before[i1:i2]), "".join(after[j1:j2])
        is_gap = kind == "equal" and gone.isspace() and i2 < len(before) and j2 < len(after)
        if kind != "equal" or (is_gap and (removed or added)):
            removed, added = removed + gone, added + come
            continue
        pieces += [*_changed(removed, added), Piece(come, "same")]
        removed = added = ""
    return (*pieces, *_changed(removed, added))


def _changed(removed: str, added: str) -> list[Piece]:
    both = (Piece(removed, "removed"), Piece(added, "added"))
    return [piece for piece in both if piece.text]


def _words(text: str) -> list[str]:
    """Split into words with their marks, and the spaces between them; none is lost."""
    return re.findall(r"\S+|\s+", text)
