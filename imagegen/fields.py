"""Where a fault lies in a request or a structure, in words instead of pydantic's paths."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["in_words"]

_OF_ADAPTERS = ("reference", "weight")
"""What the two places of an adapter in a request hold."""


def in_words(place: Sequence[str | int]) -> str:
    """Return `weight of adapter 1` for the path `adapters.0.1`; empty for the whole."""
    words: list[str] = []
    for i, part in enumerate(place):
        if isinstance(part, str) or not i:
            words.append(str(part))
        elif isinstance(place[i - 1], str):
            words[-1] = f"{words[-1].removesuffix('s')} {part + 1}"
        else:
            words.append(_OF_ADAPTERS[part] if place[0] == "adapters" else f"number {part + 1}")
    return " of ".join(reversed(words))
