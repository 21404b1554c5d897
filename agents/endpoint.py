"""An engine at the other end of a web address: any server that speaks OpenAI's protocol.

    engine = EndpointEngine.connect("http://localhost:8000/v1", "llama")

vLLM, Ollama, llama.cpp and most hosted models do. What a server may do wrong ends in an
`EngineError` within the limits of `Patience`; what may pass by itself is tried again first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, Literal

from agents.chat import fitted
from agents.endpoint_client import (
    EndpointClient,
    NoSystemRole,
    Passing,
    Patience,
    Server,
    ask_server,
)
from agents.generation import Generation, Message, Reply
from agents.reply_text import ReplyText
from agents.weighing import Weigher, Weighing
from orbweave.errors import EngineError, shown

__all__ = ["EndpointEngine"]

_log = logging.getLogger(__name__)

_CONTINUES = ("vllm", "orbweave")
"""Owners of models, as a server names them, that go on with a reply that was begun."""
_MAX_STOPS = 4
"""OpenAI takes no more; we look for the rest ourselves."""
_CHARS_PER_TOKEN = 64
"""More than any text has on average: beyond it a server lies about the length."""


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
        server: Server | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Prepare an engine; nothing is sent. See `connect`."""
        server, patience = server or Server(), patience or Patience()
        self._server, self._patience = server, patience
        self._client = EndpointClient(url, name, server, patience)
        self._system_role = True
        self._closed = False
        by: Weighing = "exact" if server.owner == "vllm" else "letters"
        self._weigher = Weigher(self._client.post, self.model, by)

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
        return cls(url, name, server=ask_server(url, name, patience), patience=patience)

    @property
    def model(self) -> str:
        """The model reference, as records show it."""
        return self._client.model

    @property
    def context_tokens(self) -> int:
        """Tokens the model can hold, as the server says; 4,096 if it does not."""
        return self._server.context

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Return an estimate of the chat's length in tokens: three characters are one."""
        return sum(len(m.content) // 3 + 8 for m in messages)

    async def generate(self, request: Generation) -> Reply:
        """Return the whole reply; raises as `stream`.

        Nobody hears its pieces, so what is asked for again may say something else.
        """
        async with aclosing(self._told(request, is_heard=False)) as pieces:
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
        async with aclosing(self._told(request, is_heard=True)) as pieces:
            async for piece in pieces:
                yield piece

    async def _told(
        self, request: Generation, *, is_heard: bool
    ) -> AsyncGenerator[str | Reply, None]:
        """Yield the reply as `stream` does; of one that is not heard no pieces but the last."""
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
                        if is_heard and (fresh := self._unheard(said, heard)):
                            heard = said
                            yield fresh
            except NoSystemRole:
                _log.info("%s takes no system text; it opens the user's turn", self.model)
                self._system_role = False
            except Passing as failure:
                await self._client.pause(attempt, failure, deadline)

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
        except NoSystemRole:
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
            Passing, NoSystemRole: it is worth another try.
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
        finish, usage, n_pieces = "", (0, 0), 0
        async with self._streaming(request, deadline) as stream:
            while (chunk := await self._client.within(anext(stream, None), deadline)) is not None:
                piece, finish_here, usage_here = _read(chunk, self.model)
                finish, usage = finish_here or finish, usage_here or usage
                n_pieces += bool(piece)
                if fresh := echo.without(piece):
                    chunks.append(fresh)
                    yield text.add(len(chunks) - 1)
                self._check_length(text.text, request)
                if text.stopped or n_pieces >= 2 * request.max_new_tokens + 16:
                    break  # a stop string, or a server that does not heed the bound
        if rest := echo.rest():
            chunks.append(rest)
            yield text.add(len(chunks) - 1)
        overlong = n_pieces > request.max_new_tokens
        if not (finish or text.stopped or overlong):
            raise Passing("its stream broke off" if chunks else "it answered with nothing")
        if not chunks and not request.stop:
            raise Passing("it answered with an empty reply")
        yield text.finish()
        n_prompt, n_tokens = usage
        if not 0 < n_tokens <= request.max_new_tokens + 1:  # not told, or not true
            n_tokens = min(len(chunks), request.max_new_tokens)
        how: Literal["stop", "length"] = (
            "length" if not text.stopped and (finish == "length" or overlong) else "stop"
        )
        n_prompt = n_prompt if n_prompt > 0 else self.count_tokens(request.messages)
        yield Reply(text.text, n_prompt, n_tokens, 0.0, how)

    def _streaming(
        self, request: Generation, deadline: float
    ) -> AbstractAsyncContextManager[AsyncIterator[Any]]:
        """Lend the chunks of one answer; leaving closes the connection."""
        sampling = request.sampling
        extra: dict[str, Any] = {}
        if self._continues:
            extra |= {"top_k": sampling.top_k, "repetition_penalty": sampling.repetition_penalty}
        if self._continues and request.prefix:
            extra |= {"continue_final_message": True, "add_generation_prompt": False}
        return self._client.streaming(
            deadline,
            # As it is sent: another reply may find out meanwhile that there is no such role.
            has_system=self._system_role and _has_system(request.messages),
            messages=self._messages(request),
            stream_options={"include_usage": True},
            max_tokens=request.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=request.seed,
            stop=list(request.stop[:_MAX_STOPS]) or None,
            extra_body=extra,
        )

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


def _read(chunk: Any, model: str) -> tuple[str, str, tuple[int, int] | None]:
    """Return text, reason of the end ("" if it goes on) and usage of one chunk of a stream.

    Raises:
        EngineError: it is none.
    """
    try:
        counts = _counts(chunk.usage)
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


def _counts(usage: Any) -> tuple[int, int] | None:
    """Return tokens read and written as a server counts them; None if it does not."""
    try:
        return int(usage.prompt_tokens), int(usage.completion_tokens)
    except (AttributeError, TypeError, ValueError, OverflowError):
        return None


def _has_system(messages: Sequence[Message]) -> bool:
    return any(m.role == "system" for m in messages)
