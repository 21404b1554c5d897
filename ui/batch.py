"""A batch: many designs in one folder, each made once however often the run is broken off.

    batch.json            what was asked for
    designs/NAME/         one design folder a row, written whole or not at all
    results.csv, .parquet one row a picture
    contact-sheet.png     all pictures with labels
    gallery.html          the same with filters; needs nothing but the designs beside it

A row's folder has a name that follows from the row, so that what is finished is found again
on the disk even where the store knows nothing of it. Several processes may work on one batch.
"""

from __future__ import annotations

import errno
import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from agents.events import Event
from orbweave import __version__
from orbweave.errors import Cancelled, OrbweaveError, OutputError, shown
from orbweave.files import check_output, remove_leftovers, write_text
from orbweave.job import NewJob, State
from orbweave.jobs import Jobs
from orbweave.memory import give_back
from orbweave.records import Design
from orbweave.worker import Task, Worker
from ui.crew import Crew
from ui.design import is_design
from ui.matrix import BatchRow
from ui.progress import told_to
from ui.results import result_of

__all__ = [
    "MakeRow",
    "OnProgress",
    "Progress",
    "check_batch_folder",
    "plan_batch",
    "profile_of",
    "work_on",
]

logger = logging.getLogger(__name__)

RECORD = "batch.json"
DESIGNS = "designs"
WAIT_S = 1.0
"""How often to look whether the rows of other processes have ended."""
TELL_S = 1.0
"""The store is told of progress no more often."""
TIDY_S = 10.0
"""Seconds between two returns of free memory. Rows come and go in threads of their own, and the C
library keeps what each left free, in pieces, apart from the others'."""
OnProgress = Callable[[int, int, float | None], None]
"""Is told how many of this run's rows have ended, how many there are, and the seconds left."""


class MakeRow(Protocol):
    """What `ui.maker.Maker` offers; a fake stands in for it in tests.

    It is called from several threads at once.
    """

    def __call__(
        self,
        row: BatchRow,
        target: Path,
        *,
        on_event: Callable[[Event], None],
        cancelled: Callable[[], bool],
    ) -> Design:
        """Make the design folder of a row, whole or not at all."""
        ...


def check_batch_folder(out: Path) -> None:
    """Check that a batch can be made, or gone on with, in a folder; nothing is written.

    Raises:
        OutputError: it cannot be written, or holds something that is no batch.
    """
    check_output(out, force=True)
    if out.exists() and not out.is_dir():
        raise OutputError(
            f"wanted a folder for a batch, found a file at {out}; choose another --out"
        )
    if out.exists() and not (out / RECORD).is_file() and any(out.iterdir()):
        raise OutputError(
            f"wanted a new folder or an earlier batch, found something else at {out}; "
            "choose another --out"
        )


def plan_batch(
    jobs: Jobs,
    out: Path,
    rows: Sequence[BatchRow],
    asked: Mapping[str, object],
    *,
    at_once: int = 1,
) -> int:
    """Put a batch into the store, what is finished on the disk as done; return its number.

    Args:
        jobs: The store.
        out: Folder of the batch, absolute.
        rows: All its rows, in the order of the table.
        asked: What was asked for, for people: kept in `batch.json`.
        at_once: Rows that will be under way at once; part of what decides how long one takes.
    """
    record = {"orbweave": __version__, "rows": len(rows), **asked}
    write_text(out / RECORD, json.dumps(record, ensure_ascii=False, indent=2) + "\n")
    jobs.store.remember_folder(out)
    batch = jobs.add(NewJob("batch", out.name, dict(asked), key=str(out))).id
    groups = _groups(rows)
    jobs.plan(batch, [_new_job(row, out, groups[_models(row)], at_once) for row in rows])
    # In this order: a row that another process ends meanwhile is never taken for lost.
    states = jobs.states(batch)
    there = _folders(out / DESIGNS)
    jobs.requeue(
        [n for key, (n, state) in states.items() if state == "done" and Path(key).name not in there]
    )
    unread = jobs.unread(batch)
    for key, (n, state) in states.items():
        if Path(key).name in there and (state not in ("done", "running") or n in unread):
            _adopt(jobs, n, Path(key))
    return batch


