"""What a picture can show of a prompt, told by plain words: things, colours, sizes, comparisons.

    thing_of("A bridge deck of bone, dense where people walk")         # "A bridge deck of bone"
    is_hollow("A wheel about twice as wide as wide.")                  # True
    is_too_small("The gap is a few nanometres wide.", "component")     # True

Patterns, not a grammar: they find what small models write, and leave out no sentence of the 368
prompts and 160 revisions that teachers wrote.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from agents.claims import shared_words, stems
from orbweave.records import Scale

__all__ = ["is_hollow", "is_too_small", "names_colour", "says_thing", "thing_of"]

_ASKING = re.compile(r"^(?:design|create|make|imagine|invent|draw)\s+(?=(?:an?|the)\s)", re.I)
_HEAD_END = re.compile(
    r"[,;:.!?](?:\s|$)|\s[-–—(]"
    r"|\s(?:that|which|who|whose|where|when|while|with|without|after|like|as|for|from|in|inside|into"
    r"|on|at|by|to|along|across|between|under|over|through|made|built|shown|using|combining|joining"
    r")\s",
    re.I,
)
"""What stands behind the head of a concept; "of" does not: "a core of honeycomb cells"."""
_LOOSE_END = re.compile(r"(?:\s(?:an?|and|its|of|or|the|their))+$", re.I)
_HEAD_WORDS = 10
"""As many as a title may have."""
_MIN_SHARED = 2
"""Words of content by which a prompt says a thing, if that has so many."""

_COLOUR = re.compile(
    r"\b(?:amber|beige|black|blue|bronze|brown|copper|cream|crimson|emerald|gold|golden|gr[ae]y"
    r"|green|ivory|lime|magenta|milky|navy|ochre|orange|pale|pearl|pearly|pink|purple|red|rose"
    r"|rust|silver|teal|turquoise|violet|white|yellow)\b",
    re.I,
)

_PART = r"(?:half|(?:a|one|two|three) (?:third|quarter|tenth)s?)"
_SHARE = rf"(?:{_PART}|twice|double|\w+ times)"
_EXTENT = r"(?:size|width|length|diameter)"
_HOLLOW = re.compile(
    # "as wide as wide", "more open than open"
    r"\bas (\w+) as (?:(?:it|they) (?:is|are) )?\1\b|\bmore (\w+) than (?:it is )?\2\b"
    # "wider than wide", "bigger than big"
    r"|\b(\w{2,}?)(\w)\4?e?r than (?:(?:it|they) (?:is|are) )?\3\4e?\b"
    # "each half as wide as the other is long": then the other is not half as wide as this
    rf"|\beach (?:\w+ ){{0,4}}?(?:{_SHARE} (?:as|the)\b|\w+er than\b)[^.,;]*\bthe others?\b"
    # "seen at half its size": beside which size? Twice its size would be a magnification.
    rf"|\b(?:seen|shown|viewed)\b[^.,;]*\bat {_PART} (?:of )?(?:its|their)(?: own)? {_EXTENT}\b",
    re.I,
)

_NANO = r"nanomet(?:re|er)s?|nm|[aå]ngstr[oö]ms?|Å|sub-micromet(?:re|er)s?"
_MICRO = r"micromet(?:re|er)s?|microns?|[µμ]m"
_MILLI = r"millimet(?:re|er)s?|mm"
_UNSEEN: Mapping[Scale, str] = {
    "microstructure": _NANO,
    "component": f"{_NANO}|{_MICRO}",
    "architecture": f"{_NANO}|{_MICRO}|{_MILLI}",
    "urban": f"{_NANO}|{_MICRO}|{_MILLI}",
}
"""Units of length below what a picture of each scale resolves; chosen by us: a picture is some
hundred pixels wide, of some tenths of a millimetre, of decimetres, of tens of metres or more."""
_FRAME = re.compile(r"\b(?:frame|field of view|image|picture|scale)\b", re.I)
"""What is measured is the whole picture, which may be as small as it likes."""


def thing_of(concept: str) -> str:
    """Return the head of a concept: what is designed, in at most ten words; empty if it has none.

    It ends before the first comma, "that", "with" or the like: "A gripper pad" of "A gripper pad
    for a robot that picks fruit".
    """
    plain = _ASKING.sub("", " ".join(re.sub(r'["“”„«»*#`]', " ", concept).split()), count=1)
    heads = (part.strip(" ,;:.!?'-–—()") for part in _HEAD_END.split(plain))
    head = next((head for head in heads if re.search(r"\w", head)), "")
    return _LOOSE_END.sub("", " ".join(head.split()[:_HEAD_WORDS]))


def says_thing(prompt: str, thing: str) -> bool:
    """Whether a prompt says a thing: two words of its content, or all if it has fewer.

    So many must be of what stands before its "of": honeycomb cells alone are no sandwich core
    of honeycomb cells. A thing in other letters than ours is said if it stands there as it is.
    """
    if not stems(thing):
        return thing.lower() in prompt.lower()
    return all(
        shared_words(prompt, part) >= min(_MIN_SHARED, len(set(stems(part))))
        for part in (thing.partition(" of ")[0], thing)
    )


def names_colour(text: str) -> bool:
    """Whether a text names a colour, or a material known by one."""
    return _COLOUR.search(text) is not None


def is_hollow(sentence: str) -> bool:
    """Whether a sentence compares a thing with itself, or two things each with the other."""
    return _HOLLOW.search(sentence) is not None


def is_too_small(sentence: str, scale: Scale) -> bool:
    """Whether a sentence gives a part a size in a unit too small to be seen at a scale."""
    unit = rf"(?:(?<=\d)|\b)(?:{_UNSEEN[scale]})\b"
    return re.search(unit, sentence) is not None and not _FRAME.search(sentence)
