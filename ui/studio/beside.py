"""Two designs beside each other: their words, their pictures, what differs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from agents.comparison import Comparison, Drawn, Pair, compare
from agents.state import Step, turn_of
from orbweave.records import Picture
from ui.studio.journal import Status
from ui.studio.order import MAX_IMAGES
from ui.studio.sitting import Sitting, kept_name
from ui.studio.table import Part, macros

__all__ = ["shown_beside"]

TEMPLATE = "beside.html.j2"
LABELS = {"direction_deg": "direction, degrees", "spacing_px": "spacing, pixels"}


class Side(NamedTuple):
    """One of the two as the head shows it."""

    id: str
    concept: str
    said: str
    """What a person changed in it."""
    status: Status
    why: str


class Shown(NamedTuple):
    """A picture where the page finds it."""

    address: str
    seed: int
    width: int
    height: int


class Said(NamedTuple):
    """A step of the talk in both; empty where one does not have it."""

    name: str
    is_same: bool
    a: str
    b: str


def shown_beside(a: Sitting, b: Sitting) -> list[Part]:
    """Return two designs side by side, in the order of reading; either may be under way."""
    template = macros(TEMPLATE)
    row = a.asked.row
    parts = [Part("head", "beside", str(template.head([_side(a), _side(b)])))]
    found = _compared(a, a.n_kept, a.n_laid, b, b.n_kept, b.n_laid)
    if found is None:
        return parts
    if found.prompts and all(p.a is not None and p.b is not None for p in found.prompts[:1]):
        again = template.again(b.id, row.brief.seed, row.images, MAX_IMAGES)
        parts.append(Part("head", "again", str(again)))
    parts += [Part("head", f"drawn-{d.version}", _drawn(a, b, d)) for d in reversed(found.drawn)]
    parts.append(Part("head", "wordings", str(template.wordings(found.prompts))))
    steps = [said for pair in found.steps if (said := _said(pair)) is not None]
    parts.append(Part("head", "steps", str(template.talk(steps, found.shared))))
    return parts


@lru_cache(maxsize=32)
def _compared(
    a: Sitting, a_kept: int, a_laid: int, b: Sitting, b_kept: int, b_laid: int
) -> Comparison | None:
    """Compare what is kept of both; None if one has nothing. The numbers say when it is stale."""
    left, right = a.state, b.state
    return None if left is None or right is None else compare(left, right)


def _side(sitting: Sitting) -> Side:
    with sitting.lock:
        story = sitting.story
        said = " ".join(story.steered)
        why = story.note or story.why
    return Side(sitting.id, sitting.asked.row.brief.concept, said, sitting.status, why)


def _drawn(a: Sitting, b: Sitting, drawn: Drawn) -> str:
    sides = [("Left", _shown(a, drawn.a)), ("Right", _shown(b, drawn.b))]
    measured = [
        (LABELS.get(name, name), _number(left), _number(right))
        for name, (left, right) in drawn.measured.items()
    ]
    # The words stand below, and a geometry is too long for a line.
    settings = {
        n: v for n, v in drawn.settings.items() if n not in {"prompt", "structure", "seeds"}
    }
    template = macros(TEMPLATE)
    return str(template.drawn(drawn.version, sides, measured, drawn.same_seeds, settings))


def _shown(sitting: Sitting, pictures: Sequence[Picture]) -> list[Shown]:
    return [
        Shown(
            f"/sitting/{sitting.id}/picture/{kept_name(picture)}",
            picture.seed,
            picture.request.width,
            picture.request.height,
        )
        for picture in pictures
    ]


def _said(pair: Pair) -> Said | None:
    """Return what was said in a step; None for facts and pictures, which nobody said."""
    a, b = _text(pair.a), _text(pair.b)
    return Said(pair.name, pair.is_same, a, b) if a or b else None


def _text(step: Step | None) -> str:
    turn: Any = turn_of(step) if step is not None else None
    return turn.text.strip() if turn is not None else ""


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
