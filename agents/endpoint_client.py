"""The way to a server that speaks OpenAI's protocol: asked, waited for, its failures named.

The one file of the package that touches the `openai` client.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import ssl
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from agents.weighing import NotAnswered
from orbweave.errors import EngineError, shown

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = [
    "KEY_SETTING",
    "EndpointClient",
    "NoSystemRole",
    "Passing",
    "Patience",
    "Server",
    "ask_server",
    "key_variable",
]

_log = logging.getLogger(__name__)
T = TypeVar("T")

KEY_SETTING = "ORBWEAVE_KEY_VARIABLE"
"""Environment variable that names the one with the key, where that is not OPENAI_API_KEY."""

_NO_KEY = "none"
"""Servers on one's own machine want none; the client insists on something."""
_GUESSED_CONTEXT = 4_096
"""Tokens a model is taken to hold if its server does not say."""
_NO_SYSTEM = re.compile(r"system|roles? must alternate|alternate user", re.I)
"""What a template without a system role says, in an answer 400."""


@dataclass(frozen=True)
class Patience:
    """How long an endpoint is waited for."""

    connect_s: float = 5.0
    silence_s: float = 120.0
    """Until the first piece of a reply, and between two."""
    total_s: float = 600.0
    """For one reply, all tries together."""
    tries: int = 4
    """Of a request whose failure may pass: broken connections, answers 429 and 5xx."""
    pause_s: float = 0.5
    """Before the second try; doubled before each further one."""


class Server(NamedTuple):
    """What a server says of itself."""

    owner: str = ""
    """`owned_by` of its models: vllm, llamacpp, library (Ollama), orbweave."""
    context: int = _GUESSED_CONTEXT
    models: tuple[str, ...] = ()


class Passing(Exception):
    """A failure that may pass; after the last try its text becomes an EngineError."""

    def __init__(self, what: str, wait_s: float = 0.0) -> None:
        super().__init__(what)
        self.wait_s = wait_s


class NoSystemRole(Exception):
    """The model's template takes no system text."""


