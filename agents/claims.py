"""What a text claims: the facts it cites, and which facts hold each of its sentences.

    check("Walls are 0.5 µm thick.", {"leaf-0001": "Walls are 500 nm thick."}).verdict
    # "supported", by leaf-0001

A sentence is *supported* by facts that hold its words and all its numbers, *plausible* if it
states no number and shares words with a fact, and *unsupported* if a number is in no fact, if a
fact says the opposite, or if it rests on no fact at all. Words are compared, not meanings: a
sentence in other words than its fact's is plausible at most.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from agents.quantities import Claim, is_held, is_seen
from agents.quantities import claims as _numbers
from orbweave.records import Check

__all__ = [
    "capitalised",
    "check",
    "cited_ids",
    "claims",
    "denies",
    "is_visible",
    "sentences",
    "share_held",
    "shared_words",
    "stems",
    "unsupported",
    "without_citations",
]

_ID = r"[a-z]+-\d{4,6}"
_CITATION = re.compile(rf"\s*\[({_ID}(?:\s*,\s*{_ID})*)\]")
_ABBREVIATIONS = r"(?<!\be\.g)(?<!\bi\.e)(?<!\bapprox)(?<!\bvs)(?<!\bca)(?<!\bFig)"
_SENTENCE_END = re.compile(rf"{_ABBREVIATIONS}([.!?][\"')]?(?:\s*\[[^\]]*\])*)\s+(?=[A-Z\"'(])")
_SENTENCE_START = re.compile(rf"(?:^|{_ABBREVIATIONS}[.!?][\"')]?\s+)[\"'(]?[a-z](?![\d_.^])")

_MIN_HELD = 0.5
"""Share of a sentence's words that its facts must hold to support it. Chosen by us: of 1,763
sentences that teachers wrote from facts 52 % reach it with these, 0.6 % with other facts."""
_MIN_SHARED = 2
"""Words of content two texts must share to be on the same thing."""

_FILLER = frozenset(
    """about above across add after all along also among and any are around because been between
    both build but by can create design does each every for from give has have how into its keep
    let like look looks made make more most much must near not one only other out over place put
    same set shape should such than that the their them then there these they this through toward
    use used using very was way were what when where which while who will with would""".split()
)
"""Words that say nothing about what a sentence is on."""
_NEGATORS = frozenset(
    "no not never none neither without cannot lack lacks absent absence avoid avoids omit".split()
)
"""Words that turn the next word of content into its opposite."""
_BOUND = re.compile(r"\bnot only\b|\b(?:no|not) (?:more|less|fewer|longer) than\b|\bnot just\b")
"""Holds a negator and negates nothing."""
_FREE_OF = re.compile(r"\bfree (?:of|from)\b")
_MOST = re.compile(
    r"\b(?:most(?! of)|highest|greatest|largest|strongest|stiffest|thickest|longest|widest"
    r"|fastest|heaviest)\b"
)
_LEAST = re.compile(
    r"\b(?:least|lowest|fewest|smallest|weakest|softest|thinnest|shortest|narrowest|slowest"
    r"|lightest)\b"
)
_CLAUSE_END = re.compile(
    r"[,;:.!?()]\s+|\s(?:so|but|while|whereas|although|though|because|which|unless|and|yet)\s"
)
_WAVELENGTH = re.compile(r"\bwavelengths?\b|\d\s?nm\b.*\blight\b|\blight\b.*\d\s?nm\b", re.I | re.S)
_WORD = re.compile(r"[a-z]+?n't|[a-z]+")


def cited_ids(text: str) -> tuple[str, ...]:
    """Return the fact ids named in square brackets, each once, in order."""
    found = (one for group in _CITATION.findall(text) for one in re.findall(_ID, group))
    return tuple(dict.fromkeys(found))


def without_citations(text: str) -> str:
    """Return the text with its bracketed ids removed."""
    return _CITATION.sub("", text).strip()


def sentences(text: str) -> tuple[str, ...]:
    """Split prose into sentences; a citation after the full stop stays with its sentence."""
    marked = _SENTENCE_END.sub(r"\1\n", text.strip())
    return tuple(part.strip() for part in marked.splitlines() if part.strip())


def capitalised(text: str) -> str:
    """Return prose in which every sentence begins with a capital; "e.g." ends none.

    A letter with a dot, a digit or a power behind it is a symbol and stays: "x^2", "d. h.".
    """
    return _SENTENCE_START.sub(lambda start: start[0][:-1] + start[0][-1].upper(), text)


def claims(text: str) -> tuple[Claim, ...]:
    """Return the numbers a text states, without ids, list numbers and words such as "3D"."""
    return _numbers(re.sub(r"(?m)^\s*\d+[.)]\s", "", without_citations(text)))


def is_visible(text: str) -> bool:
    """Whether every number of a text is one that a picture can show, and none a wavelength."""
    return not _WAVELENGTH.search(text) and all(is_seen(claim) for claim in claims(text))


def unsupported(text: str, sources: Iterable[str]) -> tuple[str, ...]:
    """Return the numbers of a text that no source holds, as written, each once.

    Args:
        text: What somebody said.
        sources: Statements and quantities that may hold its numbers, each by itself: the ends
            of a range must stand in one source.
    """
    held = [claims(source) for source in sources]
    loose = (c.text for c in claims(text) if not any(is_held(c, each) for each in held))
    return tuple(dict.fromkeys(loose))


def check(sentence: str, facts: Mapping[str, str], asked: str = "") -> Check:
    """Return what the facts say to a sentence.

    Args:
        sentence: With or without citations and quotation marks.
        facts: What each fact says, by id.
        asked: The concept; its numbers are held, though it supports nothing.
    """
    plain = without_citations(sentence)
    loose = unsupported(plain, [*facts.values(), asked])
    if loose:
        return Check(sentence=plain, verdict="unsupported", why=f"in no fact: {', '.join(loose)}")
    against = [fact_id for fact_id, fact in facts.items() if denies(plain, fact)]
    near = {i: f for i, f in facts.items() if i not in against and _is_near(plain, f)}
    whole = [i for i, fact in near.items() if _is_held(plain, [fact], asked)]
    if not whole and len(near) > 1 and _is_held(plain, list(near.values()), asked):
        whole = list(near)
    if whole:
        return Check(sentence=plain, verdict="supported", facts=tuple(whole))
    if against:
        why = f"it denies what {', '.join(against)} says"
        return Check(sentence=plain, verdict="unsupported", facts=tuple(against), why=why)
    if near and not claims(plain):
        return Check(sentence=plain, verdict="plausible", facts=tuple(near))
    why = "its numbers are in facts on other things" if claims(plain) else "in no fact"
    return Check(sentence=plain, verdict="unsupported", why=why)


def denies(text: str, source: str) -> bool:
    """Whether a clause of a text says that what its source affirms is not so, or the reverse.

    Clauses that share two words of content and half of the text's are compared; a word of them
    that is negated in one and not in the other is a denial. "So no waxy cuticle
    covers it" denies "a waxy cuticle covers the leaf"; so does "drag most" what has "the lowest
    drag". Other opposites without a negator, such as "thick" and "thin", are not seen. Of 1,763
    sentences that teachers wrote from facts 1 % are taken for denials of these, most of them
    wrongly.
    """
    theirs = _clauses(source)
    for ours in _clauses(text):
        common = [_polarity(ours).keys() & _polarity(each).keys() for each in theirs]
        most = max(map(len, common), default=0)
        nearest = [each for each, shared in zip(theirs, common, strict=True) if len(shared) == most]
        if most >= max(_MIN_SHARED, len(_polarity(ours)) / 2) and all(
            _is_opposite(ours, each) for each in nearest
        ):
            return True
    return False


def shared_words(text: str, source: str) -> int:
    """Return how many different words of content two texts share, by their first five letters."""
    return len(_stems(text) & _stems(source))


def share_held(text: str, sources: Iterable[str]) -> float:
    """Return the share, in [0, 1], of a text's words of content that its sources hold too."""
    ours = _stems(text)
    held = frozenset[str]().union(*(_stems(source) for source in sources))
    return len(ours & held) / len(ours) if ours else 0.0


