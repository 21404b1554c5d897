"""A teacher that costs nothing: replies from a queue or a function, for tests and examples.

teacher = QueuedTeacher(['[{"question": "How strong?", "answer": "About 1 GPa."}]'])
    distill(corpus, teacher, out, ["qa"])

Every request is kept, so that a test can see what was asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from orbweave.errors import EngineError
from training.rows import Turn

__all__ = ["QueuedTeacher"]


class QueuedTeacher:
    """A `training.teacher.Teacher` that says what it was given to say.

    Args:
        replies: Texts given out in order; or a function of (messages, seed), which suits
            several workers, whose order nobody promises. An exception among the texts is raised.
        name: The reference shown in rows.
    """

    def __init__(
        self,
        replies: Iterable[str | Exception] | Callable[[Sequence[Turn], int], str] = (),
        *,
        name: str = "fake",
    ) -> None:
        self._answer = replies if callable(replies) else None
        self._queue = [] if callable(replies) else list(replies)
        self._name = name
        self._turn = threading.Lock()
        self.requests: list[tuple[tuple[Turn, ...], int]] = []
        """(messages, seed) of every request so far, in the order they came."""

    @property
    def name(self) -> str:
        """The reference shown in rows."""
        return self._name

    def __call__(self, messages: Sequence[Turn], seed: int) -> str:
        """Return the next reply.

        Raises:
            EngineError: the queue is empty.
        """
        with self._turn:
            self.requests.append((tuple(messages), seed))
            if self._answer is not None:
                return self._answer(messages, seed)
            if not self._queue:
                raise EngineError(
                    f"wanted a queued reply for request {len(self.requests)}, got an empty "
                    "queue; give the fake teacher more replies, or a function"
                )
            reply = self._queue.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply
