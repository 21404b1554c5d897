"""The web server: models, teams and pictures behind OpenAI's addresses.

    GET  /v1/models
    POST /v1/chat/completions      whole or as a stream
    POST /v1/images/generations

The one file that touches FastAPI and uvicorn.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import ipaddress
import json
import logging
import secrets
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agents.generation import Reply
from orbweave.errors import (
    EngineError,
    ModelError,
    OrbweaveError,
    OutputError,
    UsageError,
    shown,
)
from ui.serve_designer import Designer
from ui.serve_forms import ChatForm, ImageForm
from ui.serve_shelf import TEAM, Shelf

__all__ = ["Guard", "application", "serve"]

_log = logging.getLogger(__name__)
T = TypeVar("T")

_MAX_BODY_BYTES = 1 << 20
_TOO_MANY_BYTES = f"wanted a body of at most {_MAX_BODY_BYTES:,} bytes, got more"
_DEFAULT_TOKENS = 512
"""Of a reply whose length was left to us, if there is room."""
_LEAVE_S = 3
"""Given to connections that are open when the server is stopped."""
_GONE = 499
"""What nginx calls a client that went away; nobody reads it."""
_PICTURES = "/v1/pictures/"


@dataclass(frozen=True)
class Guard:
    """Who may ask."""

    host: str
    token: str | None = None

    def __post_init__(self) -> None:
        """Raise UsageError if others than this machine could ask without a token."""
        if not self.is_local and not self.token:
            raise UsageError(
                f"wanted a token for clients of {self.host}, which other machines can reach, got "
                "none; put one into a variable and give --auth-token-env NAME, or stay on 127.0.0.1"
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the host."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def lets_in(self, request: Request) -> bool:
        """Whether a request carries the token, if there is one."""
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        return self.token is None or hmac.compare_digest(given.encode(), self.token.encode())

    def knows_host(self, request: Request) -> bool:
        """Whether a local server is called by a local name.

        Otherwise a web page could have its own name lead here and ask in its visitor's browser.
        """
        called = request.url.hostname or ""
        return not self.is_local or called in {"localhost", "127.0.0.1", "::1", self.host}


def serve(
    shelf: Shelf,
    designer: Designer,
    guard: Guard,
    port: int,
    on_start: Callable[[str], None],
) -> None:
    """Serve until the process is interrupted; engines are closed and threads have ended then.

    Args:
        shelf: Models.
        designer: Teams and pictures.
        guard: Where to listen and whom to let in.
        port: 0 takes a free one.
        on_start: Told the address once clients can connect.

    Raises:
        OutputError: the port is taken, or the host is not this machine's.
    """
    family = socket.AF_INET6 if ":" in guard.host else socket.AF_INET
    try:
        listening = socket.create_server((guard.host, port), family=family)
    except OSError as err:
        raise OutputError(
            f"wanted to listen on {guard.host} port {port}, the system said "
            f"{err.strerror or err}; choose another --port or --host"
        ) from err
    name = f"[{guard.host}]" if ":" in guard.host else guard.host
    address = f"http://{name}:{listening.getsockname()[1]}/v1"
    config = uvicorn.Config(
        application(shelf, designer, guard, on_start=lambda: on_start(address)),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_LEAVE_S,
    )
    with listening:
        uvicorn.Server(config).run(sockets=[listening])


def application(
    shelf: Shelf, designer: Designer, guard: Guard, on_start: Callable[[], None] = lambda: None
) -> FastAPI:
    """Return the web application."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        on_start()
        yield
        await designer.close()
        await shelf.close()

    # Its pages of documentation would load scripts from elsewhere.
    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(_Door, guard=guard)
    app.add_exception_handler(OrbweaveError, _told)
    app.add_exception_handler(RequestValidationError, _told)
    app.add_exception_handler(HTTPException, _told)
    app.add_exception_handler(Exception, _told)

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        cards = [_card(name) for name in shelf.names()]
        return {"object": "list", "data": cards}

    @app.get("/v1/models/{name:path}")
    def model(name: str) -> dict[str, Any]:
        if name not in shelf.names():
            shelf.team(name) if name.startswith(TEAM) else shelf.check(name)
        return _card(name)

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(form: ChatForm, request: Request) -> Response:
        form.refuse_what_is_not_here()
        pieces = _chat(form, shelf, designer, f"{request.base_url}{_PICTURES.lstrip('/')}")
        # The first piece decides between a reply and an error with a status of its own.
        first = await _unless_gone(request, anext(pieces))
        answer = _Answer(form)
        if form.stream:
            return StreamingResponse(answer.stream(first, pieces), media_type="text/event-stream")
        return JSONResponse(await _unless_gone(request, answer.whole(first, pieces)))

    @app.post("/v1/images/generations", response_model=None)
    async def images(form: ImageForm, request: Request) -> Response:
        files = await _unless_gone(request, designer.draw(form))
        if form.response_format == "b64_json":
            data = [{"b64_json": base64.b64encode(f.read_bytes()).decode()} for f in files]
        else:
            base = f"{request.base_url}{_PICTURES.lstrip('/')}"
            data = [{"url": f"{base}{designer.pictures.publish(f)}"} for f in files]
        return JSONResponse({"created": int(time.time()), "data": data})

    @app.get(_PICTURES + "{name}", response_model=None)
    def picture(name: str) -> Response:
        file = designer.pictures.find(name)
        if file is None or not file.is_file():
            return _error(404, f"wanted the picture {shown(name)}, found none")
        return FileResponse(file, media_type="image/png")

    return app


