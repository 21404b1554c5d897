"""An engine at the other end of a web address: any server that speaks OpenAI's protocol.

    engine = EndpointEngine.connect("http://localhost:8000/v1", "llama")

vLLM, Ollama, llama.cpp and most hosted models do. This is the one file of the package that
touches the `openai` client. What a server may do wrong ends in an `EngineError` within the
limits of `Patience`; what may pass by itself is tried again first.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from agents.chat import fitted
from agents.generation import Generation, Message, Reply
from agents.reply_text import ReplyText
from agents.weighing import NotAnswered, Weigher, Weighing
from orbweave.errors import EngineError, shown

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["KEY_SETTING", "EndpointEngine", "Patience", "key_variable"]

_log = logging.getLogger(__name__)
T = TypeVar("T")

KEY_SETTING = "ORBWEAVE_KEY_VARIABLE"
"""Environment variable that names the one with the key, where that is not OPENAI_API_KEY."""

_CONTINUES = ("vllm", "orbweave")
"""Owners of models, as a server names them, that go on with a reply that was begun."""
_NO_KEY = "none"
"""Servers on one's own machine want none; the client insists on something."""
_GUESSED_CONTEXT = 4_096
"""Tokens a model is taken to hold if its server does not say."""
_MAX_STOPS = 4
"""OpenAI takes no more; we look for the rest ourselves."""
_CHARS_PER_TOKEN = 64
"""More than any text has on average: beyond it a server lies about the length."""
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


class _Server(NamedTuple):
    """What a server says of itself."""

    owner: str = ""
    """`owned_by` of its models: vllm, llamacpp, library (Ollama), orbweave."""
    context: int = _GUESSED_CONTEXT
    models: tuple[str, ...] = ()


class _Passing(Exception):
    """A failure that may pass; after the last try its text becomes an EngineError."""

    def __init__(self, what: str, wait_s: float = 0.0) -> None:
        super().__init__(what)
        self.wait_s = wait_s


class _NoSystemRole(Exception):
    """The model's template takes no system text."""


