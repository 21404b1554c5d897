"""What makes a model's text unusable, in words a person can read.

    faults_of("Here is the prompt: lines lines lines", min_words=20)
    # ("talk about the task", "too short: 6 words")

Small models repeat themselves, talk about their task or copy the example they were shown.
Such text is written again, and if that does not help it is replaced openly.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

__all__ = ["faults_of"]

_TALK = re.compile(
    r"\b(here is|here's|here are|sure[,!]|certainly|as an ai|i am an? |i'm an? |i can(not|'t)? |"
    r"i would|i have|let me|this prompt|the prompt|the user|image generator|language model|"
    r"the following|in this (image|prompt|task)|the (concept|fact|facts|example) (is|are|says?)|"
    r"in conclusion|overall,)",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"(^|\s)([*#_`]{1,3}\S|[-*•]\s|\d+[.)]\s)|\*\*|</?\w+>|https?://", re.M)
_NEAR_COPY = 0.5
"""Share of five-word runs taken from an example above which a text counts as its echo."""
_LOOPS = ((3, 3), (5, 2))
"""(length of a run of words, how often it makes a loop)."""
_ENGLISH = frozenset(
    "the of and a an in to with on is are at from by for as each that which into its it or be "
    "not this these their between".split()
)
_FOREIGN = frozenset(
    "le la les des du et une dans sur par pour avec qui que est sont au aux "
    "der das und mit ein eine einer von dem den im auf ist sind zu sich wie durch "
    "el los las una con en por del como y es se lo su para "
    "il gli di che per nel della sono delle o os um uma no na dos das com ao "
    "het een van en op met voor och att med av som på ett".split()
)
"""The commonest small words of seven other languages written in Latin letters."""
_MIN_FOREIGN = 3
"""Fewer small words say nothing: English has some of the same letters."""
_STRANGE_LETTERS = 0.3
"""Share of letters of another script above which a text is in another language."""


def faults_of(
    text: str, *, min_words: int = 1, max_words: int = 10_000, echo_of: Iterable[str] = ()
) -> tuple[str, ...]:
    """Return what is wrong with a text; empty if it is usable.

    Args:
        text: Prose without citations.
        min_words: Fewer are too short.
        max_words: More are too long.
        echo_of: Examples, and the question, which the text must not copy.
    """
    words = re.findall(r"\w+", text.lower())
    faults = []
    if _TALK.search(text):
        faults.append("talk about the task")
    if _MARKUP.search(text):
        faults.append("markup")
    if _is_foreign(text, words):
        faults.append("another language")
    if _loops(words):
        faults.append("repetition")
    if any(_echoes(words, example) for example in echo_of):
        faults.append("echo")
    if len(words) < min_words:
        faults.append(f"too short: {len(words)} words")
    if len(words) > max_words:
        faults.append(f"too long: {len(words)} words")
    return tuple(faults)


def _is_foreign(text: str, words: list[str]) -> bool:
    """Whether a text is not in English, told by its script and by its small words."""
    letters = [ord(c) for c in text if c.isalpha()]
    # Beyond the Latin letters with their accents; Greek ones are symbols.
    strange = sum(c > 0x24F and not 0x370 <= c < 0x400 for c in letters)
    foreign, english = (sum(w in small for w in words) for small in (_FOREIGN, _ENGLISH))
    return strange > _STRANGE_LETTERS * len(letters) or (
        foreign >= _MIN_FOREIGN and foreign > english
    )


def _loops(words: list[str]) -> bool:
    if any(a == b for a, b in zip(words, words[1:], strict=False)):
        return True
    return any(
        max(Counter(_runs(words, length)).values(), default=0) >= often for length, often in _LOOPS
    )


def _echoes(words: list[str], example: str) -> bool:
    ours, theirs = set(_runs(words, 5)), set(_runs(re.findall(r"\w+", example.lower()), 5))
    return bool(ours) and len(ours & theirs) / len(ours) > _NEAR_COPY


def _runs(words: list[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + length]) for i in range(len(words) - length + 1)]
