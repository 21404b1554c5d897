"""The server as the official client sees it: a real server, engines that cost nothing."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import uvicorn
from openai import OpenAI

from agents.conversation import Conversation
from agents.endpoint import EndpointEngine
from agents.events import TurnEnded
from agents.fake import FakeEngine
from agents.generation import Generation, Message
from agents.roles import load_team
from imagegen.measure import measure
from imagegen.png import read_note
from orbweave.errors import EngineError, OutputError, UsageError
from ui.design import Workshop
from ui.serve import Guard, application, serve
from ui.serve_designer import Designer
from ui.serve_shelf import Shelf

ROOT = Path(__file__).parents[2]
HI: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is silk?"}]


class Server:
    """A running server and what it works with."""

    def __init__(self, out: Path, shop: Workshop, token: str | None = None, **shelf: Any) -> None:
        self.opened: list[str] = []
        self.engine = FakeEngine(self.reply, model="fake")
        self.text = "A thread of protein."
        self.shelf = Shelf(self.open, **shelf)
        self.designer = Designer(shop, self.shelf, out)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listening.getsockname()[1]}/v1"
        app = application(self.shelf, self.designer, Guard("127.0.0.1", token))
        config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        sockets = {"sockets": [self._listening]}
        self._thread = threading.Thread(target=self._server.run, kwargs=sockets)
        self._thread.start()

    def open(self, model: str) -> FakeEngine:
        self.opened.append(model)
        return self.engine

    def reply(self, request: Generation) -> str:
        if self.text == "fail":
            raise EngineError("wanted an answer, the model is tired; let it rest")
        return self.text

    def client(self, key: str = "none") -> OpenAI:
        return OpenAI(base_url=self.address, api_key=key, max_retries=0, timeout=90)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._listening.close()


@pytest.fixture
def shop(finished: Any, renderer: Any) -> Workshop:
    """Parts whose team says what the finished design says, and draws checkerboards."""
    model = finished[0]

    async def converse(
        brief: Any, *, engine_for: Any, render: Any, on_event: Callable[[Any], None], **_: Any
    ) -> Conversation:
        if brief.concept == "slow":
            await engine_for("generalist").generate(Generation((Message("user", "Go"),)))
        for turn in model.turns:
            on_event(TurnEnded(turn))
        pictures, measurements = await render(model.prompts[0], 0)
        return Conversation(
            turns=model.turns,
            facts=model.facts,
            prompts=model.prompts,
            pictures=pictures,
            measurements=measurements,
            critiques=model.critiques,
            stop_reason=model.stop_reason,
        )

    return Workshop(converse, FakeEngine, lambda: None, load_team(), renderer, measure)


@pytest.fixture
def start(tmp_path: Path, shop: Workshop) -> Iterator[Callable[..., Server]]:
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    running: list[Server] = []

    def begin(**options: Any) -> Server:
        running.append(Server(tmp_path / "served", shop, **options))
        return running[-1]

    yield begin
    for server in running:
        server.close()


@pytest.fixture
def server(start: Callable[..., Server]) -> Server:
    return start()


def test_models_merges_and_teams_are_listed(start: Callable[..., Server]) -> None:
    listed = [m.id for m in start(extra=["slerp(base, generalist, t=0.4)"]).client().models.list()]
    assert {"base", "generalist", "loom", "team:default"} <= set(listed)
    assert "slerp(base, generalist, t=0.4)" in listed
    assert "llama-3.1-8b" not in listed  # nobody downloads by asking


def test_one_model_is_described_or_refused(server: Server) -> None:
    client = server.client()
    assert client.models.retrieve("base").owned_by == "orbweave"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("team:nobody")


def test_a_chat_is_answered_with_usage(server: Server) -> None:
    answer = server.client().chat.completions.create(
        model="base", messages=HI, max_tokens=7, temperature=0.5, top_p=0.8, seed=3, stop=["."]
    )
    assert answer.choices[0].message.content == "A thread of protein"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4
    (asked,) = server.engine.requests
    assert asked.messages == (Message("system", "Be brief."), Message("user", "What is silk?"))
    assert (asked.max_new_tokens, asked.seed, asked.stop) == (7, 3, (".",))
    assert (asked.sampling.temperature, asked.sampling.top_p) == (0.5, 0.8)


def test_a_stream_is_the_same_text_in_pieces(server: Server) -> None:
    stream = server.client().chat.completions.create(
        model="base", messages=HI, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    said = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(said) == "A thread of protein."
    assert len([s for s in said if s]) == 4
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage is not None


@pytest.mark.parametrize(
    "name", ["slerp(base, generalist, t=0.4)", "steered(base=0.5, generalist=0.5)"]
)
def test_merges_of_offered_models_are_models_too(server: Server, name: str) -> None:
    server.client().chat.completions.create(model=name, messages=HI)
    server.client().chat.completions.create(model=name, messages=HI)
    assert server.opened == [name]


@pytest.mark.parametrize(
    "name",
    [
        "/etc",
        "https://example.org/v1#gpt",
        "org/name",
        "llama-3.1-8b",
        "slerp(base, org/name, t=0.4)",
        "nonsense",
        "loom",
    ],
)
def test_what_is_not_offered_is_not_opened(server: Server, name: str) -> None:
    with pytest.raises((openai.NotFoundError, openai.BadRequestError)):
        server.client().chat.completions.create(model=name, messages=HI)
    assert server.opened == []


def test_speakers_names_are_kept_where_there_are_several(server: Server) -> None:
    chat: Any = [
        {"role": "user", "name": "silk", "content": "Webs."},
        {"role": "user", "name": "leaf", "content": [{"type": "text", "text": "Veins."}]},
    ]
    server.client().chat.completions.create(model="base", messages=chat)
    assert [m.content for m in server.engine.requests[0].messages] == [
        "silk: Webs.",
        "leaf: Veins.",
    ]


def test_a_begun_reply_is_continued_and_not_repeated(server: Server) -> None:
    server.text = "Silk is a thread."
    chat: Any = [*HI, {"role": "assistant", "content": "Silk is"}]
    answer = server.client().chat.completions.create(
        model="base", messages=chat, extra_body={"continue_final_message": True}
    )
    assert answer.choices[0].message.content == " a thread."
    assert server.engine.requests[0].prefix == "Silk is"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "got tools"),
        ({"logprobs": True}, "got logprobs"),
        ({"n": 2}, "n: "),
        ({"temperature": -1}, "temperature: "),
        ({"seed": 2**63}, "seed: "),
        ({"seed": -(10**30)}, "seed: "),
        ({"messages": []}, "messages: "),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "wanted roles"),
        ({"messages": [{"role": "system", "content": "x"}], "model": "team:default"}, "a concept"),
        ({"max_tokens": 10_000}, "wanted 10,000 tokens after a chat of"),
    ],
)
def test_bad_requests_are_told_in_openais_form(
    server: Server, change: dict[str, Any], text: str
) -> None:
    asked: dict[str, Any] = {"model": "base", "messages": HI} | change
    with pytest.raises(openai.BadRequestError, match=text) as caught:
        server.client().chat.completions.create(**asked)
    assert caught.value.type == "invalid_request_error"


def test_null_is_taken_for_what_is_not_given(server: Server) -> None:
    open_: dict[str, Any] = dict.fromkeys(
        ("temperature", "top_p", "n", "stream", "max_tokens", "seed", "stop", "rounds")
    )
    answer = server.client().chat.completions.create(model="base", messages=HI, extra_body=open_)
    assert answer.choices[0].message.content == "A thread of protein."
    empty: Any = [{"role": "user", "content": None}]
    with pytest.raises(openai.BadRequestError, match=r"messages.0.content: Field required"):
        server.client().chat.completions.create(model="base", messages=empty)


def test_an_address_that_is_not_there_is_no_missing_model(server: Server) -> None:
    with pytest.raises(openai.NotFoundError, match="POST '/v1/embeddings'; there are") as caught:
        server.client().embeddings.create(model="base", input="x")
    assert caught.value.code is None
    with pytest.raises(openai.NotFoundError) as caught:
        server.client().chat.completions.create(model="nonsense", messages=HI)
    assert caught.value.code == "model_not_found"


def test_an_image_model_that_is_asked_to_talk_is_told_where_to_draw(server: Server) -> None:
    with pytest.raises(openai.NotFoundError, match="loom draws; ask it at /v1/images"):
        server.client().chat.completions.create(model="loom", messages=HI)


def test_a_chat_that_is_too_long_has_the_code_clients_look_for(server: Server) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        server.client().chat.completions.create(model="base", messages=HI, max_tokens=10_000)
    assert caught.value.code == "context_length_exceeded"


def test_a_failing_model_is_told_whole_or_streaming(server: Server) -> None:
    server.text = "fail"
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError, match="let it rest") as caught:
            server.client().chat.completions.create(model="base", messages=HI, stream=stream)  # type: ignore[call-overload]
        assert caught.value.status_code == 503


def test_a_long_body_is_refused(server: Server) -> None:
    chat: Any = [{"role": "user", "content": "x" * 2_000_000}]
    with pytest.raises(openai.APIStatusError) as caught:
        server.client().chat.completions.create(model="base", messages=chat)
    assert caught.value.status_code == 413


def test_a_token_is_asked_for(start: Callable[..., Server]) -> None:
    server = start(token="s3cret")
    with pytest.raises(openai.AuthenticationError):
        server.client("wrong").models.list()
    assert list(server.client("s3cret").models.list())


def test_a_foreign_host_name_is_not_answered(server: Server) -> None:
    with pytest.raises(openai.PermissionDeniedError, match="wanted a local name"):
        server.client().models.list(extra_headers={"host": "evil.example"})


def test_a_reachable_host_needs_a_token() -> None:
    with pytest.raises(UsageError, match="give --auth-token-env NAME, or stay on 127.0.0.1"):
        Guard("0.0.0.0")
    assert not Guard("0.0.0.0", "s3cret").is_local
    assert [Guard(host).is_local for host in ("localhost", "::1", "127.0.0.2")] == [True] * 3


def test_a_taken_port_is_told(server: Server) -> None:
    port = int(server.address.split(":")[2].split("/")[0])
    with pytest.raises(OutputError, match="choose another --port"):
        serve(server.shelf, server.designer, Guard("127.0.0.1"), port, lambda address: None)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_stops_the_model(server: Server, stream: bool) -> None:
    server.engine._delay_s = 0.01
    server.text = "word " * 5_000
    body = json.dumps({"model": "base", "messages": HI, "stream": stream, "max_tokens": 8_000})
    host, port = server.address.removeprefix("http://").removesuffix("/v1").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall((head + body).encode())
        while server.engine.words_given < 5:
            time.sleep(0.01)
    time.sleep(0.15)
    given = server.engine.words_given
    time.sleep(0.3)
    assert server.engine.words_given == given < 5_000


def test_a_team_streams_its_turns_and_ends_with_prompt_and_picture(server: Server) -> None:
    asked: Any = {"model": "team:default", "messages": [{"role": "user", "content": "a web"}]}
    stream = server.client().chat.completions.create(stream=True, **asked)
    said = [c.choices[0].delta.content or "" for c in stream if c.choices]
    text = "".join(said)
    assert "**spider_silk_expert** (`base`)\n\nRadial threads carry load" in said[1]
    assert text.index("prompt_engineer") < text.index("golden orb web with Radial threads on black")
    address = text.rsplit("![Web](", 1)[1].split(")")[0]
    assert address.startswith(server.address)
    png = server.client().get(address, cast_to=bytes)
    assert png.startswith(b"\x89PNG")
    folders = list((server.designer.out).iterdir())
    assert [(folder / "design.json").is_file() for folder in folders] == [True]


def test_a_client_that_leaves_a_team_stops_it_and_nothing_is_left(server: Server) -> None:
    server.engine._delay_s = 0.01
    server.text = "word " * 5_000
    impatient = server.client().with_options(timeout=1.0)
    asked: Any = {"model": "team:default", "messages": [{"role": "user", "content": "slow"}]}
    with pytest.raises(openai.APITimeoutError):
        impatient.chat.completions.create(**asked)
    time.sleep(1.2)
    given = server.engine.words_given
    time.sleep(0.3)
    assert 0 < server.engine.words_given == given < 5_000
    assert list(server.designer.out.iterdir()) == []


def test_pictures_come_as_data_with_their_settings(server: Server, tmp_path: Path) -> None:
    answer = server.client().images.generate(
        prompt="golden orb web", model="loom", n=2, size="64x64" , response_format="b64_json",  # type: ignore[call-overload]
        extra_body={"seed": 7, "structure": "none"},
    )  # fmt: skip
    file = tmp_path / "p.png"
    seeds = []
    for each in answer.data:
        file.write_bytes(base64.b64decode(each.b64_json))
        note = read_note(file)
        assert note is not None
        seeds.append(note.request.seeds)
        assert (note.request.width, note.request.prompt) == (64, "golden orb web")
    assert seeds == [(7,), (8,)]


def test_pictures_come_as_addresses_of_files(server: Server) -> None:
    answer = server.client().images.generate(
        prompt="golden orb web",
        size="64x64",
        extra_body={"structure": "none"},  # type: ignore[call-overload]
    )
    assert server.client().get(answer.data[0].url, cast_to=bytes).startswith(b"\x89PNG")
    with pytest.raises(openai.NotFoundError):
        server.client().get(answer.data[0].url[:-6] + "x.png", cast_to=bytes)


@pytest.mark.parametrize(
    "change", [{"size": "9999x64"}, {"size": "big"}, {"n": 11}, {"prompt": ""}]
)
def test_pictures_that_cannot_be_drawn_are_refused(server: Server, change: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"prompt": "golden orb web", "size": "64x64"} | change
    with pytest.raises(openai.BadRequestError):
        server.client().images.generate(**asked)


def test_idle_engines_beyond_the_kept_ones_are_closed() -> None:
    engines: dict[str, FakeEngine] = {}

    def open_engine(model: str) -> FakeEngine:
        engines[model] = FakeEngine(["x"], model=model)
        return engines[model]

    shelf = Shelf(open_engine, keep=1)
    with shelf.lend("base"), shelf.lend("generalist"):
        pass
    deadline = time.monotonic() + 5
    while not engines["base"].closed and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [engines[name].closed for name in ("base", "generalist")] == [True, False] or [
        engines[name].closed for name in ("base", "generalist")
    ] == [False, True]


async def test_our_own_endpoint_engine_speaks_with_it(server: Server) -> None:
    engine = await asyncio.to_thread(EndpointEngine.connect, server.address, "base")
    server.text = "Silk is a thread."
    request = Generation((Message("user", "What is silk?"),), prefix="Silk is", stop=(".",))
    assert (await engine.generate(request)).text == "Silk is a thread"
    server.text = "B"
    found = await engine.logprobs(request.messages, ["leaf", "silk"])
    assert math.exp(found[1]) > 0.9
    assert engine.weighing == "votes"


@pytest.mark.long
@pytest.mark.timeout(600)
def test_ctrl_c_ends_the_command_while_a_real_model_speaks(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ui.cli", "serve", "--port", "0", "--json", "--out", "served"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline()]
            while lines[-1].strip() not in {"}", ""}:
                lines.append(process.stdout.readline())
            address = json.loads("".join(lines))["address"]
            with OpenAI(base_url=address, api_key="none", max_retries=0, timeout=400) as client:
                stream = client.chat.completions.create(
                    model="base", messages=HI, stream=True, max_tokens=2_000
                )
                next(iter(stream))
                process.send_signal(signal.SIGINT)
                assert process.wait(timeout=100) == 130
                stream.close()
            assert "interrupted" in process.stderr.read()  # type: ignore[union-attr]
        finally:
            process.kill()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_embedded_models_team_and_pictures(tmp_path: Path) -> None:
    from agents.embedding import MiniLM
    from agents.engines import Engines
    from ui.design import workshop

    embed = MiniLM()
    shop = workshop(lambda text: None, embed)
    server = Server(tmp_path / "served", shop)
    server.shelf._open_engine = Engines().open
    server.designer.embed = embed
    try:
        client = server.client().with_options(timeout=800)
        france: Any = [{"role": "user", "content": "What is the capital of France?"}]
        for name in ("base", "slerp(base, generalist, t=0.4)"):
            answer = client.chat.completions.create(
                model=name, messages=france, max_tokens=30, temperature=0
            )
            assert "Paris" in str(answer.choices[0].message.content)
        team = client.chat.completions.create(
            model="team:default",
            messages=[{"role": "user", "content": "a membrane of spider silk and leaf veins"}],
        )
        assert "**Prompt: " in str(team.choices[0].message.content)
        assert ".png)" in str(team.choices[0].message.content)
        drawn = client.images.generate(prompt="golden orb web", response_format="b64_json")
        assert base64.b64decode(drawn.data[0].b64_json).startswith(b"\x89PNG")  # type: ignore[index, arg-type]
    finally:
        server.close()
