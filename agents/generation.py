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
    """Makes tokens of the prompt and the reply less likely, as in transformers; 1 is off."""

    def __post_init__(self) -> None:
        """Raise ValueError for a number outside its range."""
        for name, value, fits in (
            ("temperature", self.temperature, 0.0 <= self.temperature < float("inf")),
            ("top_p", self.top_p, 0.0 < self.top_p <= 1.0),
            ("top_k", self.top_k, self.top_k >= 0),
            ("repetition_penalty", self.repetition_penalty, self.repetition_penalty > 0.0),
        ):
            if not fits:
                raise ValueError(f"{name} lies outside its range, got {value}")


@dataclass(frozen=True)
class Generation:
    """One request for a continuation of a chat."""

    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    max_new_tokens: int = 160
    seed: int = 0
    """The same request with the same seed gives the same text, whatever it is batched with.

    That holds for the in-process engine with the same processor, number of threads and
    version of torch; a server promises what it promises.
    """
    prefix: str = ""
    """Text the assistant's reply must begin with; part of the returned text.

    Should not end in a space: to most tokenizers the space belongs to the next word.
    """
    stop: tuple[str, ...] = ()
    """The reply ends before the first of these that it says after the prefix."""

    def __post_init__(self) -> None:
        """Raise ValueError for a request that asks for nothing."""
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if "" in self.stop:
            raise ValueError("a stop string must not be empty")


class Reply(NamedTuple):
    """A finished generation."""

    text: str
    n_prompt_tokens: int
    """Chat and prefix, in tokens."""
    n_tokens: int
    """Tokens drawn; the one that ended the reply is not counted."""
    seconds: float
    """From the request to the end, waiting included."""
    finish: Literal["stop", "length"]
    """`stop`: the model ended, or said a stop string; `length`: `max_new_tokens` came first."""


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
