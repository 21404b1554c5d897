"""The engine over a web address, against a real server that behaves as badly as servers do."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from email.utils import formatdate
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from agents.endpoint import EndpointEngine
from agents.endpoint_client import KEY_SETTING, Patience
from agents.engines import Engines
from agents.generation import Generation, Message, Reply, Sampling
from orbweave.errors import EngineError

# A busy machine may keep a well-behaved server waiting for seconds.
CALM = Patience(connect_s=20.0, silence_s=20.0, total_s=60.0, tries=3, pause_s=0.01)
HASTY = Patience(connect_s=20.0, silence_s=0.6, total_s=60.0, tries=3, pause_s=0.01)
SILENT = {"hangs", "stalls", "pings"}
WORDS = ["Thin", " lines", " cross", " in", " the", " web."]


class Stub:
    """A server that answers as the name of the model says, and remembers what it was asked."""

    def __init__(self) -> None:
        self.owner = "stub"
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.n_sent = 0
        """Pieces sent in answer to all questions."""
        routes = [
            Route("/v1/models", self.models),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/tokenize", self.tokenize, methods=["POST"]),
        ]
        self.app = Starlette(routes=routes)

    async def models(self, request: Request) -> Response:
        names = ("good", "adapter", "gemma")
        cards: list[dict[str, Any]] = [
            {"id": name, "owned_by": self.owner, "max_model_len": 2_048} for name in names
        ]
        cards[1] |= {"max_model_len": None, "parent": "good"}
        return JSONResponse({"object": "list", "data": cards})

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        self.headers.append(dict(request.headers))
        name, n = body["model"], len(self.asked)
        if name == "hangs" or (name == "stalls" and not body.get("stream")):
            await asyncio.sleep(5)
        if name == "busy" or (name == "busy-once" and n == 1):
            return error(429, "slow down", {"retry-after": "0.02"})
        if name == "used-up":
            return error(429, "quota used up", {"retry-after": "3600"})
        if name == "used-up-until":
            date = formatdate(time.time() + 3_600, usegmt=True)
            return error(429, "quota used up", {"retry-after": date})
        if name == "broken" or (name == "broken-once" and n == 1):
            return error(500, "oh no")
        if name == "locked":
            return error(401, f"Incorrect API key provided: {request.headers['authorization']}")
        if name == "unknown":
            return error(404, "no such model")
        if name == "gemma" and any(m["role"] == "system" for m in body["messages"]):
            return error(400, "System role not supported")
        if name == "html":
            return PlainTextResponse("<html>Hello</html>", media_type="text/html")
        if name == "no-json":
            return Response("{'choices': oh", media_type="application/json")
        if name == "short":
            return Response(b"data: {}", headers={"content-length": "900"})
        if not body.get("stream"):
            return JSONResponse(self.choice(body))
        return StreamingResponse(self.pieces(name, body, n), media_type="text/event-stream")

    async def pieces(self, name: str, body: dict[str, Any], n: int) -> AsyncIterator[str]:
        if name == "nothing":
            return
        if name == "bad-json":
            yield "data: {'choices': oh\n\n"
            return
        if name == "bad-shape":
            yield 'data: {"choices": [{"delta": {"content": 7}}]}\n\n'
            return
        if name == "empty":
            yield event({}, "stop")
            return
        if name == "flood":
            while True:
                yield event({"content": "x" * 4_000})
                await asyncio.sleep(0)
        if name == "pings":
            while True:
                yield ": still here\n\n"
                await asyncio.sleep(0.05)
        if name == "trickles":
            while True:
                yield event({"content": ""})
                await asyncio.sleep(0.2)
        words = WORDS * 500 if name == "endless" else [*WORDS]
        words = [" \n"] * 3_000 if name == "blank" else words
        if name == "repeats":
            words = [" Title:", " ", *words]
        if name == "fickle-once" and n > 1:
            words = ["Thick", " walls."]
        for place, word in enumerate(words):
            if place == 2 and (
                name == "drops" or (name in {"drops-once", "fickle-once"} and n == 1)
            ):
                raise RuntimeError("dropped")
            if place == 2 and name == "stalls":
                await asyncio.sleep(5)
            if place == 2 and name == "fails":
                yield f"data: {json.dumps({'error': {'message': 'out of memory'}})}\n\n"
                return
            self.n_sent += 1
            yield event({"content": word})
            await asyncio.sleep(0.01 if name in {"endless", "blank"} else 0)
        if name == "no-end":
            return
        yield event({}, "stop")
        usage = {"prompt_tokens": -4, "completion_tokens": 10**9} if name == "liar" else None
        if name == "muddler":
            usage = {"prompt_tokens": "many", "completion_tokens": None}
        usage = usage or {"prompt_tokens": 12, "completion_tokens": len(words)}
        yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n"
        yield "data: [DONE]\n\n"

    def choice(self, body: dict[str, Any]) -> dict[str, Any]:
        """Answer a choice of letters with B, likely."""
        name = body["model"]
        said = "I think silk." if name == "vague" else "B"
        choice: dict[str, Any] = {"message": {"content": said}}
        if body.get("logprobs") and name == "good":
            likely = [(" B", 0.5), ("B", 0.25), ("A", 0.125), ("The", 0.0625)]
            top = [{"token": token, "logprob": math.log(p)} for token, p in likely]
            choice["logprobs"] = {"content": [{"top_logprobs": top}]}
        return {"choices": [choice]}

    async def tokenize(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        if self.owner != "vllm":
            return error(404, "Not Found")
        tokens = [7, 7, 7] if "messages" in body else [*body["prompt"].encode()]
        return JSONResponse({"tokens": tokens})

    async def completions(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        (token,) = body["allowed_token_ids"]
        # The longer what was said before, the less likely.
        scored = {"token_logprobs": [-token / 100 - len(body["prompt"])]}
        return JSONResponse({"choices": [{"logprobs": scored}]})


def error(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": {"message": text}}, status_code=status, headers=headers)


def event(delta: dict[str, Any], finish: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]})}\n\n"


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Stub, str]]:
    """A running stub and its address."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    stub, listening = Stub(), socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(stub.app, log_config=None, timeout_graceful_shutdown=1, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield stub, f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    server.should_exit = True
    thread.join()
    listening.close()