class EndpointEngine:
    """A chat model of a server, behind `agents.generation.Engine`.

    Each request has a connection of its own, so closing a stream tells the server at once, and
    an engine may be used from one event loop after another.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        server: _Server | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Prepare an engine; nothing is sent. See `connect`."""
        server, patience = server or _Server(), patience or Patience()
        self._url, self._model = url.rstrip("/"), name
        self._server, self._patience = server, patience
        self._key = os.environ.get(key_variable()) or _NO_KEY
        self._tls = ssl.create_default_context() if url.startswith("https:") else False
        self._system_role = True
        self._closed = False
        by: Weighing = "exact" if server.owner == "vllm" else "letters"
        self._weigher = Weigher(self._post, self.model, by)

    @classmethod
    def connect(cls, url: str, name: str, *, patience: Patience | None = None) -> EndpointEngine:
        """Return an engine after asking the server what it is; blocks for that.

        Args:
            url: Base address, as in `http://localhost:8000/v1`.
            name: The model's name there.
            patience: How long it is waited for.

        Raises:
            EngineError: the server does not answer, or wants another key.
        """
        patience = patience or Patience()
        return cls(url, name, server=_ask_server(url, name, patience), patience=patience)

    @property
    def model(self) -> str:
        """The model reference, as records show it."""
        return f"{self._url}#{self._model}"

    @property
    def context_tokens(self) -> int:
        """Tokens the model can hold, as the server says; 4,096 if it does not."""
        return self._server.context

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Return an estimate of the chat's length in tokens: three characters are one."""
        return sum(len(m.content) // 3 + 8 for m in messages)

    async def generate(self, request: Generation) -> Reply:
        """Return the whole reply; see `stream`."""
        async with aclosing(self.stream(request)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Reply):
                    return piece
        raise AssertionError("a stream ends with its reply")

    async def stream(self, request: Generation) -> AsyncGenerator[str | Reply, None]:
        """Yield pieces of text as they come and, last, the `Reply`.

        A reply that breaks off is asked for again; what was heard already is not said twice.
        Closing the stream, or cancelling the task that reads it, closes the connection.

        Raises:
            EngineError: the server does not answer, not in time, or not with a reply.
        """
        self._check_open()
        started = time.perf_counter()
        deadline = asyncio.get_running_loop().time() + self._patience.total_s
        heard, attempt = "", 0
        while True:
            attempt += 1
            said = ""
            try:
                async with aclosing(self._attempt(request, deadline)) as pieces:
                    async for piece in pieces:
                        if isinstance(piece, Reply):
                            self._unheard(piece.text, heard, whole=True)
                            yield piece._replace(seconds=time.perf_counter() - started)
                            return
                        said += piece
                        if fresh := self._unheard(said, heard):
                            heard = said
                            yield fresh
            except _NoSystemRole:
                _log.info("%s takes no system text; it opens the user's turn", self.model)
                self._system_role = False
            except _Passing as failure:
                await self._pause(attempt, failure, deadline)

    @property
    def weighing(self) -> Weighing:
        """How `logprobs` asks at present; it falls back, and says so, if that does not work."""
        return self._weigher.by

    async def logprobs(self, messages: Sequence[Message], options: Sequence[str]) -> list[float]:
        """Return log p(option | chat), one per option, as `agents.weighing` gets it.

        Raises:
            EngineError: an option is empty, there are too many, or the server cannot be had.
        """
        self._check_open()
        try:
            return await self._weigher(fitted(messages, system_role=self._system_role), options)
        except _NoSystemRole:
            self._system_role = False
            return await self._weigher(fitted(messages, system_role=False), options)

    async def close(self) -> None:
        """Refuse all later calls."""
        self._closed = True

    # ---------------------------------------------------------------- replies

    async def _attempt(
        self, request: Generation, deadline: float
    ) -> AsyncGenerator[str | Reply, None]:
        """Ask once; yield pieces and, last, the reply.

        Raises:
            _Passing, _NoSystemRole: it is worth another try.
            EngineError: it is not.
        """
        chunks: list[str] = []
        # What comes in one piece is to us a token.
        text = ReplyText(
            lambda places: "".join(chunks[i] for i in places), request.prefix, (), request.stop
        )
        echo = _Echo("" if self._continues else request.prefix)
        if request.prefix:
            yield text.finish()
        finish, usage = "", (0, 0)
        async with self._streaming(request, deadline) as stream:
            while (chunk := await self._within(anext(stream, None), deadline)) is not None:
                piece, finish_here, usage_here = _read(chunk, self.model)
                finish, usage = finish_here or finish, usage_here or usage
                if fresh := echo.without(piece):
                    chunks.append(fresh)
                    yield text.add(len(chunks) - 1)
                self._check_length(text.text, request)
                if text.stopped or len(chunks) >= 2 * request.max_new_tokens + 16:
                    break  # a stop string, or a server that does not heed the bound
        if rest := echo.rest():
            chunks.append(rest)
            yield text.add(len(chunks) - 1)
        overlong = len(chunks) > request.max_new_tokens
        if not (finish or text.stopped or overlong):
            raise _Passing("its stream broke off" if chunks else "it answered with nothing")
        if not chunks and not request.stop:
            raise _Passing("it answered with an empty reply")
        yield text.finish()
        n_prompt, n_tokens = usage
        if not 0 < n_tokens <= request.max_new_tokens + 1:  # not told, or not true
            n_tokens = min(len(chunks), request.max_new_tokens)
        how: Literal["stop", "length"] = (
            "length" if not text.stopped and (finish == "length" or overlong) else "stop"
        )
        n_prompt = n_prompt if n_prompt > 0 else self.count_tokens(request.messages)
        yield Reply(text.text, n_prompt, n_tokens, 0.0, how)

    @asynccontextmanager
    async def _streaming(
        self, request: Generation, deadline: float
    ) -> AsyncIterator[AsyncIterator[Any]]:
        """Lend the chunks of one answer; leaving closes the connection."""
        sampling = request.sampling
        extra: dict[str, Any] = {}
        if self._continues:
            extra |= {"top_k": sampling.top_k, "repetition_penalty": sampling.repetition_penalty}
        if self._continues and request.prefix:
            extra |= {"continue_final_message": True, "add_generation_prompt": False}
        async with self._client() as client:
            asked: Any = client.chat.completions.create(
                model=self._model,
                messages=self._messages(request),
                stream=True,
                stream_options={"include_usage": True},
                max_tokens=request.max_new_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seed=request.seed,
                stop=list(request.stop[:_MAX_STOPS]) or None,
                extra_body=extra,
            )
            # As it was sent: another reply may find out meanwhile that there is no such role.
            sent = self._system_role and _has_system(request.messages)
            stream = await self._within(asked, deadline, has_system=sent)
            try:
                yield aiter(stream)
            finally:
                await stream.close()

    def _messages(self, request: Generation) -> Any:
        """Return the chat as the protocol writes it, with what asks for the prefix."""
        chat = list(fitted(request.messages, system_role=self._system_role))
        if request.prefix and self._continues:
            chat.append(Message("assistant", request.prefix))
        elif request.prefix:
            last = chat.pop()
            words = f"{last.content}\n\nBegin your reply with exactly these words: {request.prefix}"
            chat.append(Message(last.role, words))
        return [m._asdict() for m in chat]

    @property
    def _continues(self) -> bool:
        return self._server.owner in _CONTINUES

    def _unheard(self, said: str, heard: str, *, whole: bool = False) -> str:
        """Return what of `said` nobody has heard.

        Raises:
            EngineError: it contradicts what was heard in an earlier try.
        """
        if said.startswith(heard):
            return said[len(heard) :]
        if heard.startswith(said) and not whole:
            return ""
        raise EngineError(
            f"wanted the rest of a reply of {self.model} that broke off, asked again it said "
            "something else; ask anew, or set its temperature to 0"
        )

    def _check_length(self, text: str, request: Generation) -> None:
        if len(text) > (request.max_new_tokens + 16) * _CHARS_PER_TOKEN + len(request.prefix):
            raise EngineError(
                f"wanted {request.max_new_tokens} tokens at most of {self.model}, it sent "
                f"{len(text):,} characters and went on; see the server"
            )

    # ---------------------------------------------------------------- requests

    async def _post(self, path: str, body: dict[str, Any]) -> Any:
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
                    return await self._within(asked, deadline, asking=True, has_system=has_system)
            except _Passing as failure:
                await self._pause(attempt, failure, deadline)

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[AsyncOpenAI]:
        """Lend a client of one connection; we try again and count the seconds ourselves."""
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Timeout

        limits = Timeout(None, connect=self._patience.connect_s)  # the rest is `_within`'s
        async with (
            DefaultAsyncHttpxClient(verify=self._tls, timeout=limits) as http,
            AsyncOpenAI(
                base_url=self._url, api_key=self._key, max_retries=0, http_client=http
            ) as client,
        ):
            yield client

    async def _within(
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
            limit = "total_s" if now + self._patience.silence_s > deadline else "silence_s"
            raise EngineError(
                f"wanted an answer of {self.model}, none came within "
                f"{getattr(self._patience, limit):g} s; see the server, or be more patient"
            ) from err
        except OpenAIError as err:
            failure = self._failure(err, has_system=has_system)
            if isinstance(failure, _NoSystemRole | _Passing):
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
            return _Passing(f"it did not answer in time: {said}")
        if isinstance(err, APIConnectionError):
            return _Passing(f"the connection failed or broke off: {said}")
        if isinstance(err, APIStatusError):
            status = err.status_code
            if status in {408, 425, 429} or status >= 500:
                return _Passing(f"it said {status}: {said}", _retry_after(err.response.headers))
            if status == 400 and has_system and _NO_SYSTEM.search(said):
                return _NoSystemRole()
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

    async def _pause(self, attempt: int, failure: _Passing, deadline: float) -> None:
        """Wait before another try.

        Raises:
            EngineError: there is none left.
        """
        patience = self._patience
        wait_s = max(patience.pause_s * 2.0 ** (attempt - 1), failure.wait_s)
        left_s = deadline - asyncio.get_running_loop().time()
        if attempt >= patience.tries or wait_s >= left_s:
            tries = "one try" if attempt == 1 else f"{attempt} tries"
            raise EngineError(
                f"wanted an answer of {self.model}, after {tries} {failure}; is the server well?"
            )
        _log.info("%s: %s; asked again in %.1f s", self.model, failure, wait_s)
        await asyncio.sleep(wait_s)

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError(f"wanted an answer of {self.model}, the engine is closed")


class _Echo:
    """Takes a prefix off the beginning of a reply, if the model repeats it as it was asked to."""

    def __init__(self, prefix: str) -> None:
        self._waiting = prefix.strip()
        self._held = ""

    def without(self, piece: str) -> str:
        """Return what of the next piece may go on, "" while that is not known."""
        if not self._waiting:
            return piece
        self._held += piece
        begun = self._held.lstrip()
        if begun.startswith(self._waiting):
            self._held = ""
            self._waiting, fresh = "", begun[len(self._waiting) :]
            return fresh
        if self._waiting.startswith(begun):
            return ""
        return self.rest()

    def rest(self) -> str:
        """Return what was held back; the prefix was not repeated."""
        # Where a sentence begins, a space parts it from the prefix.
        held = f" {self._held.lstrip()}" if self._held.strip() else ""
        self._waiting, self._held = "", ""
        return held


def key_variable() -> str:
    """Return the environment variable that holds the key, as `ORBWEAVE_KEY_VARIABLE` says."""
    return os.environ.get(KEY_SETTING) or "OPENAI_API_KEY"


def _ask_server(url: str, name: str, patience: Patience) -> _Server:
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
        return _Server()
    except (OpenAIError, ValueError):
        return _Server()
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
    return _Server(
        str(card.get("owned_by") or ""), known[0] if known else _GUESSED_CONTEXT, tuple(by_id)
    )


def _read(chunk: Any, model: str) -> tuple[str, str, tuple[int, int] | None]:
    """Return text, reason of the end ("" if it goes on) and usage of one chunk of a stream.

    Raises:
        EngineError: it is none.
    """
    try:
        usage = chunk.usage
        counts = (int(usage.prompt_tokens), int(usage.completion_tokens)) if usage else None
        if not chunk.choices:
            return "", "", counts
        choice = chunk.choices[0]
        text = (choice.delta.content or "") if choice.delta else ""
        if not isinstance(text, str):
            raise TypeError(f"text is {shown(text)}")
        return text, str(choice.finish_reason or ""), counts
    except (AttributeError, TypeError, ValueError, KeyError, IndexError) as err:
        raise EngineError(
            f"wanted a piece of a reply of {model}, got something else ({shown(err)}); "
            "is this the address of an OpenAI-compatible server?"
        ) from err


def _has_system(messages: Sequence[Message]) -> bool:
    return any(m.role == "system" for m in messages)


def _retry_after(headers: Any) -> float:
    """Return the seconds a busy server asks for, 0 if it does not."""
    try:
        return max(0.0, float(headers.get("retry-after", 0)))
    except ValueError:
        return 0.0
