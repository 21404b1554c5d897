"""A word that must be one of a few."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TypeVar

from orbweave.errors import UsageError, shown

__all__ = ["one_of"]

Word = TypeVar("Word", bound=str)


def one_of(name: str, value: str, known: Sequence[Word]) -> Word:
    """Return the member of `known` that equals `value`.

    Raises:
        UsageError: none does; names the nearest.
    """
    for word in known:
        if word == value:
            return word
    near = get_close_matches(value, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UsageError(f"wanted {name} as one of {', '.join(known)}, got {shown(value)}{hint}")
