"""The way from the batch, merge and judge pages to what works behind them.

Every page asks `look` for what it shows and `act` for what somebody pressed, as the table does,
and links to files. What belongs to nobody here is 404.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response

from orbweave.errors import OrbweaveError, UsageError
from orbweave.records import Record
from ui.studio.gate import OWNER_HEADER

__all__ = ["FILES", "QUESTIONS", "Ask", "Part", "Room", "Seen", "Upload", "answerer", "sender"]

QUESTIONS = "/room/{room}/{question}"
FILES = "/room/{room}/file/{name}/{path:path}"
MAX_BYTES = 8_000_000
"""A question holds a form, and at most the files somebody uploads, in base 64."""
BUSY_S, IDLE_S = 0.7, 5.0
"""How often a page looks while something is under way, and else."""
KINDS = {
    ".png": "image/png",
    ".csv": "text/csv",
    ".parquet": "application/vnd.apache.parquet",
    ".zip": "application/zip",
    ".yaml": "application/yaml",
    ".jsonl": "application/jsonl",
}


class Upload(Record):
    """A file of the person's own."""

    name: str = Field(max_length=300)
    data: str
    """Its bytes as a data address, in base 64."""

    @property
    def content(self) -> bytes:
        """The file's bytes.

        Raises:
            UsageError: they cannot be read.
        """
        try:
            return base64.b64decode(self.data.partition(",")[2], validate=True)
        except (binascii.Error, ValueError) as err:
            raise UsageError("wanted a file, its bytes came broken; try again") from err


class Ask(Record):
    """A page looks, or somebody pressed a button."""

    at: str = Field(default="", max_length=64)
    """What the page shows: the name of a batch, a merge or a judging; empty for none."""
    known: dict[str, str] = Field(default_factory=dict, max_length=2_000)
    """Digests of the parts the page shows, by their keys."""
    do: str = Field(default="", max_length=40)
    value: str = Field(default="", max_length=200)
    """What the button stands for."""
    fields: dict[str, str] = Field(default_factory=dict, max_length=100)
    """The form as it stands."""
    files: tuple[Upload, ...] = Field(default=(), max_length=10)


class Part(NamedTuple):
    """One piece of a page that changes as a whole."""

    key: str
    html: str

    @property
    def digest(self) -> str:
        """Short hash of the HTML."""
        return hashlib.sha256(self.html.encode()).hexdigest()[:12]


class Seen(NamedTuple):
    """What a room shows."""

    parts: Sequence[Part]
    is_busy: bool
    """Whether something is under way, so that it is worth looking again soon."""


class Room(Protocol):
    """What stands behind one page."""

    def look(self, owner: str, asked: Ask) -> Seen:
        """Return what the page shows.

        Raises:
            OrbweaveError: it cannot be shown, in words for the person.
        """
        ...

    def act(self, owner: str, asked: Ask) -> str:
        """Do what a button says; return the name of what is to be shown then.

        Raises:
            OrbweaveError: it cannot be done.
        """
        ...

    def file(self, owner: str, name: str, path: str) -> tuple[Path, str] | None:
        """Return a file and its name for a download, empty to show it; None if there is none.

        Raises:
            OrbweaveError: the owner has nothing of that name.
        """
        ...


def answerer(rooms: Mapping[str, Room]) -> Callable[[Request], Awaitable[Response]]:
    """Return the handler of `QUESTIONS`."""

    async def answer(request: Request) -> Response:
        room = rooms.get(request.path_params["room"])
        question = request.path_params["question"]
        if room is None or question not in ("look", "act"):
            return PlainTextResponse("wanted look or act of a page", 404)
        # Only a page of ours can send this type without being asked first by the browser.
        if request.headers.get("content-type") != "application/json":
            return PlainTextResponse("wanted application/json", 415)
        body = await request.body()
        if len(body) > MAX_BYTES:
            return PlainTextResponse(f"wanted at most {MAX_BYTES:,} bytes", 413)
        owner = request.headers[OWNER_HEADER]
        try:
            asked = Ask.model_validate(json.loads(body))
        except (ValueError, RecursionError):  # a fault of pydantic is a ValueError
            return JSONResponse(_fault("wanted something the studio can do"))
        return JSONResponse(await run_in_threadpool(_answer, room, question, owner, asked))

    return answer


def sender(rooms: Mapping[str, Room]) -> Callable[[Request], Awaitable[Response]]:
    """Return the handler of `FILES`."""

    async def send(request: Request) -> Response:
        given = request.path_params
        found = None
        if given["room"] in rooms:
            owner, room = request.headers[OWNER_HEADER], rooms[given["room"]]
            with suppress(OrbweaveError):
                found = await run_in_threadpool(room.file, owner, given["name"], given["path"])
        if found is None:
            return PlainTextResponse(f"wanted {given['path']!r} of yours, there is none", 404)
        path, name = found
        return FileResponse(path, media_type=KINDS[path.suffix], filename=name or None)

    return send


def _answer(room: Room, question: str, owner: str, asked: Ask) -> dict[str, Any]:
    try:
        if question == "act":
            return {"at": room.act(owner, asked), "fault": ""}
        seen = room.look(owner, asked)
    except OrbweaveError as err:
        if question == "look" and asked.at:  # what can be begun is shown all the same
            bare = asked.model_copy(update={"at": ""})
            return _answer(room, question, owner, bare) | {"at": asked.at, "fault": str(err)}
        return _fault(str(err), asked.at)
    return {
        "at": asked.at,
        "fault": "",
        "wait_s": BUSY_S if seen.is_busy else IDLE_S,
        "keys": [part.key for part in seen.parts],
        "parts": _fresh(seen.parts, asked.known),
    }


def _fresh(parts: Sequence[Part], known: Mapping[str, str]) -> dict[str, dict[str, str]]:
    return {
        part.key: {"html": part.html, "digest": part.digest}
        for part in parts
        if known.get(part.key) != part.digest
    }


def _fault(text: str, at: str = "") -> dict[str, Any]:
    return {"at": at, "fault": text, "wait_s": IDLE_S, "keys": [], "parts": {}}
