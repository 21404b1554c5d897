"""Who works on what: a job is held by a lease that its worker renews while it lives.

A job whose lease ran out, or whose worker is known to be dead, goes back into the queue; what
the worker was asked to do meanwhile, to pause or to cancel, is done then.

Workers on several machines compare leases by their own clocks: keep these within a few
seconds of each other, as NTP does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any, Literal

import sqlalchemy as sa

from orbweave.job import Job, Kind, State
from orbweave.jobs import in_order, job_of, of_batch
from orbweave.store import Store
from orbweave.tables import jobs as table

__all__ = ["LEASE_S", "MAX_DEATHS", "OWN", "Leases", "Wish"]

LEASE_S = 60.0
"""A worker that says nothing for so long counts as dead; chosen by us."""
MAX_DEATHS = 10
"""A job that took so many workers with it is not handed out again; chosen by us."""
OWN = "own@"
"""Begins the name of a worker that does a job of its own, such as a command at a terminal.
Nobody could go on with such a job: if the worker dies, the job has failed."""
Wish = Literal["go on", "pause", "cancel", "lost"]
"""What a worker hears when it renews a lease; `lost`: the job is somebody else's by now."""


class Leases:
    """The jobs of one store as workers see them."""

    def __init__(
        self, store: Store, *, clock: Callable[[], float] = time.time, lease_s: float = LEASE_S
    ) -> None:
        self.store = store
        self.lease_s = lease_s
        self._clock = clock

    def claim(
        self, worker: str, *, batch: int | None = None, kinds: Collection[Kind] = ()
    ) -> Job | None:
        """Take the next queued job for a worker; None if there is none.

        Args:
            worker: Its name, unlike any other's.
            batch: The batch to take from; None takes what belongs to no batch.
            kinds: Only jobs of these kinds; empty means any but batches.
        """
        now = self._clock()
        wanted = table.c.kind.in_(kinds) if kinds else table.c.kind != "batch"
        query = sa.select(table.c.id).where(table.c.state == "queued", of_batch(batch), wanted)
        # PostgreSQL passes over what another worker is taking; SQLite has one writer.
        first = in_order(query).limit(1).with_for_update(skip_locked=True)
        statement = sa.update(table).where(table.c.id == first.scalar_subquery())
        values = {
            "state": "running",
            "worker": worker,
            "lease_until": now + self.lease_s,
            "started": now,
            "finished": None,
            "attempts": table.c.attempts + 1,
            "error": "",
        }
        with self.store.write() as connection:
            row = connection.execute(statement.values(**values).returning(table)).one_or_none()
        return None if row is None else job_of(row)

    def renew(self, job: int, worker: str) -> Wish:
        """Prolong a lease; return what the worker shall do."""
        values = {"lease_until": self._clock() + self.lease_s}
        statement = _held(job, worker).values(**values).returning(table.c.asked)
        with self.store.write() as connection:
            row = connection.execute(statement).one_or_none()
        return "lost" if row is None else (row.asked or "go on")

    def finish(self, job: int, worker: str, result: dict[str, Any], seconds: float) -> bool:
        """Keep the result; False if the job is somebody else's by now."""
        return self._end(job, worker, state="done", result=result, seconds=seconds)

    def fail(self, job: int, worker: str, error: str, seconds: float) -> bool:
        """Keep why it failed; False if the job is somebody else's by now."""
        return self._end(job, worker, state="failed", error=error, seconds=seconds)

    def cancel(self, job: int, worker: str) -> bool:
        """Keep that it was given up; False if the job is somebody else's by now."""
        return self._end(job, worker, state="cancelled")

    def release(self, job: int, worker: str) -> bool:
        """Give a job back unfinished: to the queue, or to the state that was asked for."""
        return self._end(job, worker, state=_AS_ASKED, attempts=table.c.attempts - 1)

    def reap(self, dead: Collection[str] = ()) -> int:
        """Take jobs back from workers whose lease ran out or who are known to be dead."""
        lost = (table.c.lease_until < self._clock()) | table.c.worker.in_(dead)
        too_often = table.c.attempts >= MAX_DEATHS
        own = table.c.worker.startswith(OWN)
        told = "its process died; run the command again"
        values = {
            "state": sa.case((own | too_often, "failed"), else_=_AS_ASKED),
            "error": sa.case(
                (own, told), (too_often, f"its worker died {MAX_DEATHS} times"), else_=""
            ),
            "worker": None,
            "lease_until": None,
            "asked": None,
        }
        statement = sa.update(table).where(table.c.state == "running", lost).values(**values)
        with self.store.write() as connection:
            return connection.execute(statement).rowcount

    def workers(self) -> list[str]:
        """Return the names of all who hold a job."""
        query = sa.select(table.c.worker).where(table.c.state == "running").distinct()
        with self.store.read() as connection:
            return [name for name in connection.scalars(query) if name]

    def _end(self, job: int, worker: str, **values: Any) -> bool:
        over = {"worker": None, "lease_until": None, "asked": None, "finished": self._clock()}
        with self.store.write() as connection:
            statement = _held(job, worker).values(**over | values)
            return connection.execute(statement).rowcount == 1


def _held(job: int, worker: str) -> sa.Update:
    where = (table.c.id == job, table.c.worker == worker, table.c.state == "running")
    return sa.update(table).where(*where)


_QUEUED: State = "queued"
_AS_ASKED = sa.case(
    (table.c.asked == "pause", "paused"), (table.c.asked == "cancel", "cancelled"), else_=_QUEUED
)
"""The state a job falls into when its worker lets go of it."""
