"""From a messy reply to the option it means, or to nothing.

A letter may stand alone, in brackets, before the option's words or in a sentence. The first of
these that applies decides:

    1. the reply is just the words of one option              "alanine."
    2. it opens with a letter and is no list of letters       "B", "(b)", "**C.** because ..."
    3. it announces one letter                                "The answer is C, as A is too long"
    4. it names one letter                                    "Well, B"
    5. it holds the words of one option                       "It is Alanine"

For true/false the words true and false come before yes, no, right and wrong, and a "not" turns
the next one round. What points at two options, or at none, is unparsable: a guess would hide
what the model did. So is a letter with the words of another option behind it, a habit of small
models.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from training.benchmark import Question

__all__ = ["read_reply"]

_SPECIAL = re.compile(r"<\|[^|>]*\|>|</?s>|\[/?INST\]|\\(?:boxed|text(?:bf)?)\b")
_MARKS = str.maketrans(dict.fromkeys('*_`#>"“”„«»$\\~', " ") | dict.fromkeys("‘’", "'"))


def read_reply(reply: str, question: Question) -> int | None:
    """Return the index of the option a reply means; None if it means none or several."""
    text = unicodedata.normalize("NFKC", _SPECIAL.sub(" ", reply)).translate(_MARKS).strip()
    if question.type == "tf":
        says = _truth(text)
        return None if says is None else int(not says)
    exact = [i for i, option in enumerate(question.options) if _words(option) == _words(text)]
    if exact:
        return exact[0]
    letters = list(_letters(text))
    if letters:
        named = _decided(letters)
        if named is None or named >= len(question.options) or _belies(text, named, question):
            return None
        return named
    return _phrased(_words(text), [_words(option) for option in question.options])


@dataclass(frozen=True)
class _Letter:
    """One mention of an option's letter."""

    index: int
    opens: bool
    """The reply begins with it."""
    is_announced: bool
    """Words such as "the answer is" lead to it."""
    is_item: bool
    """It is set off and followed by more words, as in a list of options."""
    is_joined: bool
    """A comma, "or" or "and" and another letter follow it."""


# A small letter needs a sign that it is no word; a capital A and I may begin a sentence.
_LETTER = re.compile(
    r"(?<![\w.'/-])(?:"
    r"[(\[{]\s*([A-Za-z])\s*[)\]}]"
    r"|([B-HJ-Z])(?![\w'/-])"
    r"|([AI])(?=\s*(?:[).\]:,;!?=]|$|\n|-\s|(?:is|because|since|as|or|and)\b))"
    r"|([a-z])(?=\s*(?:[)\]:,;!?]|$|\n|\.(?!\w)))"
    r")"
)
_ANNOUNCES = re.compile(
    r"\b(?:answers?|options?|choices?|letter|correct|choose|chosen|pick|select|say|go with)\b"
    r"(?:\W|\b(?:is|are|be|was|would|should|must|one|the|option|letter|choice|answer|here)\b)*$",
    re.I,
)
_OPENS = re.compile(r"(?:\W|\b(?:the|my|final|correct|option|choice|letter|answer|is)\b)*$", re.I)
_DENIES = re.compile(r"(?:\b(?:not|nor|neither|never|except|than)|n't)\s+(?:\w+\s+)?[(\[{]?$", re.I)
_JOINED = re.compile(
    r"[)\]}]?\s*(?:[,/&+]|\bor\b|\band\b)\s*(?:or\b|and\b)?\s*(?:(?:option|choice|letter)\s+)?"
    r"[(\[{]?(?:[A-Z]|[a-z](?=\s*(?:[)\].:,;!?]|$)))(?![\w'])"
)
_ITEM = re.compile(r"[)\]}]?\s*[).:\-–]?\s+\w|[).:]\w")


