"""What an engine is asked and what it answers; the seam every engine stands behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

__all__ = ["Engine", "Generation", "Message", "Reply", "Sampling"]


class Message(NamedTuple):
    """One chat message in the three roles every chat template knows."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn; defaults suit a small model that must stay on topic."""

    temperature: float = 0.3
    """Softmax temperature; 0 is greedy."""
    top_p: float = 0.9
    """Nucleus: smallest set of tokens whose probabilities reach this sum, (0, 1]."""
    top_k: int = 50
    """Tokens kept before the nucleus; 0 keeps all."""
    repetition_penalty: float = 1.1
    """Divides the logits of tokens already seen; 1 is off."""


@dataclass(frozen=True)
class Generation:
    """One request for a continuation of a chat."""

    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    max_new_tokens: int = 160
    seed: int = 0
    """The same request with the same seed gives the same text, whatever it is batched with."""
    prefix: str = ""
    """Text the assistant's reply must begin with; part of the returned text."""
    stop: tuple[str, ...] = ()
    """The reply ends before the first of these."""


class Reply(NamedTuple):
    """A finished generation."""

    text: str
    n_prompt_tokens: int
    n_tokens: int
    seconds: float
    finish: Literal["stop", "length"]


class Engine(Protocol):
    """A model that can talk. Cancelling the awaiting task stops the computation within a token."""

    @property
    def model(self) -> str:
        """The model reference, as records show it."""
        ...

    async def generate(self, request: Generation) -> Reply:
        """Return the whole reply.

        Raises:
            EngineError: the prompt does not fit the context, or the model failed.
        """
        ...

    def stream(self, request: Generation) -> AsyncIterator[str | Reply]:
        """Yield pieces of text as they come and, last, the `Reply`."""
        ...

    async def logprobs(self, messages: Sequence[Message], options: Sequence[str]) -> list[float]:
        """Return log p(option | chat), summed over the option's tokens, one per option."""
        ...

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Return the length in tokens of the chat as the template writes it."""
        ...

    @property
    def context_tokens(self) -> int:
        """Tokens the model can hold, prompt and reply together."""
        ...

    async def close(self) -> None:
        """Free the model; later calls raise EngineError."""
        ...
