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

from agents.claims import is_visible, sentences, share_held, shared_words, stems
from orbweave.records import Scale

__all__ = [
    "colours_of",
    "is_hollow",
    "is_too_small",
    "name_of",
    "names_colour",
    "says_thing",
    "thing_of",
]

_ASKING = re.compile(r"^(?:design|create|make|imagine|invent|draw)\s+(?=(?:an?|the)\s)", re.I)
_HEAD_END = re.compile(
    r"[,;:.!?](?:\s|$)|\s[-–—(]"
    r"|\s(?:that|which|who|whose|where|when|while|with|without|after|like|as|for|from|in|inside|into"
    r"|on|at|by|to|along|across|between|under|over|through|made|built|shown|using|combining|joining"
    r")\s",
    re.I,
)
"""What stands behind the head of a concept; "of" does not: "a core of honeycomb cells"."""
_CLAUSE_END = re.compile(r"[,;:.!?](?:\s|$)|\s[-–—]\s")
_LOOSE_END = re.compile(r"(?:\s(?:an?|and|its|of|or|the|their))+$", re.I)
_HEAD_WORDS = 10
"""As many as a title may have."""
_NAMED_WORDS = 20
"""A longer concept is not said whole in a prompt."""
_MIN_SHARED = 2
"""Words of content by which a prompt says a thing, if that has so many."""
_MIN_SAID = 2 / 3
"""Share of the words of content of all that is said of a thing: with less, readers of thirty
prompts missed its setting."""

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
    heads = (part.strip(" ,;:.!?'-–—()") for part in _HEAD_END.split(_plain(concept)))
    head = next((head for head in heads if re.search(r"\w", head)), "")
    return _LOOSE_END.sub("", " ".join(head.split()[:_HEAD_WORDS]))


def _plain(concept: str) -> str:
    """Return a concept on one line, without quotes and without the order to design it."""
    return _ASKING.sub("", " ".join(re.sub(r'["“”„«»*#`]', " ", concept).split()), count=1)


def name_of(concept: str) -> str:
    """Return how a prompt names what is designed: by the concept, or by its head if that is long.

    By its head too if it has several sentences, or a number that no picture shows.
    """
    plain = _plain(concept).rstrip(".!?,;: ")
    is_short = len(plain.split()) <= _NAMED_WORDS and len(sentences(plain)) == 1
    return plain if is_short and is_visible(plain) else thing_of(concept)


def says_thing(prompt: str, thing: str) -> bool:
    """Whether a prompt says a thing: two of its words of content and two thirds of them.

    Two must be of its head before "of", or all if that has fewer: honeycomb cells alone are no
    sandwich core of honeycomb cells. A thing in other letters than ours is said if it stands
    there as it is.
    """
    if not stems(thing):
        return thing.lower() in prompt.lower()
    head = thing_of(thing).partition(" of ")[0]
    says_head = shared_words(prompt, head) >= min(_MIN_SHARED, len(set(stems(head))))
    return says_head and share_held(thing, [prompt]) >= _MIN_SAID


def names_colour(text: str) -> bool:
    """Whether a text names a colour, or a material known by one."""
    return _COLOUR.search(text) is not None


def colours_of(concept: str) -> str:
    """Return what a concept says of its colours: its clauses that name one, with commas between.

    "A wall panel of coral, red on navy, 20 cm wide" gives "red on navy"; empty if none does, or
    only one with a number that no picture shows, or if they are too long to be said in a prompt.
    """
    clauses = (clause.strip() for clause in _CLAUSE_END.split(_plain(concept)))
    colours = ", ".join(c for c in clauses if names_colour(c) and is_visible(c))
    return colours if len(colours.split()) <= _NAMED_WORDS else ""


def is_hollow(sentence: str) -> bool:
    """Whether a sentence compares a thing with itself, or two things each with the other."""
    return _HOLLOW.search(sentence) is not None


def is_too_small(sentence: str, scale: Scale) -> bool:
    """Whether a sentence gives a part a size in a unit too small to be seen at a scale."""
    unit = rf"(?:(?<=\d)|\b)(?:{_UNSEEN[scale]})\b"
    return re.search(unit, sentence) is not None and not _FRAME.search(sentence)