def work_on(
    jobs: Jobs,
    batch: int,
    make: MakeRow,
    *,
    at_once: int = 1,
    on_progress: OnProgress = lambda *_: None,
) -> dict[State, int]:
    """Make the rows of a batch until none is left to make; return how many are in each state.

    Rows that other processes work on are waited for: if one of these dies, its row is made
    here. A row that fails is kept as failed, and the next is taken.

    Args:
        jobs: The store.
        batch: Number of the batch in it.
        make: Makes one row, in any thread.
        at_once: Rows under way at the same time, at least 1; they end as they would alone.
        on_progress: Called in this thread.

    Raises:
        OutputError: the disk is full; the rows at hand are back in the queue.
    """
    progress, tidied = Progress(jobs, batch, on_progress), time.monotonic()
    with Worker(jobs) as worker, Crew(at_once) as crew:
        while True:
            task = worker.take(batch=batch) if crew.has_room else None
            if task is not None:
                crew.begin(task, partial(_make, make))
            elif crew:
                crew.wait(WAIT_S)
            elif not jobs.tally(batch).keys() & {"queued", "running"}:  # given back just now
                return progress.end()
            else:
                time.sleep(WAIT_S)
            progress.tell()
            if time.monotonic() - tidied >= TIDY_S:
                give_back()
                tidied = time.monotonic()


def profile_of(row: BatchRow, at_once: int) -> str:
    """Return what decides how long a row takes, in words."""
    return f"{row.profile}; {at_once} at once"


def _new_job(row: BatchRow, out: Path, group: int, at_once: int) -> NewJob:
    return NewJob(
        "batch-row",
        row.name or row.brief.concept,
        row.model_dump(mode="json"),
        key=str(out / DESIGNS / row.folder),
        profile=profile_of(row, at_once),
        priority=group,
    )


def _groups(rows: Iterable[BatchRow]) -> dict[tuple[str, str, str], int]:
    """Return a number for each set of models, so that rows with the same follow each other."""
    return {models: n for n, models in enumerate(dict.fromkeys(map(_models, rows)))}


def _models(row: BatchRow) -> tuple[str, str, str]:
    return row.render.model, row.team, row.model or ""


def _folders(parent: Path) -> set[str]:
    return {path.name for path in parent.iterdir()} if parent.is_dir() else set()


def _adopt(jobs: Jobs, job: int, folder: Path) -> None:
    """Mark a row as done whose folder is there and whole; others are told when it is made."""
    with suppress(OutputError):
        record = _read(folder)
        jobs.adopt(job, result_of(record), _seconds(record))


def _read(folder: Path) -> Design:
    try:
        return Design.model_validate_json((folder / "design.json").read_text("utf-8"))
    except (OSError, ValueError) as err:
        raise OutputError(
            f"wanted the design in {folder}, its design.json cannot be read: {shown(err)}; "
            "move the folder away and try the row again"
        ) from err


def _make(make: MakeRow, task: Task) -> None:
    """Make one row and keep what came of it."""
    row = BatchRow.model_validate(task.job.parameters)
    assert task.job.key is not None
    target = Path(task.job.key)
    try:
        if task.job.attempts > 1:
            remove_leftovers(target)  # of the worker that died; the lease is the lock
        if is_design(target):
            record = _read(target)
        else:
            record = make(row, target, on_event=told_to(task.report), cancelled=task.cancelled)
        result = result_of(record)
    except Cancelled:
        task.release()
    except OrbweaveError as err:
        if _disk_is_full(err):
            task.release()
            raise
        task.fail(str(err))
    except Exception as err:  # one bad row must not end the batch
        logger.exception("row %d failed", row.number)
        task.fail(f"a fault of Orbweave itself, {type(err).__name__}: {err}")
    else:  # not above: a task ends once, also if the store refuses
        task.finish(result, _seconds(record))


def _disk_is_full(err: BaseException | None) -> bool:
    while err is not None:
        if isinstance(err, OSError) and err.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        err = err.__cause__
    return False


def _seconds(record: Design) -> float:
    return round(sum(record.timings_s.values()), 3)


class Progress:
    """Tells the caller and the store how far a batch is."""

    def __init__(self, jobs: Jobs, batch: int, on_progress: OnProgress) -> None:
        self._jobs, self._batch, self._on_progress = jobs, batch, on_progress
        self._begun = time.monotonic()
        self._told_at = -math.inf
        self._told = -1
        tally = jobs.tally(batch)
        self._all = sum(tally.values())
        self._before = _ended(tally)

    def tell(self) -> None:
        """Say how far it is, unless that was said just now."""
        if time.monotonic() - self._told_at >= TELL_S:
            self._say(self._jobs.tally(self._batch))

    def end(self) -> dict[State, int]:
        """Say how it ended."""
        tally = self._jobs.tally(self._batch)
        self._say(tally)
        return tally

    def _say(self, tally: Mapping[State, int]) -> None:
        self._told_at = time.monotonic()
        ended, left = _ended(tally), tally.get("queued", 0) + tally.get("running", 0)
        here = ended - self._before
        eta_s = (self._told_at - self._begun) / here * left if here > 0 else None
        if ended != self._told:
            self._jobs.tell(self._batch, ended, self._all, eta_s)
            self._told = ended
        self._on_progress(here, here + left, eta_s)


def _ended(tally: Mapping[State, int]) -> int:
    return tally.get("done", 0) + tally.get("failed", 0)