def ask(text: str = "What is a web?", **options: Any) -> Generation:
    return Generation((Message("system", "Be brief."), Message("user", text)), **options)


def engine_for(stub: tuple[Stub, str], name: str) -> EndpointEngine:
    return EndpointEngine.connect(stub[1], name, patience=HASTY if name in SILENT else CALM)


async def test_reply_comes_in_pieces_with_usage(stub: tuple[Stub, str]) -> None:
    engine = engine_for(stub, "good")
    how = Sampling(temperature=0.7, top_p=0.5)
    *pieces, reply = [p async for p in engine.stream(ask(sampling=how, seed=9, max_new_tokens=20))]
    assert pieces == WORDS
    assert isinstance(reply, Reply)
    assert (reply.text, reply.n_prompt_tokens, reply.n_tokens) == ("".join(WORDS), 12, 6)
    assert reply.finish == "stop"
    sent = stub[0].asked[0]
    wanted = {"temperature": 0.7, "top_p": 0.5, "seed": 9, "max_tokens": 20}
    assert {key: sent[key] for key in wanted} == wanted
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
    assert "top_k" not in sent


async def test_context_is_what_the_server_says_also_of_an_adapters_parent(
    stub: tuple[Stub, str],
) -> None:
    assert engine_for(stub, "adapter").context_tokens == 2_048
    assert engine_for(stub, "elsewhere").context_tokens == 4_096


async def test_stop_strings_end_a_reply_even_beyond_what_servers_take(
    stub: tuple[Stub, str],
) -> None:
    stops = ("1", "2", "3", "4", "s in")
    reply = await engine_for(stub, "good").generate(ask(stop=stops))
    assert (reply.text, reply.finish) == ("Thin lines cros", "stop")
    assert stub[0].asked[0]["stop"] == ["1", "2", "3", "4"]


async def test_prefix_is_continued_where_the_server_can(stub: tuple[Stub, str]) -> None:
    stub[0].owner = "vllm"
    reply = await engine_for(stub, "good").generate(ask(prefix="Title:"))
    assert reply.text == "Title:" + "".join(WORDS)
    sent = stub[0].asked[0]
    assert sent["messages"][-1] == {"role": "assistant", "content": "Title:"}
    assert (sent["continue_final_message"], sent["add_generation_prompt"]) == (True, False)
    assert (sent["top_k"], sent["repetition_penalty"]) == (50, 1.1)


@pytest.mark.parametrize("name", ["good", "repeats"])
async def test_prefix_is_asked_for_in_words_elsewhere_and_never_doubled(
    stub: tuple[Stub, str], name: str
) -> None:
    engine = engine_for(stub, name)
    *pieces, reply = [p async for p in engine.stream(ask(prefix="Title:"))]
    assert isinstance(reply, Reply)
    assert reply.text.split() == ["Title:", *"".join(WORDS).split()]
    assert "".join(pieces) == reply.text
    assert "exactly these words: Title:" in stub[0].asked[0]["messages"][-1]["content"]


@pytest.mark.parametrize("name", ["busy-once", "broken-once", "drops-once"])
async def test_what_passes_is_tried_again_and_heard_once(stub: tuple[Stub, str], name: str) -> None:
    *pieces, reply = [p async for p in engine_for(stub, name).stream(ask())]
    assert "".join(pieces) == "".join(WORDS)
    assert isinstance(reply, Reply)
    assert len(stub[0].asked) == 2


