"""One process that works on jobs: takes them, shows that it lives, and hears what is asked.

    with Worker(jobs) as worker:
        while task := worker.take(batch=batch):
            task.finish(work(task.job.parameters, cancelled=task.cancelled))

It may hold several at once; one thread takes them, any may end them.

Beside a SQLite file every worker locks a file of its own; the system frees the lock when the
process ends, however it ends, so that a killed worker's jobs return at once. With PostgreSQL
they return when their lease runs out.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from orbweave.job import Job, Kind, NewJob
from orbweave.jobs import Jobs
from orbweave.leases import LEASE_S, OWN, Leases, Wish
from orbweave.store import StoreError

__all__ = ["Task", "Worker", "reap_dead"]

logger = logging.getLogger(__name__)

BEATS_PER_LEASE = 12
"""So a lease outlives a few renewals that find the store locked."""


class Worker:
    """Takes jobs in the name of this process; a context manager."""

    def __init__(
        self,
        jobs: Jobs,
        *,
        lease_s: float = LEASE_S,
        is_own: bool = False,
        on_cancel: Callable[[], None] = lambda: None,
    ) -> None:
        """Take nothing yet.

        Args:
            jobs: The store.
            lease_s: How long a job stays here without a sign of life.
            is_own: Whether it does a job of its own (`begin`) instead of queued ones (`take`).
            on_cancel: Called in another thread when somebody asks to cancel a job in hand;
                `Task.cancelled` says the same to whoever asks.
        """
        process = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.name = OWN + process if is_own else process
        self._jobs = jobs
        self._leases = Leases(jobs.store, lease_s=lease_s)
        self._beat_s = lease_s / BEATS_PER_LEASE
        self._folder = _lock_folder(jobs.store.file)
        self._lock: FileLock | None = None
        self._tasks: dict[int, Task] = {}
        self._on_cancel = on_cancel
        self._has_warned = False
        self._stop = threading.Event()
        self._pulse = threading.Thread(target=self._beat, name="orbweave-pulse", daemon=True)

    def __enter__(self) -> Worker:
        """Begin to show that the process lives."""
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self._folder / self.name, timeout=0)
            self._lock.acquire()
        self._pulse.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give back what is still in hand and end."""
        try:
            for task in list(self._tasks.values()):
                task.release()
        finally:
            self._stop.set()
            self._pulse.join()
            if self._lock is not None:
                self._lock.release()
                Path(self._lock.lock_file).unlink(missing_ok=True)

    def take(self, *, batch: int | None = None, kinds: Collection[Kind] = ()) -> Task | None:
        """Take the next queued job, None if there is none.

        Jobs of dead workers are put back into the queue first.
        """
        reap_dead(self._leases, but=self.name)
        return self._in_hand(self._leases.claim(self.name, batch=batch, kinds=kinds))

    def begin(self, new: NewJob) -> Task | None:
        """Put a job in and take it at once; None if another process is at it.

        It never waits in the queue: should this process die, the job has failed.
        """
        if not self.name.startswith(OWN):
            raise ValueError("wanted a worker of its own for a job that is not queued")
        reap_dead(self._leases, but=self.name)
        return self._in_hand(self._jobs.begin(new, self.name, self._leases.lease_s))

    def _in_hand(self, job: Job | None) -> Task | None:
        # Ours already: its lease ran out while this process slept, and its thread still works.
        if job is None or job.id in self._tasks:
            return None
        self._tasks[job.id] = Task(job, self)
        return self._tasks[job.id]

    def _beat(self) -> None:
        """Until stopped: renew the leases and hand on what was reported."""
        while not self._stop.wait(self._beat_s):
            for task in list(self._tasks.values()):
                try:
                    self._renew(task)
                except StoreError as err:
                    level = logging.DEBUG if self._has_warned else logging.WARNING
                    self._has_warned = True
                    logger.log(level, "could not renew the lease of job %d: %s", task.job.id, err)

    def _renew(self, task: Task) -> None:
        before, task.wish = task.wish, self._leases.renew(task.job.id, self.name)
        task.hand_on(self._jobs)
        if task.wish == "cancel" != before and task.job.id in self._tasks:
            self._on_cancel()

    def _let_go(self, task: Task) -> Leases:
        held = self._tasks.pop(task.job.id, None)
        assert held is task, "a task ends once"
        return self._leases


class Task:
    """A job in hand; ends by `finish`, `fail`, `cancel` or `release`."""

    def __init__(self, job: Job, worker: Worker) -> None:
        self.job = job
        self.wish: Wish = "go on"
        """What was last heard when the lease was renewed."""
        self._worker = worker
        self._begun = time.monotonic()
        self._told: tuple[int, int, str] | None = None
        self._stops = False

    @property
    def seconds(self) -> float:
        """Time since the job was taken."""
        return round(time.monotonic() - self._begun, 3)

    def cancelled(self) -> bool:
        """Whether the work shall stop: somebody asked, or the job is in other hands."""
        return self._stops or self.wish != "go on"

    def stop(self) -> None:
        """Have `cancelled` say so from now on, because this process wants to end."""
        self._stops = True

    def report(self, done: int, total: int, note: str = "") -> None:
        """Say how far the work is; costs nothing, the pulse writes it down."""
        self._told = (done, total, note)

    def finish(self, result: dict[str, Any], seconds: float | None = None) -> bool:
        """Keep the result; False if the job is in other hands by now.

        Args:
            result: As JSON.
            seconds: What the work took; default: the time since the job was taken.
        """
        leases = self._worker._let_go(self)
        spent = self.seconds if seconds is None else seconds
        return leases.finish(self.job.id, self._worker.name, result, spent)

    def fail(self, error: str) -> bool:
        """Keep why it failed; False if the job is in other hands by now."""
        leases = self._worker._let_go(self)
        return leases.fail(self.job.id, self._worker.name, error, self.seconds)

    def cancel(self) -> bool:
        """Keep that it was given up; False if the job is in other hands by now."""
        leases = self._worker._let_go(self)
        return leases.cancel(self.job.id, self._worker.name)

    def release(self) -> bool:
        """Give it back unfinished; False if the job is in other hands by now."""
        leases = self._worker._let_go(self)
        return leases.release(self.job.id, self._worker.name)

    def hand_on(self, jobs: Jobs) -> None:
        """Write down the latest report, if there is a new one."""
        told, self._told = self._told, None
        if told is not None:
            done, total, note = told
            eta_s = self.seconds * (total - done) / done if done and total else None
            jobs.tell(self.job.id, done, total, eta_s, note)


def reap_dead(leases: Leases, *, but: str = "") -> None:
    """Put the jobs of dead workers, other than `but`, where they belong."""
    folder = _lock_folder(leases.store.file)
    others = [name for name in leases.workers() if name != but]
    if others:
        leases.reap([name for name in others if folder is not None and _is_dead(folder / name)])


def _is_dead(lock: Path) -> bool:
    """Whether nobody holds a worker's lock."""
    if not lock.exists():
        return True
    try:
        with FileLock(lock, timeout=0):
            lock.unlink(missing_ok=True)
    except Timeout:
        return False
    return True


def _lock_folder(file: Path | None) -> Path | None:
    return None if file is None else file.with_name(f"{file.name}.workers")
