"""The way from the page's script to the desk: one address for looking, one for acting.

Addresses of our own, not Gradio's: those name a component of one start of the server, and a
page that was left open must find its design after a restart.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from ui.studio import asking
from ui.studio.desk import Desk
from ui.studio.gate import OWNER_HEADER

__all__ = ["QUESTIONS", "answerer"]

QUESTIONS = "/table/{question}"
ANSWERS = {"look": asking.look, "act": asking.act}
MAX_BYTES = 500_000
"""A question holds a turn's text, or the digests of some hundred parts."""


def answerer(desk: Desk) -> Callable[[Request], Awaitable[Response]]:
    """Return the handler of `QUESTIONS`."""

    async def answer(request: Request) -> Response:
        question = ANSWERS.get(request.path_params["question"])
        if question is None:
            return PlainTextResponse("wanted look or act", 404)
        # Only a page of ours can send this type without being asked first by the browser.
        if request.headers.get("content-type") != "application/json":
            return PlainTextResponse("wanted application/json", 415)
        body = await request.body()
        if len(body) > MAX_BYTES:
            return PlainTextResponse(f"wanted at most {MAX_BYTES:,} bytes", 413)
        try:
            asked = json.loads(body)
        except ValueError:
            return PlainTextResponse("wanted JSON", 400)
        owner = request.headers[OWNER_HEADER]
        return JSONResponse(await run_in_threadpool(question, desk, owner, asked))

    return answer
