"""What a table on the batch page may ask for, checked row by row before anything is opened.

Only names on offer are let through: a folder, a file or an address written into a cell would
be opened on the server.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from orbweave.errors import UsageError
from orbweave.jobs import Jobs
from ui.batch import profile_of
from ui.matrix import COLUMNS, BatchRow, expand, parse_seeds
from ui.studio import order
from ui.table import Fault, Row, read_table

__all__ = ["MAX_ROWS", "SUFFIXES", "Plan", "expected_seconds", "options_of", "read_plan"]

MAX_ROWS = 2_000
"""The page is shared; the command line knows no such bound."""
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".txt")
OPTIONS = ("images", "rounds", "steps", "size", "model", "image_model", "structure")
"""Values of the form for all rows, beside the seeds."""
OWN = "each role's own"


class Plan(NamedTuple):
    """What a table comes to."""

    rows: list[BatchRow]
    """Empty if there is a fault."""
    faults: list[Fault]

    @property
    def n_pictures(self) -> int:
        """Pictures at most."""
        return sum(row.images * row.rounds for row in self.rows)


def options_of(fields: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the values for all rows of a filled-in form; what is left empty is not among them.

    Raises:
        UsageError: the seeds cannot be read.
    """
    given = {name: fields.get(name, "").strip() for name in OPTIONS}
    options = {name: [value] for name, value in given.items() if value and value != OWN}
    seeds = fields.get("seed", "").strip()
    try:
        return options | ({"seed": parse_seeds([seeds])} if seeds else {})
    except UsageError as err:
        raise UsageError(_spoken(str(err))) from err


def read_plan(table: Path, options: Mapping[str, Sequence[str]]) -> Plan:
    """Return the rows of a table with the form's values, or all that is wrong with it.

    Raises:
        UsageError: the file cannot be read.
    """
    found, faults = read_table(table, COLUMNS)
    offered = _offered()
    kept = []
    for row in found:
        wrong = _not_offered(row.cells, offered)
        faults += [Fault(row.number, column, message) for column, message in wrong.items()]
        kept.append(Row(row.number, {n: v for n, v in row.cells.items() if n not in wrong}))
    wrong = _not_offered({name: values[0] for name, values in options.items()}, offered)
    faults += [Fault(None, column, message) for column, message in wrong.items()]
    sound = {name: values for name, values in options.items() if name not in wrong}
    rows, more = _expanded(kept, sound)
    for made in rows:
        more += [Fault(made.number, column, message) for column, message in _too_much(made)]
    told = [fault._replace(message=_spoken(fault.message)) for fault in [*faults, *more]]
    faults = sorted(dict.fromkeys(told), key=lambda fault: fault.row or 0)
    return Plan([] if faults else rows, faults)


def expected_seconds(jobs: Jobs, rows: Sequence[BatchRow], at_once: int) -> float | None:
    """Return how long rows take by past rows like them; None if there was none like some."""
    profiles = Counter(profile_of(row, at_once) for row in rows)
    seconds = 0.0
    for profile, n in profiles.items():
        each = jobs.typical_seconds(profile)
        if each is None:
            return None
        seconds += each * n
    return seconds / max(1, min(at_once, len(rows)))


def _expanded(
    rows: Sequence[Row], options: Mapping[str, Sequence[str]]
) -> tuple[list[BatchRow], list[Fault]]:
    n = len(rows) * len(options.get("seed", ("0",)))
    if n > MAX_ROWS:
        return [], [Fault(None, "", f"wanted at most {MAX_ROWS:,} designs on this page, got {n:,}")]
    return expand(rows, options, "product")


def _spoken(message: str) -> str:
    """Return a message that speaks of fields, not of the command line's options."""
    return re.sub(r"--(?=[a-z])", "", message)


def _offered() -> dict[str, Collection[str]]:
    return {
        "team": order.teams(),
        "model": order.models("language"),
        "image_model": order.models("image"),
        "structure": ("auto", "none"),
    }


def _not_offered(
    cells: Mapping[str, str], offered: Mapping[str, Collection[str]]
) -> dict[str, str]:
    """Return by column what is wrong with cells that name something else than is on offer."""
    return {
        name: f"wanted one of {', '.join(offered[name])}"
        for name, value in cells.items()
        if name in offered and value not in offered[name]
    }


def _too_much(row: BatchRow) -> list[tuple[str, str]]:
    """Return (column, message) for what would hold the shared machine for too long."""
    asked = {
        "images": (row.images, order.MAX_IMAGES),
        "rounds": (row.rounds, order.MAX_ROUNDS),
        "steps": (row.render.steps, order.MAX_STEPS),
        "size": (max(row.render.width, row.render.height), order.MAX_SIDE_PX),
    }
    return [
        (name, f"wanted at most {most} on this page, got {value}")
        for name, (value, most) in asked.items()
        if value > most
    ]
