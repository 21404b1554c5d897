"""One piece of work and its states.

    queued -> running -> done | failed
      ^  |       |
      |  v       v
      paused   cancelled

A job of kind `batch` is never run itself: its state follows from the jobs under it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

__all__ = ["KINDS", "STATES", "Event", "Job", "Kind", "NewJob", "State", "state_of_batch"]

Kind = Literal["train", "merge", "evaluate", "converse", "design", "render", "batch", "batch-row"]
KINDS: tuple[Kind, ...] = (
    "train", "merge", "evaluate", "converse", "design", "render", "batch", "batch-row"
)  # fmt: skip
State = Literal["queued", "running", "paused", "done", "failed", "cancelled"]
STATES: tuple[State, ...] = ("queued", "running", "paused", "done", "failed", "cancelled")
_LIVELIEST: tuple[State, ...] = ("running", "queued", "paused", "failed", "cancelled", "done")


@dataclass(frozen=True)
class NewJob:
    """A job to be put into the store."""

    kind: Kind
    label: str
    """What a person calls it."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Everything a worker needs, as JSON."""
    key: str | None = None
    """Absolute path of what it makes; putting it in twice gives one job."""
    profile: str = ""
    """What decides how long it takes, in words; past jobs of the same profile tell."""
    priority: int = 0
    """The smallest first."""


@dataclass(frozen=True)
class Job:
    """A job as it stood when it was read."""

    id: int
    parent: int | None
    """The batch it belongs to."""
    kind: Kind
    state: State
    label: str
    key: str | None
    profile: str
    priority: int
    position: float
    """Order among equal priorities, the smallest first."""
    attempts: int
    """How often a worker took it up, but for those that gave it back politely."""
    asked: Literal["pause", "cancel"] | None
    """What the worker of a running job was asked to do."""
    worker: str | None
    lease_until: float | None
    """When the job goes to somebody else unless the worker says that it lives; seconds
    since 1970, as all times here."""
    created: float
    started: float | None
    finished: float | None
    seconds: float | None
    """Time the work took."""
    parameters: dict[str, Any]
    result: dict[str, Any] | None
    error: str


class Event(NamedTuple):
    """How far a job was at some time."""

    id: int
    job: int
    at: float
    done: int
    total: int
    """0 where nobody knows."""
    eta_s: float | None
    """Seconds left by the pace so far; None where nobody knows."""
    note: str


def state_of_batch(tally: Mapping[State, int]) -> State:
    """Return the state of a batch from how many of its jobs are in each; empty is queued."""
    return next((state for state in _LIVELIEST if tally.get(state)), "queued")