@pytest.mark.parametrize(
    ("name", "text", "n_asked"),
    [
        ("busy", "after 3 tries it said 429: 'slow down'", 3),
        ("used-up", "after one try it said 429: 'quota used up'; ask again in 3,600 s", 1),
        ("used-up-until", "after one try it said 429: 'quota used up'; ask again in 3,[56].. s", 1),
        ("broken", "after 3 tries it said 500: 'oh no'; see the server", 3),
        ("drops", "after 3 tries the connection failed or broke off", 3),
        ("no-end", "after 3 tries its stream broke off", 3),
        ("nothing", "after 3 tries it answered with nothing", 3),
        ("short", "after 3 tries", 3),
        ("empty", "after 3 tries it answered with an empty reply", 3),
        ("hangs", "none came within 0.6 s; see the server, or take a smaller model", 1),
        ("stalls", "none came within 0.6 s", 1),
        ("pings", "none came within 0.6 s", 1),
        ("unknown", "it said 404: .* it serves good, adapter, gemma", 1),
        ("fails", "it failed: 'out of memory'", 1),
        ("bad-json", "wanted JSON from .* got something else", 1),
        ("bad-shape", "wanted a piece of a reply", 1),
        ("html", "answered with nothing", 3),
        ("no-json", "answered with nothing", 3),
        ("flood", "wanted 8 tokens at most of .* characters and went on", 1),
    ],
)
async def test_every_misbehaviour_has_a_name_and_a_limit(
    stub: tuple[Stub, str], name: str, text: str, n_asked: int
) -> None:
    started = time.perf_counter()
    with pytest.raises(EngineError, match=text):
        await engine_for(stub, name).generate(ask(max_new_tokens=8))
    assert time.perf_counter() - started < CALM.total_s
    assert len(stub[0].asked) == n_asked


async def test_a_reply_that_nobody_heard_may_be_another_when_it_is_asked_for_again(
    stub: tuple[Stub, str],
) -> None:
    """The first try breaks off behind two words, the second says others."""
    reply = await engine_for(stub, "fickle-once").generate(ask())
    assert (reply.text, len(stub[0].asked)) == ("Thick walls.", 2)


async def test_a_reply_that_was_heard_in_part_must_go_on_as_it_began(
    stub: tuple[Stub, str],
) -> None:
    with pytest.raises(EngineError, match="asked again it said something else"):
        _ = [piece async for piece in engine_for(stub, "fickle-once").stream(ask())]
    assert len(stub[0].asked) == 2


async def test_a_model_that_never_stops_is_cut_at_the_bound(stub: tuple[Stub, str]) -> None:
    reply = await engine_for(stub, "endless").generate(ask(max_new_tokens=5))
    assert reply.finish == "length"
    assert stub[0].n_sent < 60


async def test_white_space_without_end_is_cut_at_the_bound_too(stub: tuple[Stub, str]) -> None:
    with pytest.raises(EngineError, match="after 3 tries it answered with an empty reply"):
        await engine_for(stub, "blank").generate(ask(max_new_tokens=5, prefix="Title:"))
    assert stub[0].n_sent < 300


@pytest.mark.parametrize("name", ["liar", "muddler"])
async def test_usage_that_cannot_be_is_not_believed(stub: tuple[Stub, str], name: str) -> None:
    reply = await engine_for(stub, name).generate(ask(max_new_tokens=20))
    assert (reply.n_tokens, reply.n_prompt_tokens > 0) == (6, True)


async def test_total_time_bounds_all_tries_together(stub: tuple[Stub, str]) -> None:
    patience = Patience(connect_s=20.0, silence_s=20.0, total_s=0.6, tries=99, pause_s=0.05)
    engine = EndpointEngine.connect(stub[1], "busy", patience=patience)
    started = time.perf_counter()
    with pytest.raises(EngineError, match="it said 429|none came within 0.6 s"):
        await engine.generate(ask())
    assert time.perf_counter() - started < 5.0


async def test_a_server_that_trickles_is_told_from_one_that_is_silent(
    stub: tuple[Stub, str],
) -> None:
    patience = Patience(connect_s=20.0, silence_s=2.0, total_s=2.5, tries=3, pause_s=0.01)
    engine = EndpointEngine.connect(stub[1], "trickles", patience=patience)
    with pytest.raises(EngineError, match=r"wanted the whole answer of .* within 2\.5 s"):
        await engine.generate(ask())