class EndpointClient:
    """Asks one model of a server. Each question has a connection of its own."""

    def __init__(self, url: str, name: str, server: Server, patience: Patience) -> None:
        """Prepare a client; nothing is sent."""
        self._url, self._model = url.rstrip("/"), name
        self._server, self._patience = server, patience
        self._key = os.environ.get(key_variable()) or _NO_KEY
        self._tls = ssl.create_default_context() if url.startswith("https:") else False

    @property
    def model(self) -> str:
        """The model reference, as records show it."""
        return f"{self._url}#{self._model}"

    @asynccontextmanager
    async def streaming(
        self, deadline: float, *, has_system: bool, **body: Any
    ) -> AsyncIterator[AsyncIterator[Any]]:
        """Lend the chunks of one chat answer; leaving closes the connection.

        Args:
            deadline: In the event loop's time.
            has_system: As for `within`.
            body: The question; `model` is added.
        """
        async with self._client() as client:
            asked: Any = client.chat.completions.create(model=self._model, stream=True, **body)
            stream = await self.within(asked, deadline, has_system=has_system)
            try:
                yield aiter(stream)
            finally:
                await stream.close()

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """Return the JSON answer to a question about this model, asked again if need be.

        Args:
            path: From the base address on; from the server's root if it begins with a slash.
            body: The question; `model` is added.

        Raises:
            NotAnswered: the server has no such question.
            EngineError: no answer could be had.
        """
        deadline = asyncio.get_running_loop().time() + self._patience.total_s
        has_system = any(m["role"] == "system" for m in body.get("messages", ()))
        root = self._url.removesuffix("/v1") if path.startswith("/") else f"{self._url}/"
        attempt = 0
        while True:
            attempt += 1
            try:
                async with self._client() as client:
                    asked = client.post(
                        root + path, cast_to=object, body={"model": self._model} | body
                    )
                    return await self.within(asked, deadline, asking=True, has_system=has_system)
            except Passing as failure:
                await self.pause(attempt, failure, deadline)

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[AsyncOpenAI]:
        """Lend a client of one connection; we try again and count the seconds ourselves."""
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Timeout

        limits = Timeout(None, connect=self._patience.connect_s)  # the rest is `within`'s
        async with (
            DefaultAsyncHttpxClient(verify=self._tls, timeout=limits) as http,
            AsyncOpenAI(
                base_url=self._url, api_key=self._key, max_retries=0, http_client=http
            ) as client,
        ):
            yield client

    async def within(
        self,
        asked: Awaitable[T],
        deadline: float,
        *,
        asking: bool = False,
        has_system: bool = False,
    ) -> T:
        """Wait for a server as long as it is due; give its failures our names.

        Args:
            asked: What is waited for.
            deadline: In the event loop's time.
            asking: Whether the question may be one that the server does not know.
            has_system: Whether a system text was sent, which its template may not take.
        """
        from openai import OpenAIError

        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(min(deadline, now + self._patience.silence_s)):
                return await asked
        except TimeoutError as err:
            patience = self._patience
            what, limit_s = "an answer", patience.silence_s
            if now + patience.silence_s > deadline:
                what, limit_s = "the whole answer", patience.total_s
            raise EngineError(
                f"wanted {what} of {self.model}, none came within {limit_s:g} s; see the server, "
                "or take a smaller model"
            ) from err
        except OpenAIError as err:
            failure = self._failure(err, has_system=has_system)
            if isinstance(failure, NoSystemRole | Passing):
                raise failure from None
            if asking and getattr(err, "status_code", 0) in {400, 404, 405, 422, 501}:
                raise NotAnswered(str(failure)) from err
            raise failure from err
        except ValueError as err:
            raise EngineError(
                f"wanted JSON from {self.model}, got something else ({shown(err)}); "
                "is this the address of an OpenAI-compatible server?"
            ) from err

    def _failure(self, err: Exception, *, has_system: bool = False) -> Exception:
        """Return an error of the client as ours; the key is never in it."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        message = re.sub(r"^Error code: \d+ - ", "", str(getattr(err, "message", err)))
        if self._key != _NO_KEY:
            message = message.replace(self._key, "...")
        said = shown(message, 200)
        if isinstance(err, APITimeoutError):
            return Passing(f"it did not answer in time: {said}")
        if isinstance(err, APIConnectionError):
            return Passing(f"the connection failed or broke off: {said}")
        if isinstance(err, APIStatusError):
            status = err.status_code
            if status in {408, 425, 429} or status >= 500:
                return Passing(f"it said {status}: {said}", _retry_after(err.response.headers))
            if status == 400 and has_system and _NO_SYSTEM.search(said):
                return NoSystemRole()
            return EngineError(
                f"wanted an answer of {self.model}, it said {status}: {said}; {self._mend(status)}"
            )
        return EngineError(f"wanted an answer of {self.model}, it failed: {said}; see the server")

    def _mend(self, status: int) -> str:
        if status in {401, 403}:
            return f"set {key_variable()}, or let {KEY_SETTING} name another variable"
        if status == 404 and self._server.models:
            return f"it serves {', '.join(self._server.models)}"
        return "see the server"

    async def pause(self, attempt: int, failure: Passing, deadline: float) -> None:
        """Wait before another try.

        Raises:
            EngineError: there is none left.
        """
        patience = self._patience
        wait_s = max(patience.pause_s * 2.0 ** (attempt - 1), failure.wait_s)
        left_s = deadline - asyncio.get_running_loop().time()
        if attempt >= patience.tries or wait_s >= left_s:
            tries = "one try" if attempt == 1 else f"{attempt} tries"
            is_put_off = wait_s >= left_s and failure.wait_s > 0
            mend = f"ask again in {wait_s:,.0f} s" if is_put_off else "see the server"
            raise EngineError(f"wanted an answer of {self.model}, after {tries} {failure}; {mend}")
        _log.info("%s: %s; asked again in %.1f s", self.model, failure, wait_s)
        await asyncio.sleep(wait_s)


def key_variable() -> str:
    """Return the environment variable that holds the key, as `ORBWEAVE_KEY_VARIABLE` says."""
    return os.environ.get(KEY_SETTING) or "OPENAI_API_KEY"


def ask_server(url: str, name: str, patience: Patience) -> Server:
    """Return what a server says of itself and its models, as far as it does.

    Raises:
        EngineError: it does not answer, or wants another key.
    """
    from openai import APIConnectionError, APIStatusError, OpenAI, OpenAIError

    key = os.environ.get(key_variable()) or _NO_KEY
    limit_s = patience.connect_s
    try:
        with OpenAI(base_url=url, api_key=key, timeout=limit_s, max_retries=1) as client:
            answer: Any = client.get("/models", cast_to=object)
    except APIConnectionError as err:
        raise EngineError(
            f"wanted a model server at {url}, {shown(err)} within {limit_s:g} s; "
            "is it running there?"
        ) from err
    except APIStatusError as err:
        if err.status_code in {401, 403}:
            raise EngineError(
                f"wanted the models of {url}, it said {err.status_code}; set {key_variable()}, "
                f"or let {KEY_SETTING} name another variable"
            ) from err
        return Server()
    except (OpenAIError, ValueError):
        return Server()
    listed = answer.get("data") if isinstance(answer, dict) else None
    cards = [card for card in listed or () if isinstance(card, dict)]
    # Of an adapter vLLM tells the parent only, whose length it shares.
    by_id = {str(card.get("id")): card for card in cards}
    card = by_id.get(name, {})
    lengths = [
        card.get("max_model_len"),
        by_id.get(str(card.get("parent")), {}).get("max_model_len"),
    ]
    known = [n for n in lengths if isinstance(n, int) and n > 0]
    return Server(
        str(card.get("owned_by") or ""), known[0] if known else _GUESSED_CONTEXT, tuple(by_id)
    )


def _retry_after(headers: Any) -> float:
    """Return the seconds a busy server asks for, as a number or a date; 0 if it does not."""
    asked = headers.get("retry-after", "0")
    with suppress(ValueError):
        return max(0.0, float(asked))
    with suppress(ValueError):
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    return 0.0
