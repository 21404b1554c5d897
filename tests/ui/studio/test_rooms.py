"""The way from the pages to the rooms: what is asked, what is sent, and to whom."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from orbweave.errors import UsageError
from ui.studio.gate import OWNER_HEADER
from ui.studio.rooms import FILES, QUESTIONS, Ask, Part, Seen, Upload, answerer, sender


class Echo:
    """Shows what it was asked, and one file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def look(self, owner: str, asked: Ask) -> Seen:
        if asked.at == "gone":
            raise UsageError("wanted one of yours")
        return Seen([Part("who", owner), Part("fields", str(asked.fields))], bool(asked.at))

    def act(self, owner: str, asked: Ask) -> str:
        if asked.do == "break":
            raise UsageError("wanted something whole")
        return "".join(file.content.decode() for file in asked.files)

    def file(self, owner: str, name: str, path: str) -> tuple[Path, str] | None:
        return (self._file, "mine.csv") if (owner, name) == ("ann", "it") else None


@pytest.fixture
async def ann(tmp_path) -> AsyncIterator[httpx.AsyncClient]:
    (tmp_path / "results.csv").write_text("a,b\n")
    rooms = {"echo": Echo(tmp_path / "results.csv")}
    routes = [Route(FILES, sender(rooms)), Route(QUESTIONS, answerer(rooms), methods=["POST"])]
    transport = httpx.ASGITransport(Starlette(routes=routes))
    headers = {OWNER_HEADER: "ann"}
    async with httpx.AsyncClient(transport=transport, base_url="http://x", headers=headers) as one:
        yield one


async def test_only_what_changed_is_sent_again(ann):
    first = (await ann.post("/room/echo/look", json={"fields": {"a": "1"}})).json()
    assert first["keys"] == ["who", "fields"]
    assert first["parts"]["who"]["html"] == "ann"
    known = {key: part["digest"] for key, part in first["parts"].items()}
    asked = {"at": "it", "known": known, "fields": {"a": "2"}}
    second = (await ann.post("/room/echo/look", json=asked)).json()
    assert list(second["parts"]) == ["fields"]
    assert second["wait_s"] < first["wait_s"]


async def test_faults_are_told_in_words_and_the_page_stays_of_use(ann):
    found = (await ann.post("/room/echo/look", json={"at": "gone"})).json()
    assert (found["fault"], found["keys"]) == ("wanted one of yours", ["who", "fields"])
    assert (await ann.post("/room/echo/act", json={"do": "break"})).json()["fault"]


async def test_uploads_come_through_as_they_are_or_are_refused(ann):
    sent = {"name": "t.csv", "data": "data:text/csv;base64,YSxi"}
    assert (await ann.post("/room/echo/act", json={"files": [sent]})).json()["at"] == "a,b"
    broken = {"files": [sent | {"data": "data:,%%"}]}
    assert "came broken" in (await ann.post("/room/echo/act", json=broken)).json()["fault"]
    with pytest.raises(UsageError):
        _ = Upload(name="x", data="x,é").content


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        ("{}", "text/plain", 415),
        ("x" * 8_000_001, "application/json", 413),
        ("not json", "application/json", 200),
        ("[" * 100_000, "application/json", 200),
        ('{"more": 1}', "application/json", 200),
        ("null", "application/json", 200),
    ],
)
async def test_what_no_page_of_ours_asks_is_refused(ann, content, kind, status):
    headers = {"content-type": kind}
    answer = await ann.post("/room/echo/look", content=content, headers=headers)
    assert answer.status_code == status
    if status == 200:
        assert answer.json()["fault"] == "wanted something the studio can do"


async def test_files_go_to_their_owner_under_a_name(ann):
    answer = await ann.get("/room/echo/file/it/results.csv")
    assert answer.text == "a,b\n"
    assert 'filename="mine.csv"' in answer.headers["content-disposition"]
    assert (await ann.get("/room/echo/file/other/results.csv")).status_code == 404
    eve = {OWNER_HEADER: "eve"}
    assert (await ann.get("/room/echo/file/it/results.csv", headers=eve)).status_code == 404
    assert (await ann.get("/room/none/file/it/results.csv")).status_code == 404
    assert (await ann.post("/room/none/look", json={})).status_code == 404
    assert (await ann.post("/room/echo/open", json={})).status_code == 404
