"""What briefs in other languages say of the experts' subjects, in the English of the facts.

    in_english("像蜘蛛网一样的膜")   # "像 spider web 一样的膜"

The words are data in `agents/facts/glossary.yaml`. Chinese, Japanese and Korean words are found
inside of others, for these languages write no or few spaces; those of other languages alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import yaml

__all__ = ["GLOSSARY", "in_english", "readings"]

GLOSSARY = Path(__file__).with_name("facts") / "glossary.yaml"
"""English words -> language -> words read as them."""
_UNSPACED = {"zh", "ja", "ko"}


class _Words(NamedTuple):
    found: re.Pattern[str]
    """Every word, each a group of its own."""
    english: tuple[str, ...]
    """What each group is read as."""


def in_english(text: str) -> str:
    """Return a text with the glossary's words in English; all else, and English, stays."""
    words = _words()
    return words.found.sub(lambda match: f" {_english(match)} ", text)


def readings(text: str) -> tuple[str, ...]:
    """Return the English of each of the glossary's words in a text, once, in its order."""
    return tuple(dict.fromkeys(map(_english, _words().found.finditer(text))))


def _english(match: re.Match[str]) -> str:
    assert match.lastindex is not None
    return _words().english[match.lastindex - 1]


@cache
def _words() -> _Words:
    by_english = yaml.safe_load(GLOSSARY.read_text("utf-8"))
    entries = [
        (word, language in _UNSPACED, english)
        for english, by_language in by_english.items()
        for language, words in by_language.items()
        for word in words
    ]
    # A longer word first, or "spider" would be found in "spider silk" and nothing else.
    entries.sort(key=lambda entry: (entry[1], entry[0][0] != "*", entry[0][:1], -len(entry[0])))
    inside = [word for word, is_unspaced, _ in entries if is_unspaced]
    alone = [word for word, is_unspaced, _ in entries if not is_unspaced]
    return _Words(
        re.compile(rf"(?<!\w)(?:{_any_of(alone)})(?!\w)|{_any_of(inside)}", re.I),
        tuple(english for _, _, english in entries),
    )


def _any_of(words: Sequence[str]) -> str:
    """Return a pattern with a group for each word; a first letter is compared but once."""
    return "|".join(
        f"{_pattern(first)}(?:{'|'.join(f'({_pattern(word[1:])})' for word in rest)})"
        for first, rest in groupby(words, itemgetter(0))
    )


def _pattern(word: str) -> str:
    return re.escape(word).replace(r"\*", r"\w*").replace("'", "['’]")
