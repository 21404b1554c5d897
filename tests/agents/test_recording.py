"""Recordings: the same events in the same order, at their pace, without any model."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from agents.events import Spoke, Stopped, TurnEnded, event_from_json, event_to_json
from agents.recording import Moment, Recorder, events_of, read_recording, replay
from orbweave.errors import UsageError


async def test_a_recording_plays_back_every_event_in_its_order(table, tmp_path):
    with Recorder(tmp_path / "r.jsonl") as record:
        await table.resume(table.begin(), on_event=record)
    heard: list[object] = []
    await replay(read_recording(tmp_path / "r.jsonl"), heard.append)
    assert heard == table.heard
    assert len(heard) > 100


async def test_it_plays_at_the_recorded_pace_or_another():
    moments = [Moment(1.0, Spoke(0, "a")), Moment(1.0, Spoke(0, "b")), Moment(4.0, Spoke(0, "c"))]
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    await replay(moments, lambda event: None, speed=2.0, sleep=sleep)
    assert slept == [0.5, 1.5]
    with pytest.raises(UsageError, match="wanted a positive speed, got 0"):
        await replay(moments, lambda event: None, speed=0)


def test_a_recording_that_goes_on_does_not_count_the_time_between(tmp_path):
    path = tmp_path / "r.jsonl"
    times = iter([100.0, 102.5, 900.0, 901.0])
    for text in ("a", "b"):
        with Recorder(path, clock=lambda: next(times)) as record:
            record(Spoke(0, text))
    assert read_recording(path) == [Moment(2.5, Spoke(0, "a")), Moment(3.5, Spoke(0, "b"))]


def test_a_line_cut_off_by_a_kill_is_left_out_and_the_next_is_whole(tmp_path, caplog):
    path = tmp_path / "r.jsonl"
    line = json.dumps({"at_s": 1.0, **event_to_json(Spoke(0, "a"))})
    path.write_text(f"{line}\n{line[:20]}")
    with Recorder(path) as record:
        record(Spoke(0, "b"))
    with caplog.at_level(logging.WARNING):
        assert [m.event for m in read_recording(path)] == [Spoke(0, "a"), Spoke(0, "b")]
    assert "1 broken lines are left out" in caplog.text


def test_a_file_that_is_no_recording_is_named(tmp_path):
    (tmp_path / "r.jsonl").write_text("hello\nthere\n")
    for name in ("r.jsonl", "gone.jsonl"):
        with pytest.raises(UsageError, match="wanted a recording"):
            read_recording(tmp_path / name)


async def test_every_event_survives_its_json(table):
    await table.resume(table.begin())
    again = [event_from_json(json.loads(json.dumps(event_to_json(e)))) for e in table.heard]
    assert again == table.heard


@pytest.mark.parametrize("data", [{}, {"kind": "Shouted"}, {"kind": "Spoke", "index": 0}])
def test_what_is_no_event_is_refused(data):
    with pytest.raises(UsageError, match="wanted an event"):
        event_from_json(data)


async def test_a_state_tells_what_a_view_must_hear_to_show_it(table):
    state = await table.resume(table.begin())
    told = list(events_of(state))
    pieces = [event for event in table.heard if not isinstance(event, Spoke)]
    whole = [event for event in told if not isinstance(event, Spoke)]
    assert sorted(map(repr, whole)) == sorted(map(repr, pieces))
    assert told[-1] == Stopped(state.stop_reason)
    later = [event for event in events_of(state, since=6) if isinstance(event, TurnEnded)]
    assert [event.turn.index for event in later] == [4, 5]


async def test_playing_back_loads_no_model(table, tmp_path):
    path = tmp_path / "r.jsonl"
    with Recorder(path) as record:
        await table.resume(table.begin(rounds=1), on_event=record)
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from agents.recording import read_recording, replay\n"
        f"asyncio.run(replay(read_recording(Path({str(path)!r})), lambda event: None))\n"
        "heavy = {'torch', 'transformers', 'autogen_core', 'sentence_transformers'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
