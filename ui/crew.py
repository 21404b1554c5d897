"""Several rows of a batch under way at once, each in a thread of its own.

A row's thread mostly waits: for the engine, which answers all rows together, and for the one
thread that draws (`ui.maker`). So conversations fill the engine while finished prompts are
drawn and measured beside. What is under way is bounded, and with it what can pile up before
the drawing thread: if drawing is slower than talking, fewer rows talk.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from types import TracebackType

from orbweave.worker import Task
from ui.environment import cores

__all__ = ["MAX_AT_ONCE", "Crew", "usual_at_once"]

MAX_AT_ONCE = 256
"""More threads than this gain nothing, whatever answers; chosen by us."""
ROWS_PER_CORE = 8
"""A token of 16 replies costs the engine an eighth of 16 times a token of one (SmolLM2-135M,
bfloat16), and a row has one to three replies under way, or none while it is drawn."""
MEMORY_PER_ROW_GB = 1.0
MOST_BY_ITSELF = 16
"""With up to two replies each these fill the engine in the process, which answers 32 together
(`agents.worker`); more rows would take memory and wait."""
SUSPECT_AFTER = 3
"""A row that was in hand when so many workers died is made alone from then on: if it is the
one that kills them, it takes no other with it. Chosen by us."""


class Crew:
    """The rows under way; a context manager that leaves none behind.

    On leaving with an exception the rows are stopped and waited for; a second Ctrl-C leaves
    at once.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._under_way: dict[threading.Thread, Task] = {}
        self._ended: queue.SimpleQueue[tuple[threading.Thread, BaseException | None]] = (
            queue.SimpleQueue()
        )
        self._is_alone = False

    def __enter__(self) -> Crew:
        """Begin with nobody."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop what is under way and wait until it has stopped."""
        for task in self._under_way.values():
            task.stop()
        for thread in list(self._under_way):
            thread.join()

    def __len__(self) -> int:
        """Return how many rows are under way."""
        return len(self._under_way)

    @property
    def has_room(self) -> bool:
        """Whether another row may begin."""
        return len(self) < self._at_once and not (self._is_alone and self._under_way)

    def begin(self, task: Task, work: Callable[[Task], None]) -> None:
        """Start `work` on a task; waits for the others to end if it should be alone."""
        self._is_alone = task.job.attempts > SUSPECT_AFTER
        while self._is_alone and self._under_way:
            self.wait(None)

        def body() -> None:
            error = None
            try:
                work(task)
            except BaseException as err:
                error = err
            self._ended.put((thread, error))

        thread = threading.Thread(target=body, name=f"row {task.job.id}", daemon=True)
        self._under_way[thread] = task
        thread.start()

    def wait(self, timeout_s: float | None) -> None:
        """Wait until a row has ended, or for so long; raise what ended it, if that was raised."""
        try:
            thread, error = self._ended.get(timeout=timeout_s)
        except queue.Empty:
            return
        del self._under_way[thread]
        if error is not None:
            raise error


def usual_at_once(n_cores: int | None = None, memory_gb: float | None = None) -> int:
    """Return how many rows to have under way where nobody says.

    Eight a core, since a row waits most of its time; one a gigabyte of the machine's memory;
    at most what fills the engine in the process.
    """
    n = n_cores or cores()
    memory = memory_gb or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return max(1, min(MOST_BY_ITSELF, ROWS_PER_CORE * n, int(memory / MEMORY_PER_ROW_GB)))
