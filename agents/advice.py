"""What the experts brought, and its part in a prompt: who said what, and who is missing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from agents.claims import capitalised, is_visible, sentences, shared_words, without_citations
from agents.seeing import is_hollow, names_colour
from orbweave.records import PhraseOrigin

__all__ = ["MAX_WORDS", "MIN_WORDS", "Advice", "completed", "in_turns", "note_of", "origins_of"]

MIN_WORDS, MAX_WORDS = 30, 110
"""Length of a prompt. Encoders of 77 tokens read some 54 words at a time; longer prompts reach
them in chunks, and what a model does not read is in the picture's record."""
_MIN_SHARED = 2
"""Words of content a clause must share with a turn to have come from it."""


class Advice(NamedTuple):
    """What one expert brought."""

    turn: int
    """Index of its turn."""
    text: str
    """What it said."""
    visuals: tuple[str, ...]
    """What its cited facts look like, the shortest first."""

    @property
    def words(self) -> str:
        """All of it, for looking up where words came from."""
        return " ".join([self.text, *self.visuals])

    @property
    def looks(self) -> list[str]:
        """What one would see, as sentences of a prompt; the expert's own look without visuals."""
        own = note_of(" ".join(sentences(self.text)[-1:])).partition(": ")[2]
        seen = self.visuals or ((own,) if own else ())
        whole = [f"{capitalised(look).rstrip('.')}." for look in seen if is_visible(look)]
        return [look for look in whole if not is_hollow(look)]


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
    for clause in re.split(r"[,;:.]\s+", prompt.strip(" .")):
        shared = [(shared_words(clause, text), -index) for index, text in said.items()]
        best = max(shared, default=(0, 0))
        if best[0] >= _MIN_SHARED:
            origins.append(PhraseOrigin(phrase=clause.strip(), turn=-best[1]))
    return tuple(origins)


def completed(
    prompt: str, advice: Sequence[Advice], also: Sequence[str] = ()
) -> tuple[str, list[str]]:
    """Return a prompt and what it lacks: a look of each expert nothing of whom is in it.

    More looks follow if it is short. Of one that becomes too long, the last sentences are left
    out that nobody is missed for and that are not alone in naming a colour; the first, which
    says what the thing is, stays.

    Args:
        prompt: The paragraph.
        advice: What the experts brought.
        also: Sentences that will stand behind it.
    """
    added: list[str] = []
    for each in advice:
        whole = _joined(prompt, also, added)
        looks = [look for look in each.looks if each.turn in _heard(f"{whole} {look}", advice)]
        if each.turn not in _heard(whole, advice):
            added += looks[:1]
    for look in in_turns(advice):
        whole = _joined(prompt, also, added)
        if len(whole.split()) < MIN_WORDS and look not in sentences(whole):
            added.append(look)
    kept = list(sentences(prompt))
    while len(kept) > 1 and len(_joined(" ".join(kept), also, added).split()) > MAX_WORDS:
        without = [[*kept[:n], *kept[n + 1 :]] for n in range(1, len(kept))]
        tells = [_told(_joined(" ".join(rest), also, added), advice) for rest in without]
        all_told = _told(_joined(" ".join(kept), also, added), advice)
        spare = [rest for rest, told in zip(without, tells, strict=True) if told == all_told]
        kept = (spare or without)[-1]
    return " ".join(kept), added


def in_turns(advice: Sequence[Advice]) -> list[str]:
    """Return all looks, one of each expert first."""
    longest = max((len(each.looks) for each in advice), default=0)
    return [each.looks[n] for n in range(longest) for each in advice if n < len(each.looks)]


def _joined(prompt: str, also: Sequence[str], added: Sequence[str]) -> str:
    return " ".join([prompt, *added, *also])


def _told(prompt: str, advice: Sequence[Advice]) -> tuple[frozenset[int], bool]:
    """Return what must not be lost of a prompt: whom one hears, and whether it has a colour."""
    return _heard(prompt, advice), names_colour(prompt)


def _heard(prompt: str, advice: Sequence[Advice]) -> frozenset[int]:
    """Return the turns of the experts something of whom is in a prompt."""
    said = {each.turn: each.words for each in advice}
    return frozenset(origin.turn for origin in origins_of(prompt, said))
