"""Batches begun on a page: each works in a process of its own, which may outlive the studio.

    data/<owner>/batches/<name>/
        asked.json   the file's name and the values for all rows
        table.csv    the table as it came
        NAME/        the batch, as `orbweave batch` writes it
        run-*.lock   held by a process as long as it works on the batch
        run.log      what the processes said

The process is `orbweave batch` itself; what it has done stands in the store of jobs.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, ValidationError

from orbweave.errors import OutputError, UsageError, shown
from orbweave.files import write_bytes, write_text
from orbweave.job import Event, Job, State
from orbweave.jobs import Jobs, Move, open_jobs
from orbweave.records import Record
from ui.archive import write_archive
from ui.batch import plan_batch
from ui.crew import usual_at_once
from ui.results import result_rows
from ui.studio.batch_order import SUFFIXES, Plan, expected_seconds, options_of, read_plan
from ui.studio.drawer import Drawer
from ui.target import slug

__all__ = ["MAX_TABLE_BYTES", "AskedBatch", "Batch", "Batches", "Standing"]

MAX_TABLE_BYTES = 5_000_000
MAX_RUNNING = 1
"""Processes of batches at work at a time, of all people together: each loads models of its own."""
RECORD = "asked.json"
COMMAND = (sys.executable, "-m", "ui.cli", "batch")
LAST_BYTES = 2_000
PICTURE = re.compile(r"designs/[^/\\]+/images/[A-Za-z0-9._-]+\.png")
SHEET = re.compile(r"contact-sheet(-\d+)?\.png")


class AskedBatch(Record):
    """What somebody uploaded."""

    name: str
    """Of the file, for people."""
    table: str
    """Name of the table in the folder."""
    options: dict[str, list[str]]
    """Values for all rows, by the names of `ui.matrix.COLUMNS`."""
    at: float = Field(ge=0.0)
    """Seconds since 1970."""
    begun: bool = False


@dataclass(frozen=True)
class Batch:
    """One batch on the disk."""

    folder: Path
    asked: AskedBatch

    @property
    def id(self) -> str:
        """Its name on the page."""
        return self.folder.name

    @property
    def table(self) -> Path:
        """The table as it came."""
        return self.folder / self.asked.table

    @property
    def out(self) -> Path:
        """Where its designs and tables of results go."""
        return (self.folder / slug(Path(self.asked.name).stem)).absolute()


class Standing(NamedTuple):
    """How far a batch is."""

    state: str
    """Of the store, or `planned` before it began, or `interrupted` if nobody works on what is
    queued."""
    is_running: bool
    """Whether a process works on it."""
    tally: Mapping[State, int]
    latest: Event | None
    """What was last told of it."""
    running: Sequence[tuple[Job, str]]
    """Rows under way, and what each is doing."""
    last_words: str
    """The last line its process said; empty while it runs."""


class Batches:
    """All batches of all people."""

    def __init__(self, data: Path) -> None:
        self._drawer = Drawer(data, "batches", RECORD)
        self._lock = threading.Lock()
        self._jobs: Jobs | None = None
        self._plans: dict[str, Plan] = {}
        self._results: tuple[object, list[dict[str, Any]]] = (None, [])

    def add(self, owner: str, name: str, content: bytes, fields: Mapping[str, str]) -> Batch:
        """Keep an uploaded table; nothing is run yet.

        Raises:
            UsageError: it is too large, of no known type, or it or the values cannot be read.
        """
        suffix = Path(name).suffix.lower()
        if suffix not in SUFFIXES:
            raise UsageError(f"wanted a table as {', '.join(SUFFIXES)}, got {shown(name)}")
        if len(content) > MAX_TABLE_BYTES:
            raise UsageError(
                f"wanted a table of at most {MAX_TABLE_BYTES // 10**6} MB, got "
                f"{len(content) / 1e6:.1f} MB; `orbweave batch` takes larger ones"
            )
        asked = AskedBatch(
            name=Path(name).name[:200],
            table=f"table{suffix}",
            options=options_of(fields),
            at=time.time(),
        )
        batch = Batch(self._drawer.new(owner), asked)
        write_bytes(batch.table, content)
        try:
            self.plan(batch)
        except UsageError as err:  # nobody could read it later, nor discard it
            shutil.rmtree(batch.folder, ignore_errors=True)
            raise UsageError(str(err).replace(str(batch.table), shown(asked.name))) from err
        _keep(batch)
        return batch

    def find(self, owner: str, name: str) -> Batch:
        """Return one of the owner's batches.

        Raises:
            UsageError: there is none of that name.
        """
        return _read(self._drawer.find(owner, name))

    def all(self, owner: str) -> list[Batch]:
        """Return the owner's batches, the latest first."""
        return _sound(self._drawer.all(owner))

    def plan(self, batch: Batch) -> Plan:
        """Return what the table comes to; read once.

        Raises:
            UsageError: the table is gone.
        """
        if batch.id not in self._plans:
            self._plans = {batch.id: read_plan(batch.table, batch.asked.options)}
        return self._plans[batch.id]

    def seconds(self, batch: Batch) -> float | None:
        """Return how long the batch takes by past rows like its own; None if nobody knows."""
        return expected_seconds(self.jobs, self.plan(batch).rows, usual_at_once())

    def run(self, batch: Batch) -> None:
        """Put the rows into the store and start a process that makes them.

        A batch that was paused, broken off or had failures goes on.

        Raises:
            UsageError: the table has faults, or other batches are at work.
        """
        with self._lock:
            plan = self.plan(batch)
            if plan.faults:
                raise UsageError(f"wanted a table without faults, the first: {plan.faults[0]}")
            busy = [folder for folder in self._drawer.everybody() if _is_held(folder)]
            if len(busy) >= MAX_RUNNING:
                raise UsageError(
                    "wanted to begin this batch, another one is at work; try again when it is done"
                    if busy[0] != batch.folder
                    else "wanted to begin this batch, it is at work already"
                )
            n = usual_at_once()
            plan_batch(self.jobs, batch.out, plan.rows, _told(batch), at_once=n)
            _keep(Batch(batch.folder, batch.asked.model_copy(update={"begun": True})))
            self._start(batch, n)

    def steer(self, batch: Batch, move: Move) -> None:
        """Pause, resume, retry or cancel; a process is started if there is something to do then.

        Raises:
            UsageError: no row is in a state for this.
        """
        number = self._number(batch)
        if number is None:
            raise UsageError(f"wanted to {move} a batch that has begun; begin it first")
        self.jobs.steer(number, move)
        if move in ("resume", "retry") and not _is_held(batch.folder):
            self.run(batch)

    def remove(self, batch: Batch) -> None:
        """Forget a batch that was never begun.

        Raises:
            UsageError: it was begun; its designs are kept.
        """
        if batch.asked.begun:
            raise UsageError("wanted a plan to discard, this batch was begun and is kept")
        shutil.rmtree(batch.folder, ignore_errors=True)

    def standing(self, batch: Batch) -> Standing:
        """Return how far a batch is."""
        is_running = _is_held(batch.folder)
        number = self._number(batch) if batch.asked.begun else None
        if number is None:
            return Standing("planned", is_running, {}, None, (), "")
        jobs = self.jobs
        job, tally = jobs.get(number), jobs.tally(number)
        is_left = bool(tally.keys() & {"queued", "running"})
        state = "interrupted" if is_left and not is_running else job.state
        running = jobs.find(batch=number, states=["running"]) if is_running else []
        notes = [(each, _note(jobs.latest(each.id))) for each in running]
        words = "" if is_running else _last_line(batch.folder / "run.log")
        return Standing(state, is_running, tally, jobs.latest(number), notes, words)

    def rows(self, batch: Batch, tally: Mapping[State, int]) -> list[dict[str, Any]]:
        """Return the table of results, see `ui.results`; read again once `tally` is another."""
        kept = (batch.id, dict(tally))
        if self._results[0] != kept:
            number = self._number(batch) if tally else None
            rows = [] if number is None else list(result_rows(self.jobs.each(number)))
            self._results = (kept, rows)
        return self._results[1]

    def file(self, batch: Batch, path: str) -> Path | None:
        """Return a file of the batch that may be sent; None if there is none.

        `batch.zip` is packed when it is asked for.
        """
        if path == "batch.zip" and not _is_held(batch.folder) and batch.out.is_dir():
            return _archive(batch)
        is_ours = path in ("results.csv", "results.parquet")
        if is_ours or SHEET.fullmatch(path) or PICTURE.fullmatch(path):
            # Names were checked above, but a folder may be called "..".
            found = (batch.out / path).resolve()
            if found.is_relative_to(batch.out.resolve()) and found.is_file():
                return found
        return None

    @property
    def jobs(self) -> Jobs:
        """The store, opened when it is first asked.

        Raises:
            StoreError: it cannot be opened.
        """
        if self._jobs is None:
            self._jobs = open_jobs()
        return self._jobs

    def _number(self, batch: Batch) -> int | None:
        """Return the batch's number in the store; None if it is not there yet."""
        found = self.jobs.find(kind="batch")
        return next((job.id for job in found if job.key == str(batch.out)), None)

    def _start(self, batch: Batch, at_once: int) -> None:
        """Start a process; it inherits a lock and holds it to its end, however that comes."""
        arguments = [str(batch.table.absolute()), "--out", str(batch.out), "--quiet"]
        arguments += ["--at-once", str(at_once)]
        for name, values in batch.asked.options.items():
            for value in values:
                arguments += [f"--{name.replace('_', '-')}", value]
        for old in _locks(batch.folder):
            old.unlink(missing_ok=True)
        place = batch.folder / f"run-{secrets.token_hex(4)}.lock"
        lock = os.open(place, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with (batch.folder / "run.log").open("wb") as log:
                child = subprocess.Popen(
                    [*COMMAND, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=(lock,),
                    start_new_session=True,  # Ctrl-C at the studio is not meant for it
                )
        except OSError as err:
            raise OutputError(
                f"wanted to start the batch in {batch.folder}: {err.strerror}; mend that and "
                "begin it again"
            ) from err
        finally:
            os.close(lock)
        # Somebody has to take note of its end, or it stays a zombie.
        threading.Thread(target=child.wait, name=f"batch-{batch.id}", daemon=True).start()


def _told(batch: Batch) -> dict[str, object]:
    asked = batch.asked
    return {"table": str(batch.table), "combine": "product", "options": asked.options}


def _keep(batch: Batch) -> None:
    write_text(batch.folder / RECORD, batch.asked.model_dump_json(indent=2) + "\n")


def _read(folder: Path) -> Batch:
    try:
        return Batch(folder, AskedBatch.model_validate_json((folder / RECORD).read_text("utf-8")))
    except (OSError, ValidationError, UnicodeDecodeError) as err:
        raise UsageError(f"wanted the batch {folder.name}, it is damaged: {shown(err)}") from err


def _sound(folders: Sequence[Path]) -> list[Batch]:
    """Return the batches that can be read; a damaged one must not hide the others."""
    found = []
    for folder in folders:
        with suppress(UsageError):
            found.append(_read(folder))
    return found


def _locks(folder: Path) -> list[Path]:
    return sorted(folder.glob("run-*.lock"))


def _is_held(folder: Path) -> bool:
    """Whether a process holds one of the batch's locks."""
    for path in _locks(folder):
        try:
            lock = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            continue
        try:
            # Shared: two who look at the same time must not take each other for a process.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
    return False


def _note(event: Event | None) -> str:
    if event is None:
        return "at work"
    return f"{event.note}, {event.done} of {event.total}" if event.total else event.note


def _last_line(log: Path) -> str:
    """Return the last line of what a process said; empty if it said nothing."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LAST_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _archive(batch: Batch) -> Path:
    """Pack the batch; who downloads an earlier file at that moment keeps it."""
    packed = batch.folder / "batch.zip"
    building = batch.folder / f".{secrets.token_hex(4)}.partial"
    try:
        write_archive(batch.out, building)
        return building.replace(packed)
    finally:
        building.unlink(missing_ok=True)
