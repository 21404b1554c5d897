"""How the store of jobs hears how far the work is, beside whoever shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec

if TYPE_CHECKING:
    from agents.events import Event

__all__ = ["Report", "both", "told_to"]

P = ParamSpec("P")
Report = Callable[[int, int, str], None]
"""Is told (done, total, note); a total of 0 where nobody knows."""


def told_to(report: Report) -> Callable[[Event], None]:
    """Return a listener that reports who speaks and how far the drawing is."""
    from agents.events import RenderStep, TurnStarted  # a merge needs no team

    def on_event(event: Event) -> None:
        if isinstance(event, TurnStarted):
            report(0, 0, f"{event.speaker.replace('_', ' ')} speaks")
        elif isinstance(event, RenderStep):
            report(event.step, event.total, "drawing")

    return on_event


def both(first: Callable[P, object], second: Callable[P, object]) -> Callable[P, None]:
    """Return a callback that calls one and then the other."""

    def call(*args: P.args, **named: P.kwargs) -> None:
        first(*args, **named)
        second(*args, **named)

    return call
