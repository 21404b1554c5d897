"""How clean a text is: a number in [0, 1], its four parts, and a gate for what training may read.

Raw text is trained on as it stands, so the faults of extraction are learnt with it; questions
and summaries written from the same text hardly suffer (Lu, Luu & Buehler 2025). The parts are
those faults: unknown symbols, repeats, broken lines, and words of another language. Scales
and gate are chosen by us, on papers extracted well and spoilt on purpose.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["GATE", "Quality", "gate", "quality"]

GATE = 0.5
"""Least score of a text that continued pre-training may read."""

_SYMBOL_SCALE = 0.02
"""Share of unknown symbols that divides the score by e: about one in eight words."""
_REPEAT_SCALE = 0.25
"""Share of repeated words that divides the score by e."""
_LINE_SCALE = 0.5
"""Broken lines for each sentence that divide the score by e."""
_USUAL_FUNCTION_WORDS = 0.25
"""Share in dense scientific English; prose has 0.4."""
_DOUBT = 20
"""Words of which a share is believed by half; a single sentence shows little."""

_FUNCTION_WORDS = frozenset(
    "the of and to is that with for by as are from this which be at on have has were was it its "
    "these those can not or than their they we between such into also but may when where how "
    "more most each other if while both in a an".split()
)
_WRECKED = re.compile(r"\(cid:\d+\)|/g\d{2,}\b|[ÃÂ][\u0080-\u00bf]|â€.")
"""Glyph numbers instead of letters, and UTF-8 read as Latin-1."""
_BOXES = frozenset("\ufffd□■▯")
_RUN = re.compile(r"([^\s.\-_=*#|~·…])\1{4,}")
"""One character five times; rules and leaders are meant."""
_GRAM = 6
"""Words in a repeat; shorter phrases return in any text."""
_SPACED = re.compile(r"(?:\b\w ){4,}\w\b")
"""S p a c e d letters."""
_LONG_WORD = 30
_PROSE = re.compile(r"[^\W\d_]|[(\"'“‘\[]")
_END = re.compile(r"[.!?:;][\"'”’)\]\d,]*$")


class Quality(NamedTuple):
    """Parts in [0, 1], 1 is clean; the score is their product."""

    symbols: float
    repeats: float
    lines: float
    language: float

    @property
    def score(self) -> float:
        """The product of the parts."""
        return math.prod(self)


def quality(text: str) -> Quality:
    """Return how clean a Markdown text is; zero throughout if it holds no word."""
    words = re.findall(r"[^\W\d_]+", text.lower())
    if not words:
        return Quality(0.0, 0.0, 0.0, 0.0)
    return Quality(
        symbols=math.exp(-_unknown_share(text) / _SYMBOL_SCALE),
        repeats=math.exp(-_repeated_share(text) / _REPEAT_SCALE),
        lines=math.exp(-_broken_lines(text) / _LINE_SCALE),
        language=min(1.0, _function_share(words) / _USUAL_FUNCTION_WORDS),
    )


def gate(found: Quality, least: float = GATE) -> str | None:
    """Return why a text may not be trained on as it stands; None if it may."""
    if found.score >= least:
        return None
    worst = min(found._fields, key=lambda name: float(getattr(found, name)))
    cause = {
        "symbols": "unknown symbols",
        "repeats": "repeats",
        "lines": "broken lines or words",
        "language": "few English words",
    }[worst]
    return f"quality: {found.score:.2f} is under {least:.2f}, most of all {cause}"


def _unknown_share(text: str) -> float:
    """Return the share of characters that stand for nothing."""
    unknown = sum(len(match[0]) for match in _WRECKED.finditer(text))
    for character in set(text):
        is_unknown = character in _BOXES or (
            # Control, private use, unassigned, surrogate.
            unicodedata.category(character) in {"Cc", "Co", "Cn", "Cs"} and not character.isspace()
        )
        unknown += text.count(character) * is_unknown
    return unknown / len(text)


def _repeated_share(text: str) -> float:
    """Return the share of words inside a phrase that stood before, runs of a letter counted in."""
    words = text.lower().split()
    seen: set[tuple[str, ...]] = set()
    covered = bytearray(len(words))
    for i in range(len(words) - _GRAM + 1):
        gram = tuple(words[i : i + _GRAM])
        if gram in seen:
            covered[i : i + _GRAM] = b"\1" * _GRAM
        seen.add(gram)
    runs = sum(len(match[0]) for match in _RUN.finditer(text))
    return sum(covered) / (len(words) + _DOUBT) + runs / len(text)


def _broken_lines(text: str) -> float:
    """Return lines that end inside a sentence, and spoilt words, for each sentence."""
    broken = 0
    lines: list[str] = []
    for block in re.split(r"\n\s*\n", text):
        paragraph = [line.strip() for line in block.split("\n")]
        if lines:
            broken += _is_cut(lines[-1], paragraph[0])
        broken += _cuts(paragraph)
        lines = paragraph
    spoilt = len(_SPACED.findall(text))
    spoilt += sum(
        len(word) > _LONG_WORD for word in text.split() if not re.search(r"[/@|\\_=:-]", word)
    )
    sentences = len(re.findall(r"[.!?](?=\s|$)", text))
    return (broken + spoilt) / max(1, sentences)


def _cuts(paragraph: Sequence[str]) -> int:
    """Return how many lines of a paragraph break off; full lines were wrapped, which is fine."""
    width = max(map(len, paragraph))
    is_narrow = width < 40
    return sum(
        _is_cut(line, after) and (is_narrow or len(line) < 0.6 * width or line.endswith("-"))
        for line, after in zip(paragraph, paragraph[1:], strict=False)
    )


def _is_cut(line: str, after: str) -> bool:
    """Tell whether a sentence goes on from one line to the next."""
    is_prose = _PROSE.match(line) is not None and not _END.search(line)
    return is_prose and after[:1].islower()


def _function_share(words: Sequence[str]) -> float:
    """Return the share of function words, drawn to the usual one where words are few."""
    found = sum(word in _FUNCTION_WORDS for word in words)
    return (found + _USUAL_FUNCTION_WORDS * _DOUBT) / (len(words) + _DOUBT)
