from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agents.engine import TransformersEngine
from agents.fake import FakeEngine
from agents.generation import Generation, Message, Reply
from agents.interview import interview
from agents.script import PAPER_SAMPLING, Script, load_script
from orbweave.errors import EngineError

THREE = {
    "name": "three",
    "system": "Be exact.",
    "turns": [
        {"name": "one", "ask": "Name a silk."},
        {"name": "two", "ask": "Why {reply.one}?"},
        {"name": "sum", "ask": "As JSON.", "json": {"name": "string"}, "max_new_tokens": 64},
    ],
}


def script(**changes: object) -> Script:
    return Script.model_validate(THREE | changes)


class LimitedEngine(FakeEngine):
    """Holds few tokens, and says of every reply that it was cut."""

    context_tokens = 60

    async def generate(self, request: Generation) -> Reply:
        return (await super().generate(request))._replace(finish="length")


async def test_turns_see_the_chat_so_far_with_the_papers_sampling():
    engine = FakeEngine(["dragline", "because", '{"name": "x"}'])
    turns = await interview(script(), engine, seed=7)
    assert [turn.outcome for turn in turns] == ["answered"] * 3
    first, second, third = engine.requests
    assert first.messages == (Message("system", "Be exact."), Message("user", "Name a silk."))
    assert second.messages[1:] == (
        Message("user", "Name a silk."),
        Message("assistant", "dragline"),
        Message("user", "Why dragline?"),
    )
    assert [m.role for m in third.messages] == ["system", *["user", "assistant"] * 2, "user"]
    assert {r.sampling for r in engine.requests} == {PAPER_SAMPLING}
    assert [r.max_new_tokens for r in engine.requests] == [1024, 1024, 64]
    assert len({r.seed for r in engine.requests}) == 3
    assert turns[2].json_reply.status == "valid"


async def test_a_fresh_turn_and_those_after_it_forget_what_was_before():
    turns = [
        {"name": "a", "ask": "A"},
        {"name": "b", "ask": "B {reply.a}", "fresh": True, "system": "Other."},
        {"name": "c", "ask": "C"},
    ]
    engine = FakeEngine(["x", "y", "z"])
    await interview(script(turns=turns), engine, seed=0)
    assert [m.content for m in engine.requests[1].messages] == ["Other.", "B x"]
    assert [m.content for m in engine.requests[2].messages] == ["Be exact.", "B x", "y", "C"]


async def test_turns_already_done_are_not_asked_again():
    done = (await interview(script(), FakeEngine(["a", "b", "c"]), seed=1))[:2]
    engine, kept = FakeEngine(['{"name": "c"}']), []
    turns = await interview(script(), engine, seed=1, done=done, keep=kept.append)
    assert [turn.reply for turn in turns] == ["a", "b", '{"name": "c"}']
    assert [turn.index for turn in kept] == [2]
    assert "Why a?" in [m.content for m in engine.requests[0].messages]


async def test_a_full_window_is_named_and_ends_the_interview():
    engine = LimitedEngine(["word " * 45, "never"])
    turns = await interview(script(), engine, seed=0)
    assert [turn.outcome for turn in turns] == ["cut off", "context full"]
    assert turns[0].max_new_tokens == 60 - 13  # the script's 1,024 would not fit
    assert "fake holds 60; shorten the script" in turns[1].error
    assert len(engine.requests) == 1


@pytest.mark.parametrize(
    ("engine", "outcome", "error"),
    [
        (FakeEngine(["a"]), "failed", "wanted a queued reply"),
        (FakeEngine(["a", "slow words " * 50], delay_s=0.02), "timed out", "no reply within 0.3 s"),
    ],
)
async def test_what_ends_an_interview_has_a_name_and_the_turns_so_far_are_kept(
    engine, outcome, error
):
    kept = []
    turns = await interview(script(), engine, seed=0, keep=kept.append, timeout_s=0.3)
    assert [turn.outcome for turn in turns] == ["answered", outcome]
    assert error in turns[1].error
    assert list(turns) == kept


async def test_a_turn_without_a_reply_took_its_time_too():
    class Failing(FakeEngine):
        async def generate(self, request):
            await asyncio.sleep(0.1)
            raise EngineError("lost")

    slow = FakeEngine(["slow words " * 50], delay_s=0.02)
    for engine, limit_s, outcome in ((slow, 0.2, "timed out"), (Failing(), 9.0, "failed")):
        (turn,) = await interview(script(), engine, seed=0, timeout_s=limit_s)
        assert turn.outcome == outcome
        assert 0.1 <= turn.seconds < 2.0


async def test_empty_broken_and_cut_replies_are_told_apart():
    turns = await interview(script(), FakeEngine(["  \n", "b\ud800", "no json"]), seed=0)
    assert [turn.outcome for turn in turns] == ["empty", "answered", "answered"]
    assert turns[1].reply == "b?"
    assert turns[2].json_reply.status == "invalid"


async def test_an_engine_that_cannot_count_fails_by_name():
    class Mute(FakeEngine):
        def count_tokens(self, messages):
            raise EngineError("no template")

    turns = await interview(script(), Mute(), seed=0)
    assert [(turn.outcome, turn.error) for turn in turns] == [("failed", "no template")]


async def test_a_real_model_repeats_itself_for_a_seed_and_fills_its_window(tiny_folder: Path):
    engine = TransformersEngine(tiny_folder, "tiny", dtype="float32")
    short = script(max_new_tokens=40)
    first, again, other = [await interview(short, engine, seed=s) for s in (1, 1, 2)]
    assert [t.reply for t in first] == [t.reply for t in again] != [t.reply for t in other]
    long = await interview(script(), engine, seed=1)
    assert long[-1].outcome == "context full"
    assert "tiny holds 256" in long[-1].error
    await engine.close()


@pytest.mark.slow
async def test_the_embedded_model_speaks_a_shipped_script(base):
    turns = [turn.model_copy(update={"max_new_tokens": 24}) for turn in load_script("city").turns]
    spoken = await interview(load_script("city").model_copy(update={"turns": turns}), base, seed=0)
    assert [turn.turn for turn in spoken] == ["principles", "prompt", "short"]
    assert all(turn.is_finished and turn.reply for turn in spoken)
