"""How one speaker reaches a model during one turn; the roles know nothing else of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agents.generation import Message, Reply, Sampling

__all__ = ["Job", "Voice"]


@dataclass(frozen=True)
class Job:
    """One small thing a model is asked for: a chat, and how its reply begins and ends."""

    messages: tuple[Message, ...]
    max_new_tokens: int
    """Bound of the reply in tokens, beyond the prefix."""
    seed: int = 0
    prefix: str = ""
    """Text the reply must begin with; part of what comes back."""
    heard: str = ""
    """Beginning of the prefix that listeners have heard already."""
    stop: tuple[str, ...] = ()
    """The reply ends before the first of these."""
    sampling: Sampling = Sampling()


class Voice(Protocol):
    """A model lent to one speaker for one turn; it counts tokens and lets listeners hear."""

    @property
    def n_tokens(self) -> int:
        """Tokens the model has written so far, discarded attempts included."""
        ...

    async def say(self, job: Job) -> Reply:
        """Return the model's reply; its pieces are heard as they come.

        Raises:
            EngineError: the chat does not fit the model, or the model failed.
        """
        ...

    async def weigh(self, messages: Sequence[Message], options: Sequence[str]) -> list[float]:
        """Return log p(option | chat), one per option; nothing is heard."""
        ...

    def remark(self, text: str) -> None:
        """Let listeners hear a sentence of the frame's own, not the model's."""
        ...