async def _chat(
    form: ChatForm, shelf: Shelf, designer: Designer, pictures: str
) -> AsyncGenerator[str | Reply, None]:
    """Yield pieces of text and, last, the reply of a model or a team."""
    if form.model.startswith(TEAM):
        async with aclosing(designer.talk(form, pictures)) as turns:
            async for piece in turns:
                yield piece
        return
    async with shelf.lend_here(form.model) as engine:
        messages = form.generation(1).messages
        room = engine.context_tokens - engine.count_tokens(messages)
        limit = form.limit or min(_DEFAULT_TOKENS, max(room - 64, 1))
        if limit > room:
            raise _TooLong(
                f"wanted {limit:,} tokens after a chat of {engine.context_tokens - room:,}, "
                f"{form.model} holds {engine.context_tokens:,}; shorten the chat or ask for fewer"
            )
        request = form.generation(limit)
        n_begun = len(request.prefix)  # the client has it already
        stream: Any = engine.stream(request)
        async with aclosing(stream) as said:
            async for piece in said:
                if isinstance(piece, Reply):
                    yield piece._replace(text=piece.text[len(request.prefix) :])
                    return
                if fresh := piece[n_begun:]:
                    yield fresh
                n_begun = max(0, n_begun - len(piece))


class _TooLong(UsageError):
    """A chat that the model cannot hold."""

    code = "context_length_exceeded"


