"""What changed between two versions of a text, word by word."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import Literal, NamedTuple

__all__ = ["Piece", "word_diff"]

Change = Literal["same", "removed", "added"]


class Piece(NamedTuple):
    """Neighbouring words with one fate."""

    text: str
    change: Change


def word_diff(old: str, new: str) -> tuple[Piece, ...]:
    """Return how `new` came from `old`: what was removed stands before what took its place.

    The kept and the added words in order are those of `new`, the kept and the removed ones
    those of `old`.
    """
    before, after = old.split(), new.split()
    pieces: list[Piece] = []
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    for kind, i1, i2, j1, j2 in matcher.get_opcodes():
        if kind == "equal":
            pieces.append(Piece(" ".join(after[j1:j2]), "same"))
            continue
        if i2 > i1:
            pieces.append(Piece(" ".join(before[i1:i2]), "removed"))
        if j2 > j1:
            pieces.append(Piece(" ".join(after[j1:j2]), "added"))
    return tuple(pieces)
