"""What a page's script may ask of the desk; all of it is checked, for anybody can send it."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from pydantic import Field, ValidationError

from agents.steering import edit, inject, reroll
from orbweave.errors import OrbweaveError, UsageError
from orbweave.records import Record
from ui.studio.desk import Desk
from ui.studio.sitting import Sitting
from ui.studio.table import Seat, shown_table, welcome

__all__ = ["act", "look"]

Deed = Literal["stop", "again", "repeat", "rate", "edit", "reroll", "say"]
BUSY_S = 0.5
"""How often a page looks at a design that is under way."""
IDLE_S = 5.0


class Look(Record):
    """A page asks what is on the table."""

    design: str = Field(default="", max_length=64)
    """Name of the sitting; empty for the one under way."""
    known: dict[str, str] = Field(default_factory=dict, max_length=2_000)
    """Digests of the parts the page shows, by their keys."""


class Act(Record):
    """Somebody pressed a button."""

    design: str = Field(max_length=64)
    do: Deed
    value: int = 0
    """Stars to give."""
    turn: int = 0
    """Index of the turn to change."""
    text: str = Field(default="", max_length=20_000)
    """What a person says, or puts in the place of a turn."""
    branches: bool = False
    """Change the turn in a design of its own, and leave this one."""


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
    if found is None:
        parts = welcome(desk.note)
    else:
        parts = shown_table(found, seat_of(desk, owner, found))
    columns: dict[str, list[str]] = {"head": [], "talk": [], "side": []}
    for part in parts:
        columns[part.column].append(part.key)
    return {
        "design": "" if found is None else found.id,
        "status": "" if found is None else found.status,
        "wait_s": BUSY_S if desk.note or (found is not None and found.is_open) else IDLE_S,
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
        design: the sitting to show then. fault: what went wrong, empty if nothing.
    """
    try:
        wanted = Act.model_validate(asked)
    except ValidationError:
        return {"design": "", "fault": "wanted something the studio can do"}
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
        else:
            sitting = _steered(desk, owner, wanted)
    except OrbweaveError as err:
        return {"design": wanted.design, "fault": str(err)}
    return {"design": sitting.id, "fault": ""}


def _steered(desk: Desk, owner: str, wanted: Act) -> Sitting:
    """Change what was said and return the design that goes on from there."""
    turn, text = wanted.turn, wanted.text
    if wanted.do == "say":
        change, how = partial(inject, text=text), "You spoke to the team."
    elif wanted.do == "edit":
        change, how = partial(edit, turn=turn, text=text), f"You changed turn {turn}."
    else:
        change, how = partial(reroll, turn=turn), f"You had turn {turn} said anew."
    if wanted.branches and wanted.do != "say":
        return desk.branch(owner, wanted.design, turn, change, how)
    return desk.steer(owner, wanted.design, change, how)


def seat_of(desk: Desk, owner: str, sitting: Sitting) -> Seat:
    """Return what the table must know beside the sitting."""
    return Seat(desk.position(sitting), desk.note, _verdict(desk, owner, sitting))


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
