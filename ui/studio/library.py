"""What somebody has designed so far: found by words, domain, model, date and stars."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from agents.roles import load_team
from orbweave.errors import UsageError
from ui.design import models_of
from ui.studio.journal import Status
from ui.studio.sitting import Sitting, kept_name

__all__ = ["Card", "Search", "card", "search"]


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
    """The critic's mean score of the last version, 1 to 5."""
    pictures: tuple[str, ...]
    """Bare names, those of the last version first."""
    words: str
    """Everything that can be searched, folded."""


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


def card(sitting: Sitting) -> Card:
    """Return how the library shows a design."""
    n_heard = sitting.story.n_heard if sitting.is_open else -sitting.n_laid
    return _card(sitting, sitting.status, sitting.stars, n_heard)


def search(cards: Sequence[Card], wanted: Search) -> list[Card]:
    """Return the cards that fit, in their order.

    Raises:
        UsageError: a date cannot be read.
    """
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
    ]


@lru_cache(maxsize=4_096)
def _card(sitting: Sitting, status: Status, stars: int, n_heard: int) -> Card:
    """Read a design for its card; the other arguments say when an earlier reading is stale."""
    row = sitting.asked.row
    with sitting.lock:
        story = sitting.story
        prompts = [story.prompts[version] for version in sorted(story.prompts)]
        spoken = [s.turn.text if s.turn else s.heard for s in story.speeches.values()]
        models = tuple(dict.fromkeys(s.model for s in story.speeches.values()))
        last = story.critiques[max(story.critiques)] if story.critiques else None
        pictures = tuple(
            kept_name(picture)
            for version in sorted(story.pictures, reverse=True)
            for picture in story.pictures[version]
        )
        domains = story.domains
    if not sitting.is_open:
        sitting.rest()
    title = prompts[-1].title if prompts else ""
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
        score=sum(last.scores.values()) / len(last.scores) if last and last.scores else None,
        pictures=pictures,
        words=_folded(" ".join(texts)),
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