def _is_near(text: str, source: str) -> bool:
    return shared_words(text, source) >= _MIN_SHARED


def _is_held(text: str, sources: list[str], asked: str) -> bool:
    """Whether sources near to a text hold all its numbers, and one of these or enough words."""
    if claims(text) and not unsupported(text, sources):
        return True
    return share_held(text, sources) >= _MIN_HELD and not unsupported(text, [*sources, asked])


def _clauses(text: str) -> list[str]:
    return [clause for clause in _CLAUSE_END.split(without_citations(text).lower()) if clause]


def _is_opposite(clause: str, other: str) -> bool:
    """Whether one clause negates a word the other affirms, or says most where it says least."""
    ours, theirs = _polarity(clause), _polarity(other)
    ends = (_is_most(clause), _is_most(other))
    return any(ours[stem] != theirs[stem] for stem in ours.keys() & theirs.keys()) or (
        None not in ends and ends[0] != ends[1]
    )


def _is_most(clause: str) -> bool | None:
    """Return whether a clause speaks of the most or of the least; None of neither or both."""
    is_most, is_least = (bool(words.search(clause)) for words in (_MOST, _LEAST))
    return None if is_most == is_least else is_most


def _polarity(clause: str) -> dict[str, bool]:
    """Return each word of content of a clause, and whether it is what a negator negates.

    That is the next word of content. Two negators take each other back: "no thread without glue".
    """
    words = _WORD.findall(_FREE_OF.sub("without", _BOUND.sub(" ", clause.replace("’", "'"))))
    is_negator = [word in _NEGATORS or word.endswith("n't") for word in words]
    found: dict[str, bool] = {}
    waits = False
    for word, negates in zip(words, is_negator, strict=True):
        stem = None if negates else _stem(word)
        waits = waits or negates
        if stem is not None:
            found[stem] = waits and sum(is_negator) % 2 == 1
            waits = False
    return found


def stems(text: str) -> list[str]:
    """Return the words of content of a text, each cut to its first five letters, in order."""
    words = re.findall(r"[a-z]+", without_citations(text).lower())
    return [stem for word in words if (stem := _stem(word)) is not None]


def _stems(text: str) -> frozenset[str]:
    return frozenset(stems(text))


def _stem(word: str) -> str | None:
    """Return the first five letters of a word of content; None for the others."""
    return None if len(word) < 3 or word in _FILLER else word.removesuffix("s")[:5]
