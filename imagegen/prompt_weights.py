r"""A1111's weight syntax: which words of a prompt count more, and which less.

    (web)        1.1 times        (web:1.3)   1.3 times       \(web\)   a plain bracket
    ((web))      1.21 times       [web]       1 / 1.1 times   BREAK     a new chunk here

Source: github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/Features#attentionemphasis.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from orbweave.errors import UsageError, shown

__all__ = ["WeightedText", "read_weights", "without_weights"]

STEP = 1.1
"""What one pair of brackets does."""
MAX_WEIGHT = 10.0
"""Beyond it a typing error is likelier than a wish; pictures fall apart from 2 on."""
MAX_DEPTH = 32
"""Brackets within brackets; 25 pairs pass `MAX_WEIGHT` already."""
_MARKS = re.compile(
    r"""\\[\\()\[\]]                           # an escaped bracket, or backslash
    | :\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)  # the end of (word:1.3)
    | [()\[\]]
    | \bBREAK\b
    """,
    re.VERBOSE,
)


class WeightedText(NamedTuple):
    """A prompt without its marks, in chunks that were asked for by BREAK."""

    chunks: tuple[str, ...]
    """What the encoder shall read; one where there is no BREAK."""
    weights: tuple[tuple[float, ...], ...]
    """One weight per character of each chunk; 1 leaves a word as it is."""

    @property
    def is_plain(self) -> bool:
        """Whether no word is weighted and no chunk was asked for."""
        return len(self.chunks) == 1 and all(w == 1.0 for w in self.weights[0])


def read_weights(prompt: str) -> WeightedText:
    """Read the weights out of a prompt.

    A closing bracket without an opening one is text; an opening one that is never closed
    holds to the end, as with A1111.

    Raises:
        UsageError: a weight outside +-`MAX_WEIGHT`, or brackets deeper than `MAX_DEPTH`.
    """
    text: list[str] = []
    weights: list[float] = []
    open_at: dict[str, list[int]] = {"(": [], "[": []}
    breaks: list[int] = []

    def put(piece: str) -> None:
        text.append(piece)
        weights.extend([1.0] * len(piece))

    def weigh(start: int, factor: float) -> None:
        weights[start:] = [w * factor for w in weights[start:]]

    at = 0
    for mark in _MARKS.finditer(prompt):
        put(prompt[at : mark.start()])
        at, word = mark.end(), mark[0]
        if word.startswith("\\"):
            put(word[1])
        elif word in "([":
            open_at[word].append(len(weights))
            if len(open_at[word]) > MAX_DEPTH:
                raise UsageError(
                    f"wanted at most {MAX_DEPTH} brackets within each other, got more in the "
                    f"prompt {shown(prompt)}; write a plain bracket as \\{word}"
                )
        elif word == "BREAK":
            breaks.append(len(weights))
        elif mark["weight"] is not None and open_at["("]:
            weigh(open_at["("].pop(), _checked(float(mark["weight"]), prompt))
        elif word == ")" and open_at["("]:
            weigh(open_at["("].pop(), STEP)
        elif word == "]" and open_at["["]:
            weigh(open_at["["].pop(), 1 / STEP)
        else:
            put(word)
    put(prompt[at:])
    for start in open_at["("]:
        weigh(start, STEP)
    for start in open_at["["]:
        weigh(start, 1 / STEP)
    for weight in set(weights):
        _checked(weight, prompt)
    whole, ends = "".join(text), [*breaks, len(weights)]
    starts = [0, *breaks]
    spans = [(s, e) for s, e in zip(starts, ends, strict=True) if whole[s:e].strip()] or [(0, 0)]
    if not breaks:
        spans = [(0, len(whole))]
    return WeightedText(
        tuple(whole[s:e] for s, e in spans), tuple(tuple(weights[s:e]) for s, e in spans)
    )


def without_weights(prompt: str) -> str:
    """Return the words alone, for a model that cannot weigh them."""
    return " ".join(chunk.strip() for chunk in read_weights(prompt).chunks)


def _checked(weight: float, prompt: str) -> float:
    if abs(weight) > MAX_WEIGHT:
        raise UsageError(
            f"wanted weights between -{MAX_WEIGHT:g} and {MAX_WEIGHT:g}, got {weight:g} "
            f"in the prompt {shown(prompt)}; 0.5 to 1.5 is usual"
        )
    return weight
