"""What the experts brought, and its part in a prompt: who said what, and who is missing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from agents.claims import capitalised, is_visible, sentences, shared_words, without_citations
from agents.seeing import is_hollow, names_colour, says_thing
from orbweave.records import PhraseOrigin

__all__ = [
    "MAX_WORDS",
    "MIN_WORDS",
    "Advice",
    "completed",
    "in_turns",
    "is_heard",
    "note_of",
    "origins_of",
]

MIN_WORDS, MAX_WORDS = 30, 110
"""Length of a prompt. Encoders of 77 tokens read some 54 words at a time; longer prompts reach
them in chunks, and what a model does not read is in the picture's record."""
_MIN_SHARED = 2
"""Words of content a clause must share with a turn, or a fact, to have come from it."""


class Advice(NamedTuple):
    """What one expert brought."""

    turn: int
    """Index of its turn."""
    text: str
    """What it said."""
    visuals: tuple[str, ...]
    """What its cited facts look like, the shortest first."""
    statements: tuple[str, ...] = ()
    """What its cited facts state, the shortest first."""
    facts: tuple[str, ...] = ()
    """All that each cited fact says: statement, look and quantity; none if it cites none."""

    @property
    def words(self) -> str:
        """All of it, for looking up where words came from."""
        return " ".join([self.text, *self.visuals])

    @property
    def looks(self) -> list[str]:
        """What one would see, as sentences of a prompt; the expert's own look without visuals."""
        own = note_of(" ".join(sentences(self.text)[-1:])).partition(": ")[2]
        return _as_sentences(self.visuals or ((own,) if own else ()))

    @property
    def last_resort(self) -> list[str]:
        """What its facts state, as sentences of a prompt, for where no look will do."""
        return _as_sentences(self.statements)


def note_of(text: str) -> str:
    """Return what the engineer is told of an expert's turn: its first sentence and its look."""
    said = [without_citations(sentence).replace('"', "") for sentence in sentences(text)]
    return " ".join(dict.fromkeys([said[0], said[-1]])) if said else ""


def origins_of(prompt: str, said: Mapping[int, str]) -> tuple[PhraseOrigin, ...]:
    """Return which turn each clause of a prompt shares most words with.

    A clause is what stands between commas, semicolons and full stops. One that shares fewer
    than two words of content with every turn has no origin and is left out.

    Args:
        prompt: The paragraph.
        said: By index, what a turn said and what its cited facts look like.
    """
    origins = []
    for clause in _clauses(prompt):
        shared = [(shared_words(clause, text), -index) for index, text in said.items()]
        best = max(shared, default=(0, 0))
        if best[0] >= _MIN_SHARED:
            origins.append(PhraseOrigin(phrase=clause.strip(), turn=-best[1]))
    return tuple(origins)


def is_heard(prompt: str, facts: Iterable[str]) -> bool:
    """Whether a clause of a prompt shares two words of content with one of the facts.

    Args:
        prompt: The paragraph; its clauses are those of `origins_of`.
        facts: All that each fact says.
    """
    clauses = _clauses(prompt)
    return any(shared_words(clause, fact) >= _MIN_SHARED for fact in facts for clause in clauses)


def completed(
    prompt: str, advice: Sequence[Advice], also: Sequence[str] = (), thing: str = ""
) -> tuple[str, list[str]]:
    """Return a prompt and what it lacks: a look of each expert nothing of whom is in it.

    An expert is in it by its cited facts, see `is_heard`; by what it said if it cites none. Of
    one whose looks would not be heard, what a fact states is added. More looks follow if the
    prompt is short. Of one that becomes too long, the last sentences are left out that nobody is
    missed for and that are not alone in naming a colour or the thing; the first stays.

    Args:
        prompt: The paragraph.
        advice: What the experts brought.
        also: Sentences that will stand behind it.
        thing: What is designed, in a few words.
    """
    added: list[str] = []
    for each in advice:
        whole = _joined(prompt, also, added)
        looks = [*each.looks, *each.last_resort]
        if each.turn not in _heard(whole, advice, thing):
            heard = (s for s in looks if each.turn in _heard(f"{whole} {s}", advice, thing))
            added += list(heard)[:1]
    for look in in_turns(advice):
        whole = _joined(prompt, also, added)
        if len(whole.split()) < MIN_WORDS and look not in sentences(whole):
            added.append(look)
    kept = list(sentences(prompt))
    while len(kept) > 1 and len(_joined(" ".join(kept), also, added).split()) > MAX_WORDS:
        without = [[*kept[:n], *kept[n + 1 :]] for n in range(1, len(kept))]
        tells = [_told(_joined(" ".join(rest), also, added), advice, thing) for rest in without]
        all_told = _told(_joined(" ".join(kept), also, added), advice, thing)
        spare = [rest for rest, told in zip(without, tells, strict=True) if told == all_told]
        kept = (spare or without)[-1]
    return " ".join(kept), added


def in_turns(advice: Sequence[Advice]) -> list[str]:
    """Return all looks, one of each expert first."""
    longest = max((len(each.looks) for each in advice), default=0)
    return [each.looks[n] for n in range(longest) for each in advice if n < len(each.looks)]


def _clauses(prompt: str) -> list[str]:
    return re.split(r"[,;:.]\s+", prompt.strip(" ."))


def _as_sentences(seen: Iterable[str]) -> list[str]:
    """Return what a picture can show, as whole sentences."""
    whole = [f"{capitalised(look).rstrip('.')}." for look in seen if is_visible(look)]
    return [look for look in whole if not is_hollow(look)]


def _joined(prompt: str, also: Sequence[str], added: Sequence[str]) -> str:
    return " ".join([prompt, *added, *also])


def _told(prompt: str, advice: Sequence[Advice], thing: str) -> tuple[frozenset[int], bool, bool]:
    """Return what must not be lost: whom one hears, whether it has a colour and says the thing."""
    return _heard(prompt, advice, thing), names_colour(prompt), says_thing(prompt, thing)


def _heard(prompt: str, advice: Sequence[Advice], thing: str) -> frozenset[int]:
    """Return the turns of the experts something of whom is in a prompt, see `completed`.

    A sentence that only names the thing is the concept's, and no expert's.
    """
    own = [s for s in sentences(prompt) if s.rstrip(".").lower() != thing.lower()]
    prompt = " ".join(own)
    origins = origins_of(prompt, {each.turn: each.words for each in advice})
    said = {origin.turn for origin in origins}
    return frozenset(
        each.turn
        for each in advice
        if (is_heard(prompt, each.facts) if each.facts else each.turn in said)
    )
