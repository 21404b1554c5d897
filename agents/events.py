"""What happens while a team works, in the order it happens; views draw it, records keep it."""

from __future__ import annotations

from dataclasses import dataclass

from orbweave.records import Citation, Critique, ImagePrompt, Measurement, Picture, Turn

__all__ = [
    "Critiqued",
    "Event",
    "FactsFound",
    "Prompted",
    "Rendered",
    "RenderStep",
    "Spoke",
    "Stopped",
    "TurnEnded",
    "TurnStarted",
]


@dataclass(frozen=True)
class FactsFound:
    """Retrieval chose the experts (`domains`) and the facts each is given."""

    domains: tuple[str, ...]
    facts: tuple[Citation, ...]


@dataclass(frozen=True)
class TurnStarted:
    """A speaker begins; several experts may speak at once, told apart by `index`."""

    index: int
    speaker: str
    role: str
    model: str


@dataclass(frozen=True)
class Spoke:
    """A piece of text of the turn `index`."""

    index: int
    text: str


@dataclass(frozen=True)
class TurnEnded:
    """The finished turn as the record keeps it."""

    turn: Turn


@dataclass(frozen=True)
class Prompted:
    """The engineer's prompt, version `version`, counted from 0."""

    version: int
    prompt: ImagePrompt


@dataclass(frozen=True)
class RenderStep:
    """Denoising progress over all pictures of one version."""

    step: int
    total: int


@dataclass(frozen=True)
class Rendered:
    """Pictures of one version with what they measure."""

    version: int
    pictures: tuple[Picture, ...]
    measurements: tuple[Measurement, ...]


@dataclass(frozen=True)
class Critiqued:
    """The critic's judgement of one version."""

    critique: Critique


@dataclass(frozen=True)
class Stopped:
    """The conversation is over, and why."""

    reason: str


Event = (
    FactsFound
    | TurnStarted
    | Spoke
    | TurnEnded
    | Prompted
    | RenderStep
    | Rendered
    | Critiqued
    | Stopped
)
