"""What a command does, kept in the store while it does it, so that `orbweave jobs` shows it.

    with logged("merge", "silk into base", out) as entry:
        merge(recipe, out, on_progress=entry.note)

The store is a notebook here: one that cannot be written is told of once, and the work goes on.
To cancel the job is to press Ctrl-C at its terminal.
"""

from __future__ import annotations

import logging
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from orbweave.errors import Cancelled
from orbweave.job import Kind, NewJob
from orbweave.jobs import open_jobs
from orbweave.store import StoreError
from orbweave.worker import Task, Worker

__all__ = ["Entry", "logged"]

logger = logging.getLogger(__name__)

WAIT_S = 3.0
"""How long a command waits for a locked store before it goes on without."""


class Entry:
    """The job of a command that is under way; what it is told costs next to nothing."""

    def __init__(self, task: Task | None) -> None:
        self._task = task
        self.result: dict[str, Any] = {}
        """What the store keeps once the work is done, as JSON."""

    def report(self, done: int, total: int, note: str = "") -> None:
        """Say how far the work is; a total of 0 where nobody knows."""
        if self._task is not None:
            self._task.report(done, total, note)

    def note(self, text: str) -> None:
        """Say what is being done."""
        self.report(0, 0, text)

    def _end(self, how: Callable[[Task], bool]) -> None:
        if self._task is None:
            return
        try:
            how(self._task)
        except StoreError as err:
            logger.warning("the end of this run is not in the list of jobs: %s", err)


@contextmanager
def logged(kind: Kind, label: str, out: Path | None) -> Iterator[Entry]:
    """Keep a job in the store for as long as the block runs, and how it ended.

    Args:
        kind: What is done.
        label: What a person calls it.
        out: What is made; the same file or folder is the same job. None: nothing is.
    """
    key = None if out is None else str(out.absolute())
    command = shlex.join(["orbweave", *sys.argv[1:]])
    new = NewJob(kind, label, {"command": command}, key=key, profile=kind)
    with ExitStack() as stack:
        entry = Entry(_begun(new, stack))
        try:
            yield entry
        except (KeyboardInterrupt, Cancelled):
            entry._end(Task.cancel)
            raise
        except BaseException as err:
            error = str(err) or type(err).__name__
            entry._end(lambda task: task.fail(error))
            raise
        entry._end(lambda task: task.finish(entry.result))


def _begun(new: NewJob, stack: ExitStack) -> Task | None:
    """Put the job in; None, and a warning, if that cannot be."""
    try:
        jobs = open_jobs(wait_s=WAIT_S)
        stack.callback(jobs.store.close)
        if new.kind == "design" and new.key is not None:
            jobs.store.remember_folder(Path(new.key))
        worker = Worker(jobs, is_own=True, on_cancel=_press_ctrl_c)
        task = stack.enter_context(worker).begin(new)
    except (StoreError, OSError) as err:
        logger.warning("this run is not in the list of jobs: %s", err)
        return None
    if task is None:
        logger.warning("another process is at %s; this run is not in the list of jobs", new.key)
    return task


def _press_ctrl_c() -> None:
    """Interrupt the main thread, whatever it waits for; commands know how to end then.

    A shell has what it starts in the background ignore Ctrl-C; SIGTERM means the same to us.
    """
    main = threading.main_thread().ident
    heard = [s for s in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(s))]
    if main is not None and heard:
        signal.pthread_kill(main, heard[0])
