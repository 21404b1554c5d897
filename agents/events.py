"""What happens while a team works, in the order it happens; views draw it, records keep it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from orbweave.errors import UsageError, shown
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
    "event_from_json",
    "event_to_json",
]


@dataclass(frozen=True)
class FactsFound:
    """Retrieval chose the experts (`domains`) and the facts each is given."""

    domains: tuple[str, ...]
    facts: tuple[Citation, ...]
    note: str = ""
    """What to know of how the concept was understood."""


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


def event_to_json(event: Event) -> dict[str, Any]:
    """Return an event as JSON values: its fields, and `kind`, its name."""
    fields: dict[str, Any] = _adapters()[type(event).__name__].dump_python(event, mode="json")
    return {"kind": type(event).__name__, **fields}


def event_from_json(data: Mapping[str, Any]) -> Event:
    """Return the event that `event_to_json` wrote.

    Raises:
        UsageError: it is none.
    """
    fields = {name: value for name, value in data.items() if name != "kind"}
    adapter = _adapters().get(str(data.get("kind")))
    if adapter is None:
        raise UsageError(f"wanted an event, got {shown(dict(data))}; use a recording of Orbweave's")
    try:
        event: Event = adapter.validate_python(fields)
    except ValidationError as err:
        raise UsageError(f"wanted an event, got {shown(dict(data))}; {err}") from err
    return event


@cache
def _adapters() -> dict[str, TypeAdapter[Any]]:
    return {kind.__name__: TypeAdapter(kind) for kind in get_args(Event)}
