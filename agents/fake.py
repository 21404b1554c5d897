r"""Models that cost nothing: queued replies and hashed words, for tests and examples.

    engine = FakeEngine(["Take the spiral.", "Title: Web\nPrompt: Lines.\nAvoid: text"])
    reply = await engine.generate(Generation(messages=(Message("user", "Go"),)))

Nothing here is random and nothing is loaded, so a whole conversation takes milliseconds.
"""

from __future__ import annotations

import asyncio
import math
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from agents.generation import Generation, Message, Reply
from orbweave.errors import EngineError

__all__ = ["FakeEngine", "hashed_words"]


class FakeEngine:
    """An `Engine` that answers from a queue, or by a function of the request.

    Args:
        replies: Texts given out in order; or a function from the request to its text,
            which suits parallel speakers, whose order nobody promises.
        model: The reference shown in records.
        favourite: Index of the option `logprobs` prefers, counted from the last one
            if negative; the preferred option gets probability 0.8.
        delay_s: Seconds between two words of a stream, to test cancelling.
    """

    def __init__(
        self,
        replies: Iterable[str] | Callable[[Generation], str] = (),
        *,
        model: str = "fake",
        favourite: int = 3,
        delay_s: float = 0.0,
    ) -> None:
        self._answer = replies if callable(replies) else None
        self._queue = [] if callable(replies) else list(replies)
        self._model = model
        self._favourite = favourite
        self._delay_s = delay_s
        self.requests: list[Generation] = []
        """Every request so far, in the order they came."""
        self.words_given = 0
        """Words streamed so far over all requests; stands still once cancelled."""
        self.closed = False

    @property
    def model(self) -> str:
        """The reference shown in records."""
        return self._model

    @property
    def context_tokens(self) -> int:
        """A small model's usual 8,192."""
        return 8_192

    async def generate(self, request: Generation) -> Reply:
        """Return the next queued reply.

        Raises:
            EngineError: the queue is empty, or the engine was closed.
        """
        reply: Reply | None = None
        async for piece in self.stream(request):
            if isinstance(piece, Reply):
                reply = piece
        assert reply is not None  # our own stream always ends with one
        return reply

    async def stream(self, request: Generation) -> AsyncIterator[str | Reply]:
        """Yield the reply word by word and, last, the `Reply`.

        Raises:
            EngineError: the queue is empty, or the engine was closed.
        """
        text = self._next(request)
        pieces = text.splitlines(keepends=True)
        words = [word for line in pieces for word in line.split(" ") if word]
        for n, word in enumerate(words):
            await asyncio.sleep(self._delay_s)
            self.words_given += 1
            yield word if n == 0 or words[n - 1].endswith("\n") else f" {word}"
        yield Reply(text, self.count_tokens(request.messages), len(words), 0.0, "stop")

    async def logprobs(self, messages: Sequence[Message], options: Sequence[str]) -> list[float]:
        """Return log 0.8 for the favourite and the rest shared evenly among the others."""
        self._refuse_closed()
        if len(options) == 1:
            return [0.0]
        favourite = self._favourite % len(options)
        rest = 0.2 / (len(options) - 1)
        return [math.log(0.8 if i == favourite else rest) for i in range(len(options))]

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Return the number of words plus four per message, about what a template adds."""
        return sum(len(message.content.split()) + 4 for message in messages)

    async def close(self) -> None:
        """Refuse all later calls."""
        self.closed = True

    def _next(self, request: Generation) -> str:
        self._refuse_closed()
        self.requests.append(request)
        if self._answer is not None:
            text = self._answer(request)
        elif self._queue:
            text = self._queue.pop(0)
        else:
            raise EngineError(
                f"wanted a queued reply for request {len(self.requests)}, got an empty queue; "
                "give the fake engine more replies, or a function"
            )
        if not text.startswith(request.prefix):
            text = request.prefix + text
        ends = [text.find(stop, len(request.prefix)) for stop in request.stop]
        return text[: min((end for end in ends if end >= 0), default=len(text))]

    def _refuse_closed(self) -> None:
        if self.closed:
            raise EngineError(f"wanted an answer from {self._model!r}, which is closed; load it")


def hashed_words(texts: Sequence[str]) -> NDArray[np.float32]:
    """Embed texts by hashing their words; a stand-in for a sentence model.

    Returns:
        Shape (len(texts), 256), rows of unit length; an empty text is a zero row.
        Similarity is the share of words (cut to six letters) that two texts have in common.
    """
    vectors = np.zeros((len(texts), 256), dtype=np.float32)
    for row, text in zip(vectors, texts, strict=True):
        for word in text.lower().split():
            stem = "".join(c for c in word if c.isalnum())[:6]
            if len(stem) > 2:
                row[zlib.crc32(stem.encode()) % 256] += 1.0
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = vectors / np.maximum(norms, 1e-9)
    return unit
