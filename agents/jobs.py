"""What the engine's thread works on: replies under way and questions for probabilities."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Literal

from torch import Tensor

from agents.decoder import Decoder, KeyValues
from agents.generation import Reply
from agents.reply_text import ReplyText
from agents.sampler import Sampler
from orbweave.errors import EngineError

__all__ = ["Emit", "Scoring", "Speech"]

Emit = Callable[[str | Reply | EngineError], object]
"""Takes pieces of text, and last the reply or an error; called on the engine's thread."""


class Speech:
    """One reply under way."""

    def __init__(
        self,
        prompt: list[int],
        max_new_tokens: int,
        sampler: Sampler,
        text: ReplyText,
        ends: frozenset[int],
        emit: Emit,
        adapter: str = "",
    ) -> None:
        self._prompt, self._adapter = prompt, adapter
        self._limit, self._ends = max_new_tokens, ends
        self._sampler, self._text, self._emit_to = sampler, text, emit
        self._started = time.perf_counter()
        self.sequence = KeyValues(0)
        """Prompt and reply, once it has begun."""
        self.last_token = 0
        self.ended = False
        """Set when the reply is complete or failed, and by whoever no longer wants it."""

    def begin(self, decoder: Decoder) -> None:
        """Read the prompt and make the first token."""
        read = decoder.recall(self._prompt, lambda: self.ended, self._adapter)
        if read is not None:
            self.sequence = read.sequence.copy(len(self._prompt) + self._limit)
            self.take(read.logits)

    def take(self, logits: Tensor) -> None:
        """Draw the next token from its logits and tell what it means."""
        self.last_token = self._sampler.draw(logits)
        at_end = self.last_token in self._ends
        if not at_end:
            self._emit(self._text.add(self.last_token))
        if at_end or self._text.stopped:
            self._finish("stop")
        elif self._text.n_tokens >= self._limit:
            self._finish("length")

    def fail(self, error: EngineError) -> None:
        """End with an error."""
        self._emit(error)
        self.ended = True

    def _finish(self, how: Literal["stop", "length"]) -> None:
        self._emit(self._text.finish())
        seconds = time.perf_counter() - self._started
        self._emit(Reply(self._text.text, len(self._prompt), self._text.n_tokens, seconds, how))
        self.ended = True

    def _emit(self, answer: str | Reply | EngineError) -> None:
        if answer == "" or self.ended:
            return
        try:
            self._emit_to(answer)
        except RuntimeError:  # the listener's event loop is gone, and so is the listener
            self.ended = True


class Scoring:
    """One question for log-probabilities."""

    def __init__(self, prompt: list[int], options: list[list[int]], adapter: str = "") -> None:
        self.prompt, self.options, self.adapter = prompt, options, adapter
        self.answer: Future[list[float]] = Future()

    def succeed(self, logprobs: list[float]) -> None:
        """Give the answer."""
        with suppress(InvalidStateError):  # cancelled meanwhile
            self.answer.set_result(logprobs)

    def fail(self, error: EngineError) -> None:
        """End with an error."""
        with suppress(InvalidStateError):
            self.answer.set_exception(error)
