"""A conversation as it was heard: recorded event by event, played back without any model.

    with Recorder(folder / RECORDING_FILE) as record:
        await converse(..., on_event=record)
    await replay(read_recording(folder / RECORDING_FILE), view.on_event, speed=1.0)

A recording holds every piece of text with its time, restarts and repeated turns included. What a
conversation has come to, without the way there, is in its state; `events_of` tells that.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from agents.events import (
    Critiqued,
    Event,
    FactsFound,
    Prompted,
    Rendered,
    Spoke,
    Stopped,
    TurnEnded,
    TurnStarted,
    event_from_json,
    event_to_json,
)
from agents.state import CritiqueStep, FactsStep, PicturesStep, PromptStep, State, Step
from orbweave.errors import OutputError, UsageError, shown

__all__ = ["RECORDING_FILE", "Moment", "Recorder", "events_of", "read_recording", "replay"]

_log = logging.getLogger(__name__)

RECORDING_FILE = "recording.jsonl"
"""Its name in the folder of a design."""


class Moment(NamedTuple):
    """One event and when it happened."""

    at_s: float
    """Seconds since the recording began; time in which nobody recorded does not count."""
    event: Event


class Recorder:
    """Writes each event it is called with as a line of JSON; goes on where a file ends."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Open the file.

        Raises:
            OutputError: it cannot be written.
            UsageError: it holds something that is no recording.
        """
        self._path, self._clock = path, clock
        earlier = read_recording(path) if path.exists() else []
        self._begun = clock() - (earlier[-1].at_s if earlier else 0.0)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
            self._end_line()
        except OSError as err:
            raise self._refused(err) from err

    def __call__(self, event: Event) -> None:
        """Write one event; it is on its way to the disk when this returns."""
        line = {"at_s": round(self._clock() - self._begun, 3), **event_to_json(event)}
        try:
            self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            self._file.flush()
        except OSError as err:
            raise self._refused(err) from err

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def _end_line(self) -> None:
        """End a line that a killed process left half written; readers leave it out."""
        if self._file.tell():
            self._file.seek(-1, 2)
            if self._file.read(1) != b"\n":
                self._file.write(b"\n")

    def _refused(self, err: OSError) -> OutputError:
        return OutputError(
            f"wanted to record into {self._path}, the system said {shown(err.strerror or err)}; "
            "free some space or choose another place"
        )


def read_recording(path: Path) -> list[Moment]:
    """Return the moments of a recording, in order; broken lines are left out and logged.

    Raises:
        UsageError: the file cannot be read, or has lines and none of them is a moment.
    """
    try:
        # Not splitlines: JSON may hold U+2028 and U+0085 as they are.
        text = path.read_text("utf-8", errors="replace")
        lines = [line for line in text.split("\n") if line]
    except OSError as err:
        raise UsageError(
            f"wanted a recording, got {shown(path)}: {err.strerror or err}; give a "
            f"{RECORDING_FILE} of a design"
        ) from err
    moments = [moment for line in lines if (moment := _moment(line)) is not None]
    if lines and not moments:
        raise UsageError(f"wanted a recording, {shown(path)} holds none; give a {RECORDING_FILE}")
    if len(moments) < len(lines):
        _log.warning("%s: %d broken lines are left out", path, len(lines) - len(moments))
    return moments


async def replay(
    moments: Sequence[Moment],
    on_event: Callable[[Event], None],
    *,
    speed: float | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Tell a recording's events in their order; no model is loaded.

    Args:
        moments: What to tell.
        on_event: Hears it.
        speed: 1 is as it was recorded, 2 twice as fast; None is at once.
        sleep: Waits so many seconds.

    Raises:
        UsageError: the speed is not positive.
    """
    if speed is not None and not speed > 0:
        raise UsageError(f"wanted a positive speed, got {speed}; 1 is as recorded")
    now_s = 0.0
    for at_s, event in moments:
        if speed is not None and at_s > now_s:
            await sleep((at_s - now_s) / speed)
            now_s = at_s
        on_event(event)


def events_of(state: State, since: int = 0) -> Iterator[Event]:
    """Yield what a view must hear to show a conversation as it stands, each turn in one piece.

    Args:
        state: A saved conversation.
        since: Steps that the view has heard already.
    """
    version = sum(isinstance(step, PromptStep) for step in state.steps[:since])
    for step in state.steps[since:]:
        yield from _events(step, version)
        version += isinstance(step, PromptStep)
    if state.outcome == "finished":
        yield Stopped(state.stop_reason)


def _events(step: Step, version: int) -> Iterable[Event]:
    if isinstance(step, FactsStep):
        yield FactsFound(step.domains, step.citations, step.note)
        return
    if isinstance(step, PicturesStep):
        yield Rendered(step.version, step.pictures, step.measurements)
        return
    turn = step.turn
    yield TurnStarted(turn.index, turn.speaker, turn.role, turn.model)
    yield Spoke(turn.index, turn.text)
    yield TurnEnded(turn)
    if isinstance(step, PromptStep):
        yield Prompted(version, step.prompt)
    elif isinstance(step, CritiqueStep):
        yield Critiqued(step.critique)


def _moment(line: str) -> Moment | None:
    try:
        data = json.loads(line)
        return Moment(float(data.pop("at_s")), event_from_json(data))
    except (ValueError, KeyError, TypeError, AttributeError, UsageError):
        return None
