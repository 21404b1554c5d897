"""Answers from the first second: a page that says so while Gradio is still being imported."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from ui.studio.gate import App, Message, Receive, Scope, Send

__all__ = ["Front"]

logger = logging.getLogger(__name__)

OPENING = b"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><meta http-equiv="refresh" content="1">
<title>Orbweave is opening</title><style>
body{font:18px/1.6 ui-serif,Georgia,serif;margin:18vh auto;max-width:28em;padding:0 1em;
color:#26231d;background:#faf7f0}
@media (prefers-color-scheme:dark){body{color:#e9e4d8;background:#191815}}
</style></head><body><h1>The studio is opening</h1>
<p role="status">A few seconds; this page turns into it by itself.</p></body></html>"""


class Front:
    """An ASGI application that builds another one beside the event loop.

    Args:
        build: Returns the application, with `router.lifespan_context`; takes seconds.
    """

    def __init__(self, build: Callable[[], Any]) -> None:
        self._build = build
        self._app: App | None = None
        self._fault = ""
        self._closing: asyncio.Event | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on, or say that it is too early."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif self._app is not None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._excuse(send)

    async def _live(self, receive: Receive, send: Send) -> None:
        self._closing = asyncio.Event()
        await receive()
        opening = asyncio.create_task(self._open(self._closing))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._closing.set()
        await opening
        await send({"type": "lifespan.shutdown.complete"})

    async def _open(self, closing: asyncio.Event) -> None:
        """Build the application and keep it alive until the server closes."""
        try:
            app = await asyncio.to_thread(_in_a_loop, self._build)
        except Exception as err:
            logger.exception("the studio could not be opened")
            self._fault = f"The studio could not be opened: {type(err).__name__}: {err}"
            return
        async with app.router.lifespan_context(app):
            self._app = app
            await closing.wait()

    async def _excuse(self, send: Send) -> None:
        kind = b"text/plain; charset=utf-8" if self._fault else b"text/html; charset=utf-8"
        start: Message = {
            "type": "http.response.start",
            "status": 500 if self._fault else 503,
            "headers": [(b"content-type", kind), (b"retry-after", b"1")],
        }
        await send(start)
        await send({"type": "http.response.body", "body": self._fault.encode() or OPENING})


def _in_a_loop(build: Callable[[], Any]) -> Any:
    """Return what `build` returns; without a running loop Gradio opens some and closes none."""

    async def once() -> Any:
        return build()

    return asyncio.run(once())
