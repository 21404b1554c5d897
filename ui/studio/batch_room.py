"""What the batch page shows and does."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

from orbweave.errors import UsageError, shown
from orbweave.jobs import MOVES, Move
from ui.crew import usual_at_once
from ui.duration import duration
from ui.studio import order
from ui.studio.batch_order import OWN, SUFFIXES
from ui.studio.batches import MAX_TABLE_BYTES, Batch, Batches, Standing
from ui.studio.rooms import Ask, Part, Seen
from ui.template import environment

__all__ = ["BatchRoom"]

TEMPLATE = "batch.html.j2"
SHOWN_ROWS = 20
SHOWN_FAULTS = 100
SHOWN_PICTURES = 60


class BatchRoom:
    """Tables are uploaded, looked over, run, watched and browsed."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def look(self, owner: str, asked: Ask) -> Seen:
        """Return the form, the batch that is looked at, and all others.

        Raises:
            OrbweaveError: there is none of that name, or the store cannot be read.
        """
        template, every = _template(), self._batches.all(owner)
        parts = [Part("new", template.new(_offered(), ",".join(SUFFIXES), MAX_TABLE_BYTES))]
        is_busy = False
        if asked.at:
            batch = self._batches.find(owner, asked.at)
            standing = self._batches.standing(batch)
            is_busy = standing.is_running
            if standing.state == "planned":
                parts.append(Part(f"plan-{batch.id}", self._plan(batch)))
            else:
                parts += self._progress(batch, standing, asked.fields.get("words", ""))
        parts.append(Part("list", template.every(every, asked.at)))
        return Seen(parts, is_busy)

    def act(self, owner: str, asked: Ask) -> str:
        """Upload, run, steer or discard; return the batch to look at then.

        Raises:
            OrbweaveError: it cannot be done.
        """
        if asked.do == "add":
            if len(asked.files) != 1:
                raise UsageError("wanted one table, got none; choose a file")
            file = asked.files[0]
            return self._batches.add(owner, file.name, file.content, asked.fields).id
        batch = self._batches.find(owner, asked.at)
        if asked.do == "run":
            self._batches.run(batch)
        elif asked.do == "discard":
            self._batches.remove(batch)
            return ""
        elif asked.do in MOVES:
            self._batches.steer(batch, cast(Move, asked.do))
        else:
            raise UsageError(f"wanted something a batch can do, got {shown(asked.do)}")
        return batch.id

    def file(self, owner: str, name: str, path: str) -> tuple[Path, str] | None:
        """Return a file of a batch; tables and the archive are for download."""
        batch = self._batches.find(owner, name)
        found = self._batches.file(batch, path)
        if found is None:
            return None
        return found, "" if found.suffix == ".png" else f"{batch.out.name}{found.suffix}"

    def _plan(self, batch: Batch) -> str:
        plan = self._batches.plan(batch)
        seconds = self._batches.seconds(batch) if plan.rows else None
        told = {
            "rows": plan.rows[:SHOWN_ROWS],
            "n_rows": len(plan.rows),
            "n_pictures": plan.n_pictures,
            "time": duration(seconds) if seconds is not None else "",
            "at_once": usual_at_once(),
            "faults": plan.faults[:SHOWN_FAULTS],
            "n_faults": len(plan.faults),
        }
        return str(_template().plan(batch, told))

    def _progress(self, batch: Batch, standing: Standing, words: str) -> list[Part]:
        """Return the bar with its buttons, what went wrong, and the pictures so far."""
        template, rows = _template(), self._batches.rows(batch, standing.tally)
        latest = standing.latest
        eta = duration(latest.eta_s) if latest and latest.eta_s and standing.is_running else ""
        sheets = sorted(path.name for path in batch.out.glob("contact-sheet*.png"))
        has_tables = (batch.out / "results.csv").is_file()
        failures = [row for row in rows if row["state"] == "failed"]
        drawn = [row for row in rows if row["picture"] and row["is_result"]]
        found = _found(drawn, words)
        browsed = [Part("browse", template.browse())] if drawn else []
        grid = template.grid(batch, found[:SHOWN_PICTURES], len(found), len(drawn))
        return [
            Part(f"head-{batch.id}", template.head(batch, standing, eta, has_tables)),
            Part("failures", template.failures(failures[:SHOWN_FAULTS], len(failures))),
            Part("sheet", template.sheet(batch, sheets if not standing.is_running else [])),
            *browsed,
            Part("grid", grid),
        ]


def _found(rows: Sequence[dict[str, Any]], words: str) -> list[dict[str, Any]]:
    """Return the pictures of which every word is said somewhere."""
    wanted = words.casefold().split()
    texts = ("name", "concept", "title", "prompt", "model", "image_model")
    return [
        row
        for row in rows
        if all(word in " ".join(str(row[t] or "") for t in texts).casefold() for word in wanted)
    ]


def _offered() -> dict[str, list[str]]:
    """Return what can be chosen for all rows, by the names of a table's columns."""
    return {
        "model": [OWN, *order.models("language")],
        "image_model": order.models("image"),
        "structure": ["auto", "none"],
    }


@cache
def _template() -> Any:
    """Return the template's macros; reading it takes some milliseconds, so it is read once."""
    return environment("ui.studio", "assets").get_template(TEMPLATE).module
