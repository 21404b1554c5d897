"""What somebody has designed so far: found by words, domain, model, date, stars and likeness."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import product
from math import inf
from types import MappingProxyType
from typing import NamedTuple

from agents.roles import load_team
from orbweave.errors import UsageError
from orbweave.records import Measurement
from ui.design import models_of
from ui.studio.journal import Status
from ui.studio.likeness import unlikeness
from ui.studio.sitting import Sitting, kept_name

__all__ = ["Card", "Search", "Shot", "card", "search"]


class Shot(NamedTuple):
    """A picture and what it measures."""

    name: str
    """Bare, as the sitting keeps it."""
    measured: Measurement | None


@dataclass(frozen=True)
class Card:
    """One design as the library shows it."""

    id: str
    concept: str
    title: str
    status: Status
    at: datetime
    """In the server's time zone."""
    domains: tuple[str, ...]
    models: tuple[str, ...]
    stars: int
    score: float | None
    """The critic's mean score of the version that is the result, else of the last, 1 to 5."""
    shots: tuple[Shot, ...]
    """Its pictures, those of that version first, then of the latest."""
    words: str
    """Everything that can be searched, folded."""
    changed: str = ""
    """What a person changed in it; tells branches of one concept apart."""


@dataclass(frozen=True)
class Search:
    """What somebody looks for; empty fields ask for nothing."""

    words: str = ""
    """All must occur, in any order: in the concept, titles, prompts or what was said."""
    domain: str = ""
    model: str = ""
    since: str = ""
    """A date such as 2026-11-22."""
    until: str = ""
    """The same; that day is included."""
    stars: int = 0
    """At least so many."""
    board: str = ""
    """Name of a board of theirs."""
    like: str = ""
    """Id of a design whose pictures those that fit are to resemble, the most similar first."""


def card(sitting: Sitting) -> Card:
    """Return how the library shows a design."""
    n_heard = sitting.story.n_heard if sitting.is_open else -sitting.n_laid
    return _card(sitting, sitting.status, sitting.stars, n_heard)


def search(
    cards: Sequence[Card],
    wanted: Search,
    boards: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> list[Card]:
    """Return the cards that fit, in their order, or those with similar pictures, nearest first.

    Args:
        cards: All of somebody's.
        wanted: What to look for.
        boards: Ids of the designs on each board.

    Raises:
        UsageError: a date cannot be read, or there is no design to be like.
    """
    fits = _fitting(cards, wanted, boards)
    if not wanted.like:
        return fits
    model = next((c for c in cards if c.id == wanted.like), None)
    if model is None or not _measured(model):
        raise UsageError("wanted a design with pictures to compare with; choose another")
    near = ((c, _distance(model, c)) for c in fits if c.id != model.id)
    return [c for c, d in sorted(near, key=lambda pair: pair[1]) if d < inf]


def _fitting(
    cards: Sequence[Card], wanted: Search, boards: Mapping[str, Sequence[str]]
) -> list[Card]:
    words = _folded(wanted.words).split()
    since, until = _day(wanted.since), _day(wanted.until)
    return [
        c
        for c in cards
        if all(word in c.words for word in words)
        and (not wanted.domain or wanted.domain in c.domains)
        and (not wanted.model or wanted.model in c.models)
        and (since is None or c.at.date() >= since.date())
        and (until is None or c.at.date() <= until.date())
        and c.stars >= wanted.stars
        and (not wanted.board or c.id in boards.get(wanted.board, ()))
    ]


def _measured(card: Card) -> list[Measurement]:
    return [shot.measured for shot in card.shots if shot.measured is not None]


def _distance(a: Card, b: Card) -> float:
    """Return how unlike the nearest two pictures of both are; infinite if one has none."""
    pairs = product(_measured(a), _measured(b))
    return min((unlikeness(*pair) for pair in pairs), default=inf)


@lru_cache(maxsize=4_096)
def _card(sitting: Sitting, status: Status, stars: int, n_heard: int) -> Card:
    """Read a design for its card; the other arguments say when an earlier reading is stale."""
    row = sitting.asked.row
    with sitting.lock:
        story = sitting.story
        last = max(story.prompts, default=0)
        result = last if sitting.best is None else sitting.best
        prompts = list(story.prompts.values())
        title = story.prompts[result].title if result in story.prompts else ""
        scores = story.critiques[result].scores if result in story.critiques else {}
        spoken = [s.turn.text if s.turn else s.heard for s in story.speeches.values()]
        speakers = (s.model for s in story.speeches.values() if s.model != "human")
        models = tuple(dict.fromkeys(speakers))
        shots = tuple(
            Shot(kept_name(picture), story.measurements.get(picture.path))
            for version in sorted(story.pictures, key=lambda v: (v != result, -v))
            for picture in story.pictures[version]
        )
        domains, changed = story.domains, " ".join(story.steered)
    if not sitting.is_open:
        sitting.rest()
    texts = [row.brief.concept, *(f"{p.title} {p.prompt}" for p in prompts), *spoken]
    return Card(
        id=sitting.id,
        concept=row.brief.concept,
        title=title,
        status=status,
        at=datetime.fromtimestamp(sitting.asked.at),
        domains=domains or row.brief.domains,
        models=(*(models or models_of(load_team(row.team), row.model)), row.render.model),
        stars=stars,
        score=sum(scores.values()) / len(scores) if scores else None,
        shots=shots,
        words=_folded(" ".join(texts)),
        changed=changed,
    )


def _folded(text: str) -> str:
    """Return text as it is compared: no case, no accents."""
    bare = unicodedata.normalize("NFKD", text)
    return "".join(c for c in bare if not unicodedata.combining(c)).casefold()


def _day(text: str) -> datetime | None:
    if not text.strip():
        return None
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(f"wanted a date such as 2026-11-22, got {text[:40]!r}") from None
