"""Our engines behind AutoGen's client interface."""

from __future__ import annotations

import asyncio

import pytest
from autogen_agentchat.agents import AssistantAgent
from autogen_core import CancellationToken
from autogen_core.models import (
    AssistantMessage,
    CreateResult,
    FunctionExecutionResultMessage,
    LLMMessage,
    SystemMessage,
    UserMessage,
)

from agents.client import ClientVoice, EngineClient, fold
from agents.fake import FakeEngine
from agents.generation import Message, Sampling
from agents.voice import Job
from orbweave.errors import EngineError, UsageError

_CHAT: list[LLMMessage] = [
    SystemMessage(content="You know silk."),
    UserMessage(content="Facts on leaves.", source="leaf_expert"),
    UserMessage(content="Facts on silk.", source="silk_expert"),
]


def test_a_run_of_users_becomes_one_turn_with_names() -> None:
    assert fold(_CHAT) == (
        Message("system", "You know silk."),
        Message("user", "leaf_expert: Facts on leaves.\n\nsilk_expert: Facts on silk."),
    )


def test_one_speaker_twice_needs_no_name() -> None:
    chat = [UserMessage(content="One.", source="a"), UserMessage(content="Two.", source="a")]
    assert fold(chat) == (Message("user", "One.\n\nTwo."),)


def test_assistant_turns_part_the_runs() -> None:
    chat = [
        UserMessage(content="Go.", source="user"),
        AssistantMessage(content="Lines.", source="me"),
        UserMessage(content="More.", source="critic"),
    ]
    assert [message.role for message in fold(chat)] == ["user", "assistant", "user"]


def test_folding_leaves_the_messages_as_they_are() -> None:
    before = [message.model_copy(deep=True) for message in _CHAT]
    fold(_CHAT)
    assert before == _CHAT


@pytest.mark.parametrize(
    ("chat", "text"),
    [
        ([], "wanted a turn to answer"),
        ([SystemMessage(content="Be brief.")], "wanted a turn to answer"),
        ([FunctionExecutionResultMessage(content=[])], "take neither images nor tools"),
        ([UserMessage(content=["a", "b"], source="user")], "wanted turns of text"),
    ],
)
def test_what_is_no_text_is_refused(chat: list[LLMMessage], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        fold(chat)


async def test_create_gives_text_and_counts_usage() -> None:
    client = EngineClient(FakeEngine(["Thin lines cross.", "Again."]))
    first = await client.create(_CHAT)
    await client.create(_CHAT)
    assert first.content == "Thin lines cross."
    assert (first.usage.completion_tokens, first.cached) == (3, False)
    assert client.total_usage().completion_tokens == 4


async def test_the_stream_is_the_text_in_pieces_and_then_the_result() -> None:
    client = EngineClient(FakeEngine(["Thin lines cross."]))
    *pieces, last = [piece async for piece in client.create_stream(_CHAT)]
    assert pieces == ["Thin", " lines", " cross."]
    assert isinstance(last, CreateResult)
    assert last.content == "Thin lines cross."


async def test_extra_arguments_reach_the_engine() -> None:
    engine = FakeEngine(["lines. More"])
    extra = {"seed": 7, "prefix": "Thin ", "stop": (". ",), "sampling": Sampling(temperature=0.0)}
    result = await EngineClient(engine).create(_CHAT, extra_create_args=extra)
    assert result.content == "Thin lines"
    assert (engine.requests[0].seed, engine.requests[0].sampling.temperature) == (7, 0.0)


async def test_unknown_extra_arguments_are_refused() -> None:
    with pytest.raises(UsageError, match="wanted extra arguments among .* got top_q"):
        await EngineClient(FakeEngine(["x"])).create(_CHAT, extra_create_args={"top_q": 1})


async def test_json_output_is_refused() -> None:
    with pytest.raises(UsageError, match="got a request for JSON output"):
        await EngineClient(FakeEngine(["x"])).create(_CHAT, json_output=True)


async def test_the_engines_error_comes_through() -> None:
    with pytest.raises(EngineError, match="got an empty queue"):
        await EngineClient(FakeEngine()).create(_CHAT)


async def test_cancelling_the_token_stops_the_engine_within_a_token() -> None:
    engine = FakeEngine(["word " * 1_000], delay_s=0.01)
    token = CancellationToken()
    task = asyncio.create_task(EngineClient(engine).create(_CHAT, cancellation_token=token))
    while engine.words_given < 3:
        await asyncio.sleep(0.005)
    token.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stopped_at = engine.words_given
    await asyncio.sleep(0.1)
    assert engine.words_given == stopped_at < 1_000


async def test_leaving_the_stream_stops_the_engine() -> None:
    engine = FakeEngine(["word " * 1_000], delay_s=0.01)
    stream = EngineClient(engine).create_stream(_CHAT)
    await anext(stream)
    await stream.aclose()
    stopped_at = engine.words_given
    await asyncio.sleep(0.1)
    assert engine.words_given == stopped_at


def test_remaining_tokens_are_the_context_without_the_chat() -> None:
    client = EngineClient(FakeEngine())
    assert client.remaining_tokens(_CHAT) == 8_192 - client.count_tokens(_CHAT)


async def test_an_autogen_agent_speaks_with_our_engine() -> None:
    client = EngineClient(FakeEngine(["Thin lines cross."]))
    agent = AssistantAgent("expert", model_client=client, system_message="You know silk.")
    result = await agent.run(task="What should it look like?")
    assert result.messages[-1].to_text() == "Thin lines cross."


async def test_a_voice_lets_hear_what_was_not_heard_before() -> None:
    heard: list[str] = []
    client = EngineClient(FakeEngine(["Title: Web\nPrompt: Thin lines"]))
    voice = ClientVoice(client, CancellationToken(), heard.append)
    job = Job(
        (Message("user", "Go"),),
        9,
        prefix="Title: Web\nPrompt:",
        heard="Title: Web",
        stop=("\n\n",),
    )
    reply = await voice.say(job)
    assert reply.text == "Title: Web\nPrompt: Thin lines"
    assert "".join(heard) == "\nPrompt: Thin lines"
    assert voice.n_tokens == reply.n_tokens
