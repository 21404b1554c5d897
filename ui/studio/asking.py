"""What a page's script may ask of the desk; all of it is checked, for anybody can send it."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from agents.steering import choose, edit, inject, reroll
from orbweave.errors import OrbweaveError, UsageError, shown
from orbweave.records import Record
from ui.studio.beside import shown_beside
from ui.studio.desk import Desk
from ui.studio.order import MAX_IMAGES, first_fault, models
from ui.studio.sitting import Sitting
from ui.studio.table import Relative, Seat, shown_table, welcome

__all__ = ["act", "look"]

Deed = Literal[
    "stop", "again", "repeat", "rate", "edit", "reroll", "choose", "say", "revise", "draw-both",
    "pin", "unpin",
]  # fmt: skip
FILLED_IN = {"text", "seed", "images"}
"""Fields of a button's form that somebody types."""
BUSY_S = 0.5
"""How often a page looks at a design that is under way."""
IDLE_S = 5.0


class Look(Record):
    """A page asks what is on the table."""

    design: str = Field(default="", max_length=64)
    """Name of the sitting; empty for the one under way."""
    beside: str = Field(default="", max_length=64)
    """Name of another sitting, to be compared with it."""
    known: dict[str, str] = Field(default_factory=dict, max_length=2_000)
    """Digests of the parts the page shows, by their keys."""


