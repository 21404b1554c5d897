"""What a command does, kept in the store while it does it, so that `orbweave jobs` shows it.

    with logged("merge", "silk into base", out) as entry:
        merge(recipe, out, on_progress=entry.note)

The store is a notebook here, kept by a thread of its own: the work neither waits until it is open
nor ends because it cannot be written, which is told of once. To cancel the job is to press Ctrl-C
at its terminal.
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
from typing import TYPE_CHECKING, Any

from orbweave.errors import Cancelled, OrbweaveError
from orbweave.job import Kind, NewJob

if TYPE_CHECKING:
    from orbweave.worker import Task

__all__ = ["Entry", "logged"]

logger = logging.getLogger(__name__)

WAIT_S = 3.0
"""How long a store that is locked or away is waited for, at each step, beside the work."""


class Entry:
    """The job of a command that is under way; what it is told costs next to nothing."""

    def __init__(self, new: NewJob) -> None:
        self._new = new
        self._task: Task | None = None
        self._told: tuple[int, int, str] | None = None
        self._telling = threading.Lock()
        self._end: Callable[[Task], object] = lambda task: None
        self._is_over = threading.Event()
        self.result: dict[str, Any] = {}
        """What the store keeps once the work is done, as JSON."""
        self._keeper = threading.Thread(target=self._keep, name="orbweave-logbook", daemon=True)
        self._keeper.start()

    def report(self, done: int, total: int, note: str = "") -> None:
        """Say how far the work is; a total of 0 where nobody knows."""
        with self._telling:
            self._told = (done, total, note)
            if self._task is not None:
                self._task.report(*self._told)

    def note(self, text: str) -> None:
        """Say what is being done."""
        self.report(0, 0, text)

    def _close(self, end: Callable[[Task], object]) -> None:
        """Have it written down how the work ended."""
        self._end = end
        self._is_over.set()
        self._keeper.join()

    def _keep(self) -> None:
        """Put the job in, wait until the work is over, and write down how it ended."""
        with ExitStack() as stack:
            task = _begun(self._new, stack)
            if task is None:
                return
            with self._telling:
                self._task = task
                if self._told is not None:
                    task.report(*self._told)
            self._is_over.wait()
            try:
                self._end(task)
            except OrbweaveError as err:
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
    entry = Entry(NewJob(kind, label, {"command": command}, key=key, profile=kind))
    try:
        yield entry
    except (KeyboardInterrupt, Cancelled):
        entry._close(lambda task: task.cancel())
        raise
    except BaseException as err:
        error = str(err) or type(err).__name__
        entry._close(lambda task: task.fail(error))
        raise
    entry._close(lambda task: task.finish(entry.result))


def _begun(new: NewJob, stack: ExitStack) -> Task | None:
    """Put the job in; None, and a warning, if that cannot be."""
    # Here, in the thread that wants it: SQLAlchemy takes a fifth of a second.
    from orbweave.jobs import open_jobs
    from orbweave.worker import Worker

    try:
        jobs = open_jobs(wait_s=WAIT_S)
        stack.callback(jobs.store.close)
        if new.kind == "design" and new.key is not None:
            jobs.store.remember_folder(Path(new.key))
        worker = Worker(jobs, is_own=True, on_cancel=_press_ctrl_c)
        task = stack.enter_context(worker).begin(new)
    except (OrbweaveError, OSError) as err:
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
