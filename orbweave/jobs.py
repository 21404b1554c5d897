"""The jobs in the store: put in once, read, steered. Workers take them by `orbweave.leases`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, Literal

import sqlalchemy as sa

from orbweave.errors import UsageError
from orbweave.job import Event, Job, Kind, NewJob, State, state_of_batch
from orbweave.store import WAIT_S, Store, open_store
from orbweave.tables import events as events_table
from orbweave.tables import jobs as table

__all__ = ["MOVES", "Jobs", "Move", "in_order", "job_of", "of_batch", "open_jobs", "rebuild"]

CHUNK = 1_000
Move = Literal["pause", "resume", "retry", "cancel"]
MOVES: Mapping[Move, tuple[tuple[State, ...], State]] = {
    "pause": (("queued",), "paused"),
    "resume": (("paused",), "queued"),
    "retry": (("failed", "cancelled"), "queued"),
    "cancel": (("queued", "paused"), "cancelled"),
}
"""From which states each leads where; running jobs are asked."""


class Jobs:
    """All jobs of one store."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        self.store = store
        self._clock = clock

    # ------------------------------------------------------------------------ putting in

    def add(self, new: NewJob) -> Job:
        """Put one job in; one with the same key is brought up to date, its state stays."""
        with self.store.write() as connection:
            return self._add(connection, new)

    def begin(self, new: NewJob, worker: str, lease_s: float) -> Job | None:
        """Put one job in as running in the hands of `worker`; None if it runs already.

        One with the same key that came to its end is begun anew.
        """
        now = self._clock()
        values = {
            "state": "running",
            "worker": worker,
            "lease_until": now + lease_s,
            "started": now,
            "attempts": 1,
            "error": "",
            **dict.fromkeys(("asked", "finished", "seconds", "result")),
        }
        with self.store.write() as connection:
            job = self._add(connection, new)
            if job.state == "running":
                return None
            statement = sa.update(table).where(table.c.id == job.id).values(**values)
            return job_of(connection.execute(statement.returning(table)).one())

    def plan(self, batch: int, news: Sequence[NewJob]) -> None:
        """Make the jobs of a batch these, in this order.

        Jobs with a known key stay as they are, but for their place; jobs of the batch that
        are not among these any more are forgotten, unless they run.
        """
        kept = {new.key for new in news}
        with self.store.write() as connection:
            known = connection.execute(
                sa.select(table.c.id, table.c.key).where(
                    of_batch(batch), table.c.state != "running"
                )
            )
            for ids in _chunks([row.id for row in known if row.key not in kept]):
                connection.execute(sa.delete(table).where(table.c.id.in_(ids)))
            rows = (self._row(new, batch, float(n)) for n, new in enumerate(news, start=1))
            for chunk in _chunks(rows):
                connection.execute(self._insert(), chunk)

    def adopt(self, job: int, result: dict[str, Any] | None, seconds: float | None) -> None:
        """Mark as done what was found finished on the disk; a running job is left alone.

        Args:
            job: Its number.
            result: As JSON; None where nobody has read it yet, see `unread`.
            seconds: What the work took, None if nobody knows.
        """
        values = {"result": result, "seconds": seconds, "error": "", "finished": self._clock()}
        statement = sa.update(table).where(table.c.id == job, table.c.state != "running")
        with self.store.write() as connection:
            connection.execute(statement.values(state="done", **values))

    def requeue(self, jobs: Collection[int]) -> None:
        """Have done jobs done again, because what they made is gone."""
        values = {"state": "queued", "attempts": 0, "result": None, "seconds": None}
        with self.store.write() as connection:
            for ids in _chunks(jobs):
                where = (table.c.id.in_(ids), table.c.state == "done")
                connection.execute(sa.update(table).where(*where).values(**values))

    # ------------------------------------------------------------------------- reading

    def get(self, job: int) -> Job:
        """Return one job.

        Raises:
            UsageError: there is none of this number.
        """
        with self.store.read() as connection:
            row = connection.execute(sa.select(table).where(table.c.id == job)).one_or_none()
        if row is None:
            raise UsageError(
                f"wanted a job, found none of number {job}; `orbweave jobs list` shows them"
            )
        return self._with_states([job_of(row)])[0]

    def find(
        self,
        *,
        batch: int | None = None,
        states: Collection[State] = (),
        kind: Kind | None = None,
    ) -> list[Job]:
        """Return jobs in their order: those of a batch, or what belongs to none.

        Args:
            batch: Its number; None finds what belongs to no batch, batches among it.
            states: Only jobs in one of these; empty means any.
            kind: Only jobs of this kind.
        """
        query = in_order(sa.select(table).where(of_batch(batch)))
        if kind is not None:
            query = query.where(table.c.kind == kind)
        if states:
            query = query.where(table.c.state.in_(states) | (table.c.kind == "batch"))
        with self.store.read() as connection:
            found = self._with_states([job_of(row) for row in connection.execute(query)])
        return [job for job in found if not states or job.state in states]

    def each(self, batch: int) -> Iterator[Job]:
        """Yield the jobs of a batch as they were planned, without holding all of them."""
        query = sa.select(table).where(of_batch(batch)).order_by(table.c.position, table.c.id)
        with self.store.read() as connection:
            stream = connection.execution_options(yield_per=CHUNK)
            for row in stream.execute(query):
                yield job_of(row)

    def states(self, batch: int) -> dict[str, tuple[int, State]]:
        """Return (number, state) of every job of a batch by its key."""
        query = sa.select(table.c.key, table.c.id, table.c.state).where(of_batch(batch))
        with self.store.read() as connection:
            return {row.key: (row.id, row.state) for row in connection.execute(query)}

    def unread(self, batch: int) -> set[int]:
        """Return the jobs of a batch that are done, but whose results only the disk knows."""
        where = (of_batch(batch), table.c.state == "done", table.c.result.is_(None))
        with self.store.read() as connection:
            return set(connection.scalars(sa.select(table.c.id).where(*where)))

    def tally(self, batch: int) -> dict[State, int]:
        """Return how many jobs of a batch are in each state."""
        return self._tallies([batch]).get(batch, {})

    def typical_seconds(self, profile: str) -> float | None:
        """Return the median time of the last 50 jobs of a profile; None if there was none."""
        where = (table.c.profile == profile, table.c.seconds.is_not(None))
        query = sa.select(table.c.seconds).where(*where).order_by(table.c.finished.desc())
        with self.store.read() as connection:
            seconds = connection.scalars(query.limit(50)).all()
        return median(seconds) if seconds else None

    # ------------------------------------------------------------------------ steering

    def steer(self, job: int, move: Move) -> int:
        """Pause, resume, retry or cancel a job, or all jobs of a batch.

        A running job is asked: its worker stops at the next chance. Pausing a batch lets
        the jobs that run come to their end.

        Returns:
            How many jobs were changed or asked.

        Raises:
            UsageError: there is no such job, or it is in no state for this.
        """
        known = self.get(job)
        command = known.parameters.get("command")
        if command and move != "cancel":
            raise UsageError(
                f"wanted to {move} job {job}, it is a command at a terminal and in no queue; "
                f"run it again: {command}"
            )
        sources, target = MOVES[move]
        meant = of_batch(job) if known.kind == "batch" else table.c.id == job
        values: dict[str, Any] = {"state": target}
        if move == "retry":
            values |= {"attempts": 0, "error": "", "seconds": None, "finished": None}
        moved = sa.update(table).where(meant, table.c.state.in_(sources)).values(**values)
        asked = None if move == "resume" else move
        running = sa.update(table).where(
            meant, table.c.state == "running", table.c.asked.is_distinct_from(asked)
        )
        with self.store.write() as connection:
            n = connection.execute(moved).rowcount
            if move != "retry" and not (move == "pause" and known.kind == "batch"):
                n += connection.execute(running.values(asked=asked)).rowcount
        if n == 0:
            raise UsageError(
                f"wanted to {move} job {job}, it is {known.state}; "
                f"that takes one that is {' or '.join(sources)}"
            )
        return n

    def move(self, job: int, *, priority: int | None = None, first: bool | None = None) -> Job:
        """Put a job elsewhere in the order: to a priority, to its front or to its end."""
        known = self.get(job)
        level = known.priority if priority is None else priority
        values: dict[str, Any] = {"priority": level}
        with self.store.write() as connection:
            if first is not None:
                end, step = (sa.func.min, -1.0) if first else (sa.func.max, 1.0)
                among = (of_batch(known.parent), table.c.priority == level)
                at = connection.scalar(sa.select(end(table.c.position)).where(*among))
                values["position"] = (at or 0.0) + step
            connection.execute(sa.update(table).where(table.c.id == job).values(**values))
        return self.get(job)

    # ------------------------------------------------------------------------ progress

    def tell(self, job: int, done: int, total: int, eta_s: float | None, note: str = "") -> None:
        """Keep how far a job is."""
        values = {"job": job, "at": self._clock(), "done": done, "total": total}
        with self.store.write() as connection:
            connection.execute(sa.insert(events_table), values | {"eta_s": eta_s, "note": note})

    def events(self, job: int, after: int = 0) -> list[Event]:
        """Return what was told of a job since the event number `after`, oldest first."""
        where = (events_table.c.job == job, events_table.c.id > after)
        query = sa.select(events_table).where(*where).order_by(events_table.c.id)
        with self.store.read() as connection:
            return [Event(**row._mapping) for row in connection.execute(query)]

    def latest(self, job: int) -> Event | None:
        """Return the last event of a job, None if there is none."""
        query = sa.select(events_table).where(events_table.c.job == job)
        with self.store.read() as connection:
            row = connection.execute(query.order_by(events_table.c.id.desc()).limit(1)).first()
        return None if row is None else Event(**row._mapping)

    # --------------------------------------------------------------------------- inside

    def _add(self, connection: sa.Connection, new: NewJob) -> Job:
        last = connection.scalar(sa.select(sa.func.max(table.c.position)).where(of_batch(None)))
        row = self._row(new, None, (last or 0.0) + 1.0)
        return job_of(connection.execute(self._insert().returning(table), row).one())

    def _row(self, new: NewJob, batch: int | None, position: float) -> dict[str, Any]:
        return {
            "parent": batch,
            "kind": new.kind,
            "state": "queued",
            "label": new.label,
            "key": new.key,
            "profile": new.profile,
            "priority": new.priority,
            "position": position,
            "attempts": 0,
            "created": self._clock(),
            "parameters": new.parameters,
            "error": "",
        }

    def _insert(self) -> Any:
        statement = self.store.upsert(table)
        fresh = ("parent", "kind", "label", "profile", "priority", "position", "parameters")
        taken = {name: statement.excluded[name] for name in fresh}
        return statement.on_conflict_do_update(index_elements=["key"], set_=taken)

    def _tallies(self, batches: Sequence[int]) -> dict[int, dict[State, int]]:
        found: dict[int, dict[State, int]] = {}
        columns = (table.c.parent, table.c.state)
        query = sa.select(*columns, sa.func.count()).group_by(*columns)
        with self.store.read() as connection:
            for ids in _chunks(batches):
                for batch, state, n in connection.execute(query.where(table.c.parent.in_(ids))):
                    found.setdefault(batch, {})[state] = n
        return found

    def _with_states(self, jobs: list[Job]) -> list[Job]:
        """Return the jobs with the states of batches as they follow from their jobs."""
        tallies = self._tallies([job.id for job in jobs if job.kind == "batch"])
        return [
            replace(job, state=state_of_batch(tallies[job.id])) if job.id in tallies else job
            for job in jobs
        ]