class _Answer:
    """One chat answer in OpenAI's form."""

    def __init__(self, form: ChatForm) -> None:
        self._form = form
        self._head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": form.model,
        }

    async def whole(
        self, first: str | Reply, rest: AsyncGenerator[str | Reply, None]
    ) -> dict[str, Any]:
        """Return the answer once it is complete."""
        reply = first
        async with aclosing(rest):
            async for piece in rest:
                reply = piece
        assert isinstance(reply, Reply)  # engines promise to end with it
        message = {"role": "assistant", "content": reply.text}
        choice = {"index": 0, "message": message, "finish_reason": reply.finish, "logprobs": None}
        return self._head | {
            "object": "chat.completion",
            "choices": [choice],
            "usage": _usage(reply),
        }

    async def stream(
        self, first: str | Reply, rest: AsyncGenerator[str | Reply, None]
    ) -> AsyncIterator[str]:
        """Yield the answer as events; an error after its beginning is an event too."""
        async with aclosing(rest):
            try:
                yield self._event({"role": "assistant", "content": ""})
                piece = first
                while not isinstance(piece, Reply):
                    yield self._event({"content": piece})
                    piece = await anext(rest)
            except (OrbweaveError, StopAsyncIteration) as err:
                told = _document(_status(err), str(err), code=_code(err))
                yield f"data: {json.dumps(told)}\n\n"
                return
        yield self._event({}, piece.finish)
        if self._form.usage_wanted:
            chunk = {"object": "chat.completion.chunk", "choices": [], "usage": _usage(piece)}
            yield f"data: {json.dumps(self._head | chunk)}\n\n"
        yield "data: [DONE]\n\n"

    def _event(self, delta: dict[str, str], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        chunk = self._head | {"object": "chat.completion.chunk", "choices": [choice]}
        return f"data: {json.dumps(chunk)}\n\n"


def _usage(reply: Reply) -> dict[str, int]:
    return {
        "prompt_tokens": reply.n_prompt_tokens,
        "completion_tokens": reply.n_tokens,
        "total_tokens": reply.n_prompt_tokens + reply.n_tokens,
    }


def _card(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "orbweave"}


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; cancel it as soon as the client hangs up."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_hang_up(request))
    try:
        await asyncio.wait([task, watch], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise HTTPException(_GONE, "the client hung up")
        return task.result()
    finally:
        for each in (task, watch):
            each.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _hang_up(request: Request) -> None:
    """Return when the client has hung up; the body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


# ---------------------------------------------------------------- errors


def _told(request: Request, err: Exception) -> Response:
    """Return any error in OpenAI's form."""
    status = _status(err)
    if status >= 500 and not isinstance(err, OrbweaveError):
        _log.error("a fault of the server itself", exc_info=err)
        return _error(status, "the server failed; its log says why")
    if isinstance(err, RequestValidationError):
        first = err.errors()[0]
        field = ".".join(str(part) for part in first["loc"] if part != "body")
        return _error(status, f"{field or 'body'}: {first['msg']}", field or None)
    if isinstance(err, HTTPException):
        return _error(status, _refused(request, err))
    return _error(status, str(err), code=_code(err))


def _refused(request: Request, err: HTTPException) -> str:
    """Return what the framework refuses, in our words."""
    if err.status_code not in (404, 405):
        return str(err.detail)
    return (
        f"wanted an address of this server, got {request.method} {shown(request.url.path)}; there "
        "are GET /v1/models, POST /v1/chat/completions and POST /v1/images/generations"
    )


def _status(err: Exception) -> int:
    """Return the HTTP status of an error."""
    if isinstance(err, HTTPException):
        return err.status_code
    if isinstance(err, RequestValidationError | UsageError):
        return 400
    if isinstance(err, ModelError):
        return 404
    return 503 if isinstance(err, EngineError) else 500


def _code(err: Exception) -> str | None:
    """Return what clients look for, of an error of ours."""
    if isinstance(err, _TooLong):
        return err.code
    return "model_not_found" if isinstance(err, ModelError) else None


def _error(
    status: int, text: str, field: str | None = None, code: str | None = None
) -> JSONResponse:
    return JSONResponse(_document(status, text, field, code), status_code=status)


def _document(
    status: int, text: str, field: str | None = None, code: str | None = None
) -> dict[str, Any]:
    kinds = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    named = code or ("invalid_api_key" if status == 401 else None)
    return {"error": {"message": text, "type": kind, "param": field, "code": named}}


class _Door:
    """Lets in who may ask, with bodies of a length that we are asked for."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app, self._guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(Request(scope))
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        n_bytes = 0

        async def counted() -> Message:
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes > _MAX_BODY_BYTES:
                raise HTTPException(413, _TOO_MANY_BYTES)
            return message

        await self._app(scope, counted, send)

    def _refusal(self, request: Request) -> Response | None:
        if not self._guard.knows_host(request):
            return _error(403, f"wanted a local name, got {shown(request.url.hostname)}")
        # Pictures have names that nobody can guess, and Markdown viewers send no key.
        if not request.url.path.startswith(_PICTURES) and not self._guard.lets_in(request):
            return _error(401, "wanted the server's token as the API key, got another")
        length = request.headers.get("content-length", "0")
        if not length.isdigit() or int(length) > _MAX_BODY_BYTES:
            return _error(413, _TOO_MANY_BYTES)
        return None