async def test_closing_a_stream_tells_the_server(stub: tuple[Stub, str]) -> None:
    async with aclosing(engine_for(stub, "endless").stream(ask(max_new_tokens=900))) as stream:
        async for _ in stream:
            if stub[0].n_sent > 5:
                break
    await asyncio.sleep(0.1)
    sent = stub[0].n_sent
    await asyncio.sleep(0.2)
    assert stub[0].n_sent == sent


async def test_cancelling_the_task_tells_the_server(stub: tuple[Stub, str]) -> None:
    task = asyncio.create_task(engine_for(stub, "endless").generate(ask(max_new_tokens=900)))
    while stub[0].n_sent < 5:
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.1)
    sent = stub[0].n_sent
    await asyncio.sleep(0.2)
    assert stub[0].n_sent == sent


async def test_a_template_without_a_system_role_gets_the_text_with_the_question(
    stub: tuple[Stub, str],
) -> None:
    engine = engine_for(stub, "gemma")
    await engine.generate(ask("Why?"))
    assert stub[0].asked[1]["messages"] == [{"role": "user", "content": "Be brief.\n\nWhy?"}]
    await engine.generate(ask("Why?"))
    assert len(stub[0].asked) == 3


async def test_the_key_comes_from_the_environment_and_is_never_told(
    stub: tuple[Stub, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv(KEY_SETTING, "SILK_KEY")
    monkeypatch.setenv("SILK_KEY", "s3cret-word")
    with pytest.raises(EngineError, match="it said 401: .*; set SILK_KEY") as caught:
        await engine_for(stub, "locked").generate(ask())
    assert stub[0].headers[0]["authorization"] == "Bearer s3cret-word"
    assert "s3cret" not in str(caught.value) + caplog.text


def test_an_engine_serves_one_event_loop_after_another(stub: tuple[Stub, str]) -> None:
    engine = engine_for(stub, "good")
    texts = [asyncio.run(engine.generate(ask())).text for _ in range(2)]
    assert texts == ["".join(WORDS)] * 2


async def test_exact_weights_are_the_sums_over_the_options_tokens(stub: tuple[Stub, str]) -> None:
    stub[0].owner = "vllm"
    engine = engine_for(stub, "good")
    found = await engine.logprobs((Message("user", "Which?"),), ["ab", "ac"])
    assert found == pytest.approx([-(97 + 98) / 100 - 3 - 4, -(97 + 99) / 100 - 3 - 4])
    assert engine.weighing == "exact"
    scored = [asked for asked in stub[0].asked if "allowed_token_ids" in asked]
    assert len(scored) == 3  # the first token is the same


async def test_weights_by_letters_are_the_shares_of_their_tokens(stub: tuple[Stub, str]) -> None:
    engine = engine_for(stub, "good")
    found = await engine.logprobs(ask("Which?").messages, ["silk", "leaf", "bone"])
    # A 1/8, B 1/2 + 1/4, and C at most as likely as the last that was shown, 1/16.
    assert [math.exp(p) for p in found] == pytest.approx([2 / 15, 12 / 15, 1 / 15])
    assert stub[0].asked[-1]["messages"][-1]["content"].endswith("A: silk\nB: leaf\nC: bone")


async def test_without_probabilities_votes_are_counted_and_that_is_said(
    stub: tuple[Stub, str], caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_for(stub, "mute")
    found = await engine.logprobs(ask("Which?").messages, ["silk", "leaf"])
    assert [math.exp(p) for p in found] == pytest.approx([0.5 / 6, 5.5 / 6])
    assert engine.weighing == "votes"
    assert "cannot weigh options by letters (it gives no log-probabilities)" in caplog.text


async def test_a_model_that_names_no_letter_is_told(stub: tuple[Stub, str]) -> None:
    with pytest.raises(EngineError, match="none of its 5 replies begins with a letter"):
        await engine_for(stub, "vague").logprobs(ask("Which?").messages, ["silk", "leaf"])


@pytest.mark.parametrize("name", ["hangs", "no-json", "broken"])
async def test_weighing_has_the_same_limits(stub: tuple[Stub, str], name: str) -> None:
    with pytest.raises(EngineError):
        await engine_for(stub, name).logprobs(ask("Which?").messages, ["silk", "leaf"])


async def test_a_closed_engine_says_so(stub: tuple[Stub, str]) -> None:
    engine = engine_for(stub, "good")
    await engine.close()
    with pytest.raises(EngineError, match="the engine is closed"):
        await engine.generate(ask())


def test_an_address_where_nobody_listens_is_told_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(EngineError, match="is it running there"):
        EndpointEngine.connect(f"http://127.0.0.1:{port}/v1", "good", patience=CALM)


async def test_an_address_is_a_model_reference_like_any_other(stub: tuple[Stub, str]) -> None:
    engine = Engines().open(f"{stub[1]}#good")
    assert engine.model == f"{stub[1]}#good"
    assert (await engine.generate(ask())).text == "".join(WORDS)
