"""Two versions of a prompt, word by word."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

__all__ = ["Change", "word_diff"]


class Change(NamedTuple):
    """A run of words that was kept, taken out or put in."""

    kind: Literal["kept", "out", "in"]
    text: str


def word_diff(old: str, new: str) -> list[Change]:
    """Return how `old` became `new`.

    The kept and new runs joined are `new`, the kept and removed ones `old`, spaces and all.
    """
    a, b = _words(old), _words(new)
    changes: list[Change] = []
    for tag, a0, a1, b0, b1 in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag == "equal":
            changes.append(Change("kept", "".join(b[b0:b1])))
            continue
        if a1 > a0:
            changes.append(Change("out", "".join(a[a0:a1])))
        if b1 > b0:
            changes.append(Change("in", "".join(b[b0:b1])))
    return changes


def _words(text: str) -> list[str]:
    """Split into words, spaces and marks, none lost."""
    return re.findall(r"\w+(?:[.’'-]\w+)*|\s+|[^\w\s]", text)