def _letters(text: str) -> Iterator[_Letter]:
    for match in _LETTER.finditer(text):
        before, after = text[: match.start()], text[match.end() :]
        if _DENIES.search(before):
            continue
        letter = next(group for group in match.groups() if group)
        opens = _OPENS.fullmatch(before) is not None
        is_announced = _ANNOUNCES.search(before) is not None
        if letter == "a" and not (match[1] or opens or is_announced):
            continue  # an article that was cut off from its noun
        yield _Letter(
            index=ord(letter.upper()) - ord("A"),
            opens=opens,
            is_announced=is_announced,
            is_item=bool(match[1] or after[:1] in {")", ".", ":"}) and bool(_ITEM.match(after)),
            is_joined=_JOINED.match(after) is not None,
        )


def _decided(letters: Sequence[_Letter]) -> int | None:
    """Return the one option that the letters mean."""
    first = letters[0]
    items = {letter.index for letter in letters if letter.is_item}
    if first.opens and len(items) < 2 and not first.is_joined:
        return first.index
    announced = {letter.index for letter in letters if letter.is_announced}
    if any(letter.is_announced and letter.is_joined for letter in letters):
        return None
    named = announced or {letter.index for letter in letters}
    return named.pop() if len(named) == 1 else None


def _belies(text: str, named: int, question: Question) -> bool:
    """Whether the first line puts another option's words behind the letter: "A. Alanine"."""
    rest = _words(re.sub(r"^.*?\b[A-Za-z]\b", "", text.split("\n")[0], count=1))
    return any(_words(option) == rest for i, option in enumerate(question.options) if i != named)


def _words(text: str) -> list[str]:
    """Return the words and numbers of a text in small letters, without a leading article.

    "A" before a capital is rather a letter than an article.
    """
    text = re.sub(r"^\s*(?:[Aa](?=\s+[^A-Z\s])|[Aa]n\b|[Tt]he\b)\s+", "", text)
    return re.findall(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:'[^\W\d_]+)?|[%°]", text.casefold())


def _phrased(said: Sequence[str], options: Sequence[Sequence[str]]) -> int | None:
    """Return the one option whose words stand in the reply, in their order and not denied.

    An option within a longer one that is there too does not count: "silk" in "wet silk".
    """
    places = {}
    for i, words in enumerate(options):
        for at in range(len(said) - len(words) + 1):
            if list(said[at : at + len(words)]) == list(words) and words:
                places[i] = range(at, at + len(words))
    found = [
        i
        for i, here in places.items()
        if not any(
            len(other) > len(here) and here[0] in other and here[-1] in other
            for other in places.values()
        )
        and (here[0] == 0 or said[here[0] - 1] not in {"not", "nor", "neither", "isn't"})
    ]
    return found[0] if len(found) == 1 else None


_STRONG = {"true": True, "false": False, "untrue": False}
_WEAK = {"correct": True, "right": True, "accurate": True} | dict.fromkeys(
    ("incorrect", "wrong", "inaccurate"), False
)
_OPENING = {"t": True, "f": False, "yes": True, "yeah": True, "y": True, "no": False, "n": False}
_TURNS = {"not", "never", "neither", "nor", "cannot", "hardly"}
_REACH = 3
"""Words over which a "not" still turns, as in "not a true statement"."""


def _truth(text: str) -> bool | None:
    """Return whether the reply calls a statement true; None if it does not say, or says both."""
    said = re.findall(r"[a-z]+(?:'[a-z]+)?|[,.;:!?/]", text.casefold())
    words = [word for word in said if word[0].isalpha()]
    strong = list(_signs(said, _STRONG))
    if words and words[0] in _STRONG and words[1:2] != ["or"] and "/" not in said:
        return _STRONG[words[0]]
    for signs in (strong, list(_signs(said, _WEAK))):
        if signs:
            return signs[0] if len(set(signs)) == 1 else None
    return _OPENING.get(words[0]) if words else None


def _signs(said: Sequence[str], meanings: dict[str, bool]) -> Iterator[bool]:
    """Yield what each word that has a meaning says, turned round by a "not" before it."""
    left = 0
    for word in said:
        if word in meanings:
            yield meanings[word] != (left > 0)
        if word in _TURNS or word.endswith("n't"):
            left = _REACH
        else:
            left = 0 if not word[0].isalpha() else left - 1
