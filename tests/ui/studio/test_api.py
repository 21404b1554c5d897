"""The endpoints for programs: over HTTP with gradio_client, over MCP with its own client."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from ui.studio.desk import Desk

from .conftest import CONCEPT, EVIL, GRADIO_WARNS, Parts, Server, wait_until

pytestmark = [GRADIO_WARNS, pytest.mark.timeout(400)]
DOCUMENT = Path(__file__).parents[3] / "docs" / "api.md"
ENDPOINTS = {"/design", "/designs", "/get_design", "/rate", "/search", "/stop"}
KEY = {"authorization": "Bearer a-key-of-more-than-20-characters"}


@pytest.fixture(scope="module")
def parts() -> Parts:
    return Parts()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, parts: Parts) -> Iterator[Desk]:
    desk = Desk(tmp_path_factory.mktemp("studio"), parts.open)
    desk.open()
    desk.work()
    yield desk
    desk.close()


@pytest.fixture(scope="module")
def server(desk: Desk) -> Iterator[Server]:
    server = Server(desk, speaks_mcp=True)
    wait_until(lambda: httpx.get(server.url).status_code == 200, "the pages are there", 300)
    yield server
    server.close()


@pytest.fixture(scope="module")
def studio(server: Server) -> Client:
    return Client(server.url, headers=KEY, verbose=False)


def test_the_examples_of_the_document_work(server: Server) -> None:
    examples = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text("utf-8"), re.M | re.S)
    assert len(examples) == 6
    names: dict[str, object] = {"URL": server.url}
    for example in examples:
        exec(compile(example, str(DOCUMENT), "exec"), names)


def test_the_document_names_every_endpoint_and_there_are_no_others(studio: Client) -> None:
    offered = studio.view_api(return_format="dict")
    assert set(offered["named_endpoints"]) == ENDPOINTS
    assert offered["unnamed_endpoints"] == {}
    listed = re.findall(r"^\| `(\w+)` \|", DOCUMENT.read_text("utf-8"), re.M)
    assert {f"/{name}" for name in listed} == ENDPOINTS


def test_what_the_pages_call_cannot_be_called_by_programs(server: Server, studio: Client) -> None:
    functions = httpx.get(f"{server.url}/config", headers=KEY).json()["dependencies"]
    hidden = [f for f in functions if f["api_visibility"] != "public"]
    assert len(functions) - len(hidden) == len(ENDPOINTS)
    with pytest.raises(ValueError):
        studio.predict("words", fn_index=hidden[0]["id"])


def test_one_key_sees_nothing_of_anothers(server: Server, studio: Client, desk: Desk) -> None:
    made = studio.predict(CONCEPT, rounds=1, size="64", structure="none", api_name="/design")
    other = Client(server.url, headers={"authorization": "Bearer " + "x" * 30}, verbose=False)
    assert other.predict(api_name="/designs") == []
    for name, rest in (("get_design", ()), ("rate", (5,)), ("stop", ())):
        with pytest.raises(AppError, match="found none of that name"):
            other.predict(made["id"], *rest, api_name=f"/{name}")
    assert studio.predict(made["id"], api_name="/stop")["id"] == made["id"]


def test_a_hostile_concept_is_kept_and_told_as_it_is(studio: Client) -> None:
    made = studio.predict(EVIL, rounds=1, size="64", structure="none", api_name="/design")
    assert made["concept"] == EVIL
    studio.predict(made["id"], api_name="/stop")
    for concept in ("", "x" * 3_000):
        with pytest.raises(AppError, match="wanted a concept"):
            studio.predict(concept, api_name="/design")


def test_a_path_is_no_model(studio: Client) -> None:
    with pytest.raises(AppError, match="wanted a language model of"):
        studio.predict(CONCEPT, model="/etc/passwd", api_name="/design")


async def test_mcp_clients_see_the_same_tools_and_their_own_designs(
    server: Server, desk: Desk
) -> None:
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    url = f"{server.url}/gradio_api/mcp/"
    key = {"Authorization": "Bearer " + "m" * 30}
    async with (
        httpx.AsyncClient(headers=key, timeout=60) as client,
        streamable_http_client(url, http_client=client) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        tools = {tool.name: tool for tool in (await session.list_tools()).tools}
        assert {f"/{name}" for name in tools} == ENDPOINTS
        asked = tools["design"].inputSchema["properties"]
        assert "request" not in asked and "What to design" in asked["concept"]["description"]
        order = {"concept": CONCEPT, "rounds": 1, "size": "64", "structure": "none"}
        answer = await session.call_tool("design", order)
        assert not answer.isError
        made = ast.literal_eval(answer.content[0].text)
        assert made["concept"] == CONCEPT
        listed = await session.call_tool("designs", {})
        assert made["id"] in listed.content[0].text
        refused = await session.call_tool("design", {"concept": ""})
        assert refused.isError and "wanted a concept" in refused.content[0].text
