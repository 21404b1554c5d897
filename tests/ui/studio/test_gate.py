"""Who comes in, and what one browser can reach of another's."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator

import httpx
import pytest

from imagegen.png import read_note
from orbweave.errors import UsageError
from ui.studio.desk import Desk
from ui.studio.gate import OWNER_HEADER, Gate, read_auth

from .conftest import GRADIO_WARNS, Server, wait_until, wish

pytestmark = GRADIO_WARNS


async def _echo(scope, receive, send):
    """Answer with the owner that the gate found."""
    owner = dict(scope["headers"]).get(OWNER_HEADER.encode(), b"")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": owner})


def _client(**how) -> httpx.AsyncClient:
    gate = Gate(_echo, **({"passwords": {}, "only_local": True} | how))
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=gate), base_url="http://localhost:7860"
    )


async def test_a_browser_is_known_again_by_its_cookie_and_two_are_two():
    async with _client() as one, _client() as other:
        first, again, second = await one.get("/"), await one.get("/"), await other.get("/")
    assert first.text == again.text != second.text
    assert first.text.startswith("guest-")
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie
    assert "set-cookie" not in again.headers


async def test_an_owner_cannot_be_claimed_nor_read_off_the_cookie():
    async with _client() as one:
        owner = (await one.get("/")).text
        claimed = await one.get("/", headers={OWNER_HEADER: "guest-of-another"})
        assert claimed.text == owner
        assert one.cookies["orbweave"] not in owner


async def test_a_password_is_asked_for_and_its_name_is_the_owner():
    async with _client(passwords={"ann": "pä:ss", "ben": "b"}) as one:
        refused = await one.get("/")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Basic")
        assert (await one.get("/", auth=("ann", "wrong"))).status_code == 401
        assert (await one.get("/", auth=("eve", ""))).status_code == 401
        let_in = await one.get("/", auth=("ann", "pä:ss"))
        assert let_in.text.startswith("ann-")
        assert (await one.get("/", auth=("ben", "b"))).text != let_in.text


@pytest.mark.parametrize("header", ["Basic !!!", "Basic", "Bearer x", "Basic /w=="])
async def test_a_broken_password_header_is_a_refusal(header):
    async with _client(passwords={"ann": "a"}) as one:
        assert (await one.get("/", headers={"authorization": header})).status_code == 401


async def test_a_program_is_known_by_a_key_of_its_own_but_never_in_place_of_a_password():
    key = {"authorization": "Bearer " + "k" * 20}
    async with _client() as one, _client() as other, _client() as third:
        first, again = await one.get("/", headers=key), await other.get("/", headers=key)
        assert first.text == again.text and "set-cookie" not in first.headers
        assert "k" * 20 not in first.text
        short = await third.get("/", headers={"authorization": "Bearer short"})
        assert short.text != first.text and "set-cookie" in short.headers
    async with _client(passwords={"ann": "a"}) as one:
        assert (await one.get("/", headers=key)).status_code == 401


async def test_another_name_for_this_machine_is_refused():
    async with _client() as one:
        assert (await one.get("/", headers={"host": "evil.example:7860"})).status_code == 421
        for host in ("127.0.0.1:7860", "localhost", "[::1]:7860"):
            assert (await one.get("/", headers={"host": host})).status_code == 200
    async with _client(only_local=False) as one:
        assert (await one.get("/", headers={"host": "lab.example"})).status_code == 200


async def test_other_sites_may_link_but_not_press_and_floods_are_refused():
    async with _client() as one:
        elsewhere = {"sec-fetch-site": "cross-site"}
        assert (await one.get("/", headers=elsewhere)).status_code == 200
        assert (await one.post("/", headers=elsewhere)).status_code == 403
        assert (await one.post("/", headers={"content-length": "99000000"})).status_code == 413


def test_passwords_come_from_the_option_or_a_file(tmp_path):
    file = tmp_path / "people"
    file.write_text("# the lab\nann:a:b\n\nben:b\n")
    assert read_auth("ann:secret") == {"ann": "secret"}
    assert read_auth(str(file)) == {"ann": "a:b", "ben": "b"}
    for wrong in ("ann", "ann:", ":b"):
        with pytest.raises(UsageError, match="wanted --auth as NAME:PASSWORD"):
            read_auth(wrong)
    file.write_text("\n")
    with pytest.raises(UsageError, match="found none"):
        read_auth(str(file))


@pytest.fixture
def server(desk: Desk) -> Iterator[Server]:
    server = Server(desk)
    yield server
    server.close()


def test_files_go_to_their_owner_untouched_and_nothing_else_goes_out(desk, server):
    with httpx.Client(base_url=server.url, timeout=30) as ann, httpx.Client() as eve:
        wait_until(lambda: ann.get("/").status_code == 200, "the pages are there", timeout_s=300)
        token = ann.cookies["orbweave"]
        owner = _owner(token)
        sitting = desk.start(owner, wish().row())
        wait_until(lambda: sitting.status == "done", "the design ended")
        place = f"/sitting/{sitting.id}"
        kept = sorted((sitting.folder / "pictures").glob("v0*.png"))[0]
        answer = ann.get(f"{place}/picture/{kept.name}")
        assert answer.content == kept.read_bytes()
        assert read_note(kept).request.seeds == (0,)
        archive = zipfile.ZipFile(io.BytesIO(ann.get(f"{place}/design.zip").content))
        assert archive.testzip() is None
        report = ann.get(f"{place}/report.html")
        assert report.headers["content-security-policy"].startswith("default-src 'none'")
        for path in (f"picture/{kept.name}", "design.zip", "report.html"):
            assert eve.get(f"{server.url}{place}/{path}").status_code == 404
        for path in (
            "picture/../order.json",
            "picture/%2e%2e/order.json",
            "picture/..%2forder.json",
            "order.json",
            "journal.jsonl",
            "picture/",
            "",
        ):
            assert ann.get(f"{place}/{path}").status_code in {404, 422}, path
        asked = {"design": sitting.id}
        assert ann.post("/table/look", json=asked).json()["status"] == "done"
        assert eve.post(f"{server.url}/table/look", json=asked).json()["fault"]
        as_form = ann.post("/table/look", content=json.dumps(asked))
        assert (as_form.status_code, ann.post("/table/eat", json={}).status_code) == (415, 404)
        assert ann.post("/gradio_api/mcp/", json={}).status_code in {404, 405}  # not switched on
        served = ann.get(f"/gradio_api/file={sitting.folder / 'order.json'}")
        assert served.status_code in {403, 404}


def test_a_guess_at_the_pages_questions_is_answered_politely(desk):
    from ui.studio.asking import act, look

    for nonsense in (None, 7, "x", {"design": 5}, {"known": {"a": 1}}, {"design": "a" * 99}):
        assert look(desk, "ann", nonsense)["fault"]
        assert act(desk, "ann", nonsense)["fault"]
    assert "found none of that name" in look(desk, "ann", {"design": "nope"})["fault"]
    assert "found none of that name" in act(desk, "ann", {"design": "no", "do": "stop"})["fault"]


def _owner(token: str) -> str:
    from ui.studio.gate import _owner_of_token

    return _owner_of_token(token)
