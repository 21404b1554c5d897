"""Who comes in: a name and password, or else a cookie that tells one browser from another.

A program without a password sends a key of its own choice in the cookie's place, `Authorization:
Bearer KEY`; where passwords are asked for, a key is none.

Every request passes here before Gradio sees it, and carries from then on who sent it in the
header `OWNER_HEADER`; what a browser writes there itself is thrown away.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser

from orbweave.errors import UsageError

__all__ = ["OWNER_HEADER", "Gate", "read_auth"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OWNER_HEADER = "x-orbweave-owner"
COOKIE = "orbweave"
COOKIE_AGE_S = 10 * 365 * 24 * 3600
MAX_BODY_BYTES = 25_000_000
"""Longer requests are refused unread; a form is some kilobytes, an upload at most 20 MB."""
CLOSED = ("/gradio_api/upload", "/gradio_api/file", "/gradio_api/proxy")
"""Gradio's, of use to none of our pages: it would fetch from anywhere for anybody."""
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]", "::1"})
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; media-src 'self' data: blob:; worker-src 'self' blob:; "
    "frame-ancestors 'self'; base-uri 'self'; form-action 'self'"
)
"""Nothing is fetched from or sent to another machine; Gradio needs the inline scripts."""


def read_auth(given: str) -> dict[str, str]:
    """Return passwords by name, of `NAME:PASSWORD` or of a file with one such line each.

    Raises:
        UsageError: neither, or a name or password is empty.
    """
    path = Path(given)
    try:
        lines = path.read_text("utf-8").splitlines() if path.is_file() else [given]
    except (OSError, UnicodeDecodeError) as err:
        raise UsageError(f"wanted names and passwords in {path}, it cannot be read: {err}") from err
    known: dict[str, str] = {}
    for line in (line.strip() for line in lines):
        if not line or line.startswith("#"):
            continue
        name, colon, password = line.partition(":")
        if not (name and colon and password):
            raise UsageError("wanted --auth as NAME:PASSWORD or a file of such lines; one is not")
        known[name] = password
    if not known:
        raise UsageError("wanted at least one NAME:PASSWORD for --auth, found none")
    return known


class Gate:
    """An ASGI application in front of another.

    Args:
        app: Is asked once somebody is let in.
        passwords: By name; empty lets everybody in, each browser with designs of its own.
        only_local: Refuse requests that were addressed to another name than this machine's own:
            a page elsewhere could have had that name point here.
    """

    def __init__(self, app: App, *, passwords: Mapping[str, str], only_local: bool) -> None:
        self._app = app
        self._passwords = passwords
        self._only_local = only_local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in or answer it."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        name = self._name(headers)
        if self._passwords and name is None:
            # ASCII only: browsers show the realm as it is.
            challenge = (b"www-authenticate", b'Basic realm="Orbweave", charset="UTF-8"')
            await _answer(send, 401, "Please give the name and password of this studio.", challenge)
            return
        token = _key(headers) or _token(headers)
        fresh = "" if token or name is not None else secrets.token_urlsafe(32)
        owner = _owner_of(name) if name is not None else _owner_of_token(token or fresh)
        bare = [(k, v) for k, v in scope["headers"] if k.lower() != OWNER_HEADER.encode()]
        inner = {**scope, "headers": [*bare, (OWNER_HEADER.encode(), owner.encode())]}

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": _guarded(message.get("headers", []), fresh)}
            await send(message)

        n_bytes = 0

        async def counted() -> Message:
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes > MAX_BODY_BYTES:  # sent in chunks, without a length
                raise HTTPException(413, "This is too long; shorten it.")
            return message

        await self._app(inner, counted, send_on)

    def _refusal(self, scope: Scope, headers: Mapping[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if self._only_local and host.rpartition(":")[0 if ":" in host else 2] not in LOOPBACK:
            return 421, "This studio answers to 127.0.0.1 and localhost only."
        # A page of another site may link here, but not press buttons.
        # Browsers name the site only to https and to this machine; elsewhere the origin tells.
        site, origin = headers.get("sec-fetch-site"), headers.get("origin", "")
        is_foreign = (
            site == "cross-site" if site else bool(origin) and urlsplit(origin).netloc != host
        )
        if is_foreign and scope.get("method") != "GET":
            return 403, "This came from a page of another site."
        if scope.get("path", "").startswith(CLOSED):
            return 403, "This studio takes no uploads and fetches nothing."
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > MAX_BODY_BYTES:
            return 413, f"Wanted at most {MAX_BODY_BYTES / 1e6:.0f} MB, got more; shorten it."
        return None

    def _name(self, headers: Mapping[str, str]) -> str | None:
        """Return who gave a right password; None without one."""
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() != "basic":
            return None
        try:
            name, _, password = base64.b64decode(given, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        # Compared in any case: the time taken must not tell which names there are.
        right = self._passwords.get(name, "")
        same = secrets.compare_digest(password.encode(), right.encode())
        return name if same and right else None


def _key(headers: Mapping[str, str]) -> str:
    """Return what a program calls itself by, as long as a cookie; empty without one."""
    kind, _, given = headers.get("authorization", "").partition(" ")
    return given if kind.lower() == "bearer" and 20 <= len(given) <= 100 else ""


def _token(headers: Mapping[str, str]) -> str:
    """Return the browser's own cookie; empty without one that could be ours."""
    # Not SimpleCookie: one odd cookie of another program on this host would lose ours.
    found: str = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
    return found if 20 <= len(found) <= 100 else ""


def _owner_of(name: str) -> str:
    """Return a folder's name for somebody: readable, and different for different people."""
    readable = "".join(c for c in name if c.isascii() and c.isalnum())[:20]
    return f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _owner_of_token(token: str) -> str:
    """Return a folder's name for a browser; the cookie cannot be told from it."""
    return f"guest-{hashlib.sha256(token.encode()).hexdigest()[:24]}"


def _guarded(headers: Any, fresh: str) -> list[tuple[bytes, bytes]]:
    """Return response headers with those that keep a page to itself, and a new cookie."""
    given = {name.lower() for name, _ in headers}
    ours = {
        b"content-security-policy": POLICY.encode(),
        b"x-content-type-options": b"nosniff",
        b"referrer-policy": b"same-origin",
    }
    added = [(name, value) for name, value in ours.items() if name not in given]
    if fresh:
        cookie = f"{COOKIE}={fresh}; Path=/; HttpOnly; SameSite=Lax; Max-Age={COOKIE_AGE_S}"
        added.append((b"set-cookie", cookie.encode()))
    return [*headers, *added]


async def _answer(send: Send, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
    body = text.encode()
    length = (b"content-length", str(len(body)).encode())
    kind = (b"content-type", b"text/plain; charset=utf-8")
    await send(
        {"type": "http.response.start", "status": status, "headers": [kind, length, *headers]}
    )
    await send({"type": "http.response.body", "body": body})