class Act(Record):
    """Somebody pressed a button."""

    design: str = Field(max_length=64)
    do: Deed
    value: int = 0
    """Stars to give; the version to revise; which of a turn's earlier texts to bring back."""
    turn: int = 0
    """Index of the turn to change."""
    text: str = Field(default="", max_length=20_000)
    """What a person says, or puts in the place of a turn; a board's name."""
    branches: bool = False
    """Change the turn in a design of its own, and leave this one."""
    model: str = Field(default="", max_length=64)
    """Who says a turn anew; empty for the same as before."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    """Of a turn said anew, or of pictures; None for the next unused one."""
    beside: str = Field(default="", max_length=64)
    """The other design whose prompt is drawn."""
    images: int = Field(default=2, ge=1, le=MAX_IMAGES)


def look(desk: Desk, owner: str, asked: Any) -> dict[str, Any]:
    """Return what changed on the table.

    Returns:
        design: name of the sitting, empty if there is none. status. wait_s: when to look
        again. columns: the keys of the parts in order, by column. parts: HTML of those the
        page does not know. fault: what went wrong, empty if nothing.
    """
    try:
        wanted = Look.model_validate(asked)
    except ValidationError:
        return _nothing("wanted the name of a design and what is known of it")
    try:
        found = desk.sitting(owner, wanted.design) if wanted.design else desk.current(owner)
    except UsageError as err:
        return _nothing(str(err))
    try:
        other = desk.sitting(owner, wanted.beside) if found and wanted.beside else None
    except UsageError as err:
        return _nothing(str(err))
    if found is None:
        parts = welcome(desk.note, desk.n_waiting)
    elif other is not None:
        parts = shown_beside(found, other)
    else:
        parts = shown_table(found, seat_of(desk, owner, found))
    columns: dict[str, list[str]] = {"head": [], "talk": [], "side": []}
    for part in parts:
        columns[part.column].append(part.key)
    return {
        "design": "" if found is None else found.id,
        "status": "" if found is None else found.status,
        "wait_s": BUSY_S if desk.note or any(s and s.is_open for s in (found, other)) else IDLE_S,
        "columns": columns,
        "parts": {
            part.key: {"html": part.html, "digest": part.digest}
            for part in parts
            if wanted.known.get(part.key) != part.digest
        },
        "fault": "",
    }


def act(desk: Desk, owner: str, asked: Any) -> dict[str, str]:
    """Do what a button says.

    Returns:
        design: the sitting to show then. beside: the one to show beside it, empty for none.
        fault: what went wrong, empty if nothing.
    """
    beside = ""
    try:
        wanted = Act.model_validate(asked)
    except ValidationError as err:
        return {"design": "", "beside": "", "fault": _unfit(err)}
    try:
        sitting = desk.sitting(owner, wanted.design)
        if wanted.do == "stop":
            desk.stop(owner, sitting.id)
        elif wanted.do == "again":
            desk.again(owner, sitting.id)
        elif wanted.do == "repeat":
            sitting = desk.start(owner, sitting.asked.row, repeats=sitting.id)
        elif wanted.do == "rate":
            sitting.rate(wanted.value)
        elif wanted.do == "pin":
            desk.boards(owner).put(wanted.text, sitting.id)
        elif wanted.do == "unpin":
            desk.boards(owner).take(wanted.text, sitting.id)
        elif wanted.do == "draw-both":
            seed = sitting.asked.row.brief.seed if wanted.seed is None else wanted.seed
            pair = (sitting.id, wanted.beside)
            sitting, other = desk.draw_both(owner, pair, seed, wanted.images)
            beside = other.id
        else:
            sitting = _steered(desk, owner, wanted)
    except OrbweaveError as err:
        return {"design": wanted.design, "beside": "", "fault": str(err)}
    return {"design": sitting.id, "beside": beside, "fault": ""}


def _steered(desk: Desk, owner: str, wanted: Act) -> Sitting:
    """Change what was said and return the design that goes on from there."""
    turn, text = wanted.turn, wanted.text
    if wanted.do == "revise":
        last = _judged(desk.sitting(owner, wanted.design), wanted.value)
        how = f"You went on from version {wanted.value}."
        return desk.branch(owner, wanted.design, last, partial(inject, text=text), how)
    if wanted.do == "say":
        change, how = partial(inject, text=text), "You spoke to the team."
    elif wanted.do == "choose":
        change = partial(choose, turn=turn, sibling=wanted.value)
        how = f"You brought back an earlier turn {turn}."
    elif wanted.do == "edit":
        change, how = partial(edit, turn=turn, text=text), f"You changed turn {turn}."
    else:
        if wanted.model and wanted.model not in models("language"):
            raise UsageError(f"wanted a model of the catalogue, got {shown(wanted.model)}")
        other = f" by {wanted.model}" if wanted.model else ""
        change = partial(reroll, turn=turn, seed=wanted.seed, model=wanted.model or None)
        how = f"You had turn {turn} said anew{other}."
    if wanted.branches and wanted.do in {"edit", "reroll"}:
        return desk.branch(owner, wanted.design, turn, change, how)
    return desk.steer(owner, wanted.design, change, how)


def _unfit(err: ValidationError) -> str:
    """Say what somebody filled in wrongly; what no page of ours sends is told in general."""
    fields = {str(fault["loc"][0]) for fault in err.errors() if fault["loc"]}
    return first_fault(err) if fields <= FILLED_IN else "wanted something the studio can do"


def seat_of(desk: Desk, owner: str, sitting: Sitting) -> Seat:
    """Return what the table must know beside the sitting."""
    family = [Relative(s.id, _called(s)) for s in desk.family(owner, sitting)]
    return Seat(desk.position(sitting), desk.note, _verdict(desk, owner, sitting), tuple(family))


def _judged(sitting: Sitting, version: int) -> int:
    """Return the turn in which a version was judged; what is said next revises it.

    Raises:
        UsageError: it was not judged yet.
    """
    with sitting.lock:
        critique = sitting.story.critiques.get(version)
    if critique is None:
        raise UsageError(f"wanted version {version} of the prompt, it was not judged yet")
    return critique.turn


def _called(sitting: Sitting) -> str:
    """Return what tells a design from its relatives."""
    with sitting.lock:
        changes = sitting.story.steered
    return " ".join(changes) or "as it was first asked for"


def _verdict(desk: Desk, owner: str, sitting: Sitting) -> str:
    """Say whether a repeated design came out as the first time; empty if it is none, or not done.

    Pictures are compared byte by byte: a file holds its pixels and its settings, no time.
    """
    if not sitting.asked.repeats or sitting.status != "done":
        return ""
    try:
        first = desk.sitting(owner, sitting.asked.repeats).record
    except UsageError:
        return ""
    again = sitting.record
    if first is None or again is None:
        return ""
    words = [turn.text for turn in first.turns] == [turn.text for turn in again.turns]
    pairs = list(zip(first.pictures, again.pictures, strict=False))
    same = sum(a.sha256 == b.sha256 for a, b in pairs)
    said = "The same words" if words else "Other words than the first time"
    return f"{said}; {same} of {len(first.pictures)} pictures identical."


def _nothing(fault: str) -> dict[str, Any]:
    return {
        "design": "",
        "status": "",
        "wait_s": IDLE_S,
        "columns": {"head": [], "talk": [], "side": []},
        "parts": {},
        "fault": fault,
    }
