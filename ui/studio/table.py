"""A sitting as HTML, in parts: a page that knows a part by its hash is not sent it again.

Everything people and models write is escaped by the template; links are http or https.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from agents.diff import word_diff
from agents.roles import StopRule, load_team
from orbweave.errors import OrbweaveError
from orbweave.models import catalogue_entry, lineage
from orbweave.records import Check, Citation, Measurement, Picture, Targets, Turn
from ui.duration import duration
from ui.report import Segment, marked, safe_link, structure_in_words
from ui.studio.library import Card
from ui.studio.order import models
from ui.studio.sitting import Sitting, kept_name
from ui.studio.story import Item, Speech, Story
from ui.template import environment
from ui.verdicts import reason

__all__ = [
    "SUGGESTIONS",
    "Part",
    "Relative",
    "Row",
    "Seat",
    "Verdict",
    "against",
    "cards",
    "macros",
    "shown_table",
    "welcome",
]

TEMPLATE = "table.html.j2"
SUGGESTIONS = (
    "a filter membrane that combines spider silk and leaf veins",
    "a facade panel that moves like a pine cone and carries load like bone",
    "a tough plate of mineral bricks and collagen glue",
    "a cushion as light as plant parenchyma that swells with water",
    "a bridge deck that spreads load like an orb web",
    "a packaging sheet that repels water like a lotus leaf",
)
"""Concepts for an empty page; each draws on what the facts know."""
Column = Literal["head", "talk", "side"]


class Part(NamedTuple):
    """One piece of the page that changes as a whole."""

    column: Column
    key: str
    html: str

    @property
    def digest(self) -> str:
        """Short hash of the HTML."""
        return hashlib.sha256(self.html.encode()).hexdigest()[:12]


class Row(NamedTuple):
    """One image statistic beside what was wanted."""

    label: str
    got: str
    want: str
    fits: bool | None
    """None where nothing was wanted."""


class Verdict(NamedTuple):
    """What the facts say to one sentence of a turn."""

    check: Check
    facts: list[Citation]
    """Those it was held against, as far as they are on the table."""


class Relative(NamedTuple):
    """A design that shares its first turns with the one on the table."""

    id: str
    said: str
    """What a person changed in it."""


@dataclass(frozen=True)
class Seat:
    """What the table must know beside the sitting itself."""

    position: int = 0
    """In the queue; 0 if it does not wait."""
    note: str = ""
    """What the models are waiting for."""
    verdict: str = ""
    """Whether a repeated design came out the same."""
    family: tuple[Relative, ...] = ()
    """What it branched off and what branched off the same, itself included."""


def shown_table(sitting: Sitting, seat: Seat) -> list[Part]:
    """Return the whole table, in the order of reading."""
    with sitting.lock:
        story = sitting.story
        template = _template()
        parts = [Part("head", "head", _head(sitting, story, seat))]
        parts += [
            Part("talk", f"{item.kind}-{item.number}", _item(sitting, story, item))
            for item in story.items
        ]
        if any(speech.turn for speech in story.speeches.values()):
            parts.append(Part("talk", "say", template.say()))
        if len(seat.family) > 1:
            parts.append(Part("side", "family", template.family(sitting.id, seat.family)))
        parts.append(Part("side", "gallery", template.gallery(sitting.id, _gallery(story))))
        if story.facts:
            used = {i for s in story.speeches.values() if s.turn for i in s.turn.cited}
            facts = list(story.facts.values())
            parts.append(Part("side", "facts", template.facts(facts, used)))
        models = list(dict.fromkeys(s.model for s in story.speeches.values()))
        parts.append(Part("side", "models", template.models(models)))
    return parts


def welcome(note: str, n_waiting: int = 0) -> list[Part]:
    """Return the table at which nobody has sat yet.

    Args:
        note: What the models wait for; empty if nothing.
        n_waiting: Designs of others that come first.
    """
    parts = [Part("head", "welcome", _template().welcome(SUGGESTIONS, n_waiting))]
    return [Part("head", "note", _template().note(note)), *parts] if note else parts


def cards(found: Sequence[Card], boards: Mapping[str, Sequence[str]] = MappingProxyType({})) -> str:
    """Return designs as the library lays them out; `boards` names those on each board."""
    return str(_template().cards(found, boards))


def _head(sitting: Sitting, story: Story, seat: Seat) -> str:
    end = story.ended_at if not sitting.is_open else time.time()
    elapsed = duration(end - story.began_at) if story.began_at else ""
    return str(_template().head(sitting, story, seat.position, seat.note, elapsed, seat.verdict))


def _item(sitting: Sitting, story: Story, item: Item) -> str:
    template, number = _template(), item.number
    if item.kind == "turn":
        speech = story.speeches[number]
        earlier = sitting.earlier.get(number, ())
        verdicts = _verdicts(speech.turn, story) if speech.turn else []
        is_folded = _is_laid_out(number, story)
        return str(template.turn(speech, _said(speech, story), is_folded, earlier, verdicts))
    if item.kind == "prompt":
        prompt = story.prompts[number]
        marks = {
            origin.phrase: (f"#turn-{origin.turn}", _origin(story, origin.turn))
            for origin in prompt.origins
        }
        former = number - 1 if prompt.revises is None else prompt.revises
        before = story.prompts.get(former)
        changes = word_diff(before.prompt, prompt.prompt) if before else ()
        segments = marked(prompt.prompt, marks)
        judged = number in story.critiques and not sitting.is_open
        is_best = number == sitting.best and len(story.prompts) > 1
        return str(template.prompt(number, prompt, segments, former, changes, judged, is_best))
    if item.kind == "pictures":
        shown = [
            (picture, kept_name(picture), story.measurements.get(picture.path))
            for picture in story.pictures[number]
        ]
        # The prompt's: targets may have been read out of the concept.
        wanted = story.prompts[number].targets if number in story.prompts else Targets()
        rule = _rule(sitting.asked.row.team)
        return str(template.pictures(sitting.id, number, shown, wanted, rule))
    return str(template.critique(story.critiques[number]))


def _is_laid_out(turn: int, story: Story) -> bool:
    """Whether what a turn said lies below it as a prompt or a judgement."""
    written = [prompt.turn for prompt in story.prompts.values()]
    return turn in written or turn in [critique.turn for critique in story.critiques.values()]


def _gallery(story: Story) -> list[tuple[Picture, str]]:
    """Return all pictures, the latest version first."""
    return [
        (picture, kept_name(picture))
        for version in sorted(story.pictures, reverse=True)
        for picture in story.pictures[version]
    ]


def _said(speech: Speech, story: Story) -> list[Segment]:
    """Return a finished turn with cited facts as chips and loose numbers noted."""
    if speech.turn is None:
        return []
    marks: dict[str, tuple[str, str]] = {}
    for fact in _cited(speech, story):
        mark = (f"#fact-{fact.id}", fact.statement)
        # The brackets around an id belong to the chip.
        marks |= {fact.id: mark, f"[{fact.id}]": mark}
    loose = ("", "no fact given to the speaker holds it")
    marks |= dict.fromkeys(speech.turn.unsupported, loose)
    return marked(speech.turn.text.strip(), marks)


def _verdicts(turn: Turn, story: Story) -> list[Verdict]:
    """Return what the facts say to each sentence of a turn; none for turns that are not checked."""
    return [
        Verdict(check, [story.facts[i] for i in check.facts if i in story.facts])
        for check in turn.checks
    ]


def _cited(speech: Speech, story: Story) -> list[Citation]:
    cited = speech.turn.cited if speech.turn else ()
    return [story.facts[i] for i in cited if i in story.facts]


def _origin(story: Story, turn: int) -> str:
    speech = story.speeches.get(turn)
    return f"from turn {turn}, {_spoken(speech.speaker) if speech else 'unknown'}"


def against(measured: Measurement, wanted: Targets, rule: StopRule) -> list[Row]:
    """Return the statistics of a picture beside what was wanted; `rule` says what is near."""
    turned = _turned(measured.direction_deg, wanted.direction_deg)
    return [
        Row(
            "solid fraction",
            f"{measured.solid_fraction:.2f}",
            _number(wanted.solid_fraction),
            None
            if wanted.solid_fraction is None
            else abs(measured.solid_fraction - wanted.solid_fraction) <= rule.solid_fraction,
        ),
        Row(
            "direction",
            _number(measured.direction_deg, "°"),
            _number(wanted.direction_deg, "°"),
            None if wanted.direction_deg is None else turned <= rule.direction_deg,
        ),
        Row(
            "spacing",
            _number(measured.spacing_px, " px"),
            _number(wanted.spacing_px, " px"),
            None
            if wanted.spacing_px is None
            else measured.spacing_px is not None
            and abs(measured.spacing_px / wanted.spacing_px - 1.0) <= rule.spacing,
        ),
        Row("anisotropy", f"{measured.anisotropy:.2f}", "–", None),
        Row("contrast", f"{measured.contrast:.2f}", "–", None),
    ]


def _turned(a: float | None, b: float | None) -> float:
    """Return the angle between two lines in degrees, 0 to 90; infinite without both."""
    if a is None or b is None:
        return float("inf")
    apart = abs(a - b) % 180.0
    return min(apart, 180.0 - apart)


def _number(value: float | None, unit: str = "") -> str:
    if value is None:
        return "–"
    return f"{value:.0f}{unit}" if abs(value) >= 10 else f"{value:.2g}{unit}"


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _initials(name: str) -> str:
    words = _spoken(_bare(name)).split()
    return "".join(word[0] for word in words[:2]).upper()


def _hashed(name: str) -> str:
    """Return what a model's reference is called in an id, where brackets and blanks may not be."""
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def _slug(name: str) -> str:
    """Return a name as a CSS class."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in _bare(name).lower())


def _bare(name: str) -> str:
    """Return a speaker's name without what is said of an edited turn."""
    return name.partition(",")[0]


@cache
def _rule(team: str) -> StopRule:
    return load_team(team).stop


@cache
def _lineage(model: str) -> list[str]:
    try:
        return lineage(model)
    except OrbweaveError:
        return [model]


@cache
def _about(model: str) -> str:
    try:
        return catalogue_entry(model).description
    except KeyError:
        return "a model of this run, not of the catalogue"


def _template() -> Any:
    return macros(TEMPLATE)


@cache
def macros(name: str) -> Any:
    """Return a template's macros; reading it takes some milliseconds, so it is read once."""
    pages = environment("ui.studio", "assets")
    pages.filters |= {
        "against": against,
        "hashed": _hashed,
        "in_words": structure_in_words,
        "initials": _initials,
        "link": safe_link,
        "reason": reason,
        "slug": _slug,
        "spoken": _spoken,
    }
    pages.globals |= {
        "about": _about,
        "base": "",
        "lineage": _lineage,
        "speakers": lambda: models("language"),
    }
    return pages.get_template(name).module