def open_jobs(address: str | None = None, *, wait_s: float = WAIT_S, check: bool = False) -> Jobs:
    """Open the store; one that was damaged is filled again from the folders it knew.

    The arguments are those of `orbweave.store.open_store`.

    Raises:
        StoreError: it cannot be opened, is locked, or was written by a newer Orbweave.
    """
    jobs = Jobs(open_store(address, wait_s=wait_s, check=check))
    if jobs.store.moved_aside is not None:
        for folder in jobs.store.folders():
            rebuild(jobs, folder)
    return jobs


def rebuild(jobs: Jobs, folder: Path) -> int:
    """Put every design below a folder into the store as done; return how many there are.

    A batch that is run again reads them and gives each its place.
    """
    found = 0
    for record in sorted(folder.rglob("design.json")):
        try:
            brief = json.loads(record.read_text("utf-8"))["brief"]
            new = NewJob("design", brief["concept"], {"brief": brief}, key=str(record.parent))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not one of ours, or not whole: no result to remember
        jobs.adopt(jobs.add(new).id, None, None)
        found += 1
    return found


def job_of(row: Any) -> Job:
    """Return a row of the table as a job."""
    return Job(**row._mapping)


def of_batch(batch: int | None) -> sa.ColumnElement[bool]:
    """Return the condition to belong to a batch, or to none."""
    # IS NOT DISTINCT FROM would say it in one, but PostgreSQL uses no index for it.
    return table.c.parent.is_(None) if batch is None else table.c.parent == batch


def in_order(query: sa.Select[Any]) -> sa.Select[Any]:
    """Return the query with the next job first."""
    return query.order_by(table.c.priority, table.c.position, table.c.id)


def _chunks(items: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk
