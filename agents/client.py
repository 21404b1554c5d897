"""Our engines as AutoGen model clients; the one file that touches autogen-core.

    client = EngineClient(engine)
    agent = AssistantAgent("expert", model_client=client)

AutoGen hands over other agents' turns as several user turns in a row, which few chat templates
take; here they are folded into one with the speakers' names. What a model's own template demands
besides is the engine's business. Cancelling AutoGen's token cancels the engine's task, and that
ends the computation within a token.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from itertools import groupby
from typing import Any, Literal

from autogen_core import CancellationToken
from autogen_core.models import (
    AssistantMessage,
    ChatCompletionClient,
    CreateResult,
    LLMMessage,
    ModelCapabilities,
    ModelFamily,
    ModelInfo,
    RequestUsage,
    SystemMessage,
    UserMessage,
)
from autogen_core.tools import Tool, ToolSchema
from pydantic import BaseModel

from agents.chat import fitted
from agents.generation import Engine, Generation, Message, Reply
from agents.voice import Job
from orbweave.errors import EngineError, UsageError, shown

__all__ = ["ClientVoice", "EngineClient", "fold"]

_EXTRA = frozenset({"sampling", "max_new_tokens", "seed", "prefix", "stop"})
"""Fields of `Generation` that may come as `extra_create_args`."""


class EngineClient(ChatCompletionClient):
    """An AutoGen model client that speaks with one of our engines.

    It writes text: no tools, no images, no JSON mode. `extra_create_args` takes the fields of
    `Generation` (sampling, max_new_tokens, seed, prefix, stop).
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._usage = RequestUsage(prompt_tokens=0, completion_tokens=0)

    @property
    def model(self) -> str:
        """The model reference, as records show it."""
        return self._engine.model

    @property
    def model_info(self) -> ModelInfo:
        """What AutoGen may ask of the model."""
        return ModelInfo(
            vision=False,
            function_calling=False,
            json_output=False,
            structured_output=False,
            family=ModelFamily.UNKNOWN,
            multiple_system_messages=True,
        )

    @property
    def capabilities(self) -> ModelCapabilities:
        """The same in AutoGen's older form, still abstract there."""
        return self.model_info

    async def create(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[Tool | ToolSchema] = (),
        tool_choice: Tool | Literal["auto", "required", "none"] = "auto",
        json_output: bool | type[BaseModel] | None = None,
        extra_create_args: Mapping[str, Any] | None = None,
        cancellation_token: CancellationToken | None = None,
    ) -> CreateResult:
        """Return the whole reply; see `create_stream`."""
        stream = self.create_stream(
            messages,
            tools=tools,
            tool_choice=tool_choice,
            json_output=json_output,
            extra_create_args=extra_create_args,
            cancellation_token=cancellation_token,
        )
        async with aclosing(stream) as pieces:
            async for piece in pieces:
                if isinstance(piece, CreateResult):
                    return piece
        raise AssertionError("a stream ends with its result")

    async def create_stream(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[Tool | ToolSchema] = (),
        tool_choice: Tool | Literal["auto", "required", "none"] = "auto",
        json_output: bool | type[BaseModel] | None = None,
        extra_create_args: Mapping[str, Any] | None = None,
        cancellation_token: CancellationToken | None = None,
    ) -> AsyncGenerator[str | CreateResult, None]:
        """Yield pieces of text and, last, the result; the messages are not changed.

        Raises:
            UsageError: tools, images, JSON or an unknown extra argument are asked for.
            EngineError: the chat does not fit the model, or the model failed.
            asyncio.CancelledError: the token was cancelled.
        """
        _refuse(tools, json_output, extra_create_args or {})
        request = Generation(fold(messages), **(extra_create_args or {}))
        pieces: asyncio.Queue[str | Reply | None] = asyncio.Queue()
        pump = asyncio.create_task(self._pump(request, pieces))
        if cancellation_token is not None:
            cancellation_token.link_future(pump)
        try:
            while (piece := await pieces.get()) is not None:
                yield self._result(piece) if isinstance(piece, Reply) else piece
            await pump  # raises what ended it early
        finally:
            pump.cancel()
            with suppress(asyncio.CancelledError, EngineError):
                await pump

    async def weigh(
        self,
        messages: Sequence[LLMMessage],
        options: Sequence[str],
        cancellation_token: CancellationToken | None = None,
    ) -> list[float]:
        """Return log p(option | chat), one per option; AutoGen itself has no such question."""
        task = asyncio.ensure_future(self._engine.logprobs(fold(messages), options))
        if cancellation_token is not None:
            cancellation_token.link_future(task)
        return await task

    def count_tokens(
        self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()
    ) -> int:
        """Return the length of the chat in tokens, as the template writes it."""
        return self._engine.count_tokens(fold(messages))

    def remaining_tokens(
        self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()
    ) -> int:
        """Return how many tokens the model could still add to the chat."""
        return self._engine.context_tokens - self.count_tokens(messages)

    def actual_usage(self) -> RequestUsage:
        """Return tokens read and written so far; nothing is cached, so all were computed."""
        return RequestUsage(self._usage.prompt_tokens, self._usage.completion_tokens)

    def total_usage(self) -> RequestUsage:
        """Return the same as `actual_usage`."""
        return self.actual_usage()

    async def close(self) -> None:
        """Do nothing: roles share engines, and who made an engine closes it."""

    async def _pump(self, request: Generation, pieces: asyncio.Queue[str | Reply | None]) -> None:
        """Move the engine's pieces into a queue, so that one task is all there is to cancel."""
        try:
            async for piece in self._engine.stream(request):
                pieces.put_nowait(piece)
        finally:
            pieces.put_nowait(None)

    def _result(self, reply: Reply) -> CreateResult:
        self._usage.prompt_tokens += reply.n_prompt_tokens
        self._usage.completion_tokens += reply.n_tokens
        return CreateResult(
            finish_reason=reply.finish,
            content=reply.text,
            usage=RequestUsage(reply.n_prompt_tokens, reply.n_tokens),
            cached=False,
        )


class ClientVoice:
    """A `Voice` over an AutoGen client, for one speaker and one turn.

    Args:
        client: The speaker's model.
        token: Cancels whatever is being said.
        hear: Called with each piece of text as it comes.
    """

    def __init__(
        self, client: EngineClient, token: CancellationToken, hear: Callable[[str], None]
    ) -> None:
        self._client = client
        self._token = token
        self._hear = hear
        self._n_tokens = 0

    @property
    def n_tokens(self) -> int:
        """Tokens the model has written so far, discarded attempts included."""
        return self._n_tokens

    async def say(self, job: Job) -> Reply:
        """Return the model's reply; its pieces are heard as they come."""
        extra = {
            "sampling": job.sampling,
            "max_new_tokens": job.max_new_tokens,
            "seed": job.seed,
            "prefix": job.prefix,
            "stop": job.stop,
        }
        silent = len(job.heard)
        stream = self._client.create_stream(
            unfolded(job.messages), extra_create_args=extra, cancellation_token=self._token
        )
        async with aclosing(stream) as pieces:
            async for piece in pieces:
                if isinstance(piece, CreateResult):
                    return self._reply(piece)
                if piece[silent:]:
                    self._hear(piece[silent:])
                silent = max(0, silent - len(piece))
        raise AssertionError("a stream ends with its result")

    async def weigh(self, messages: Sequence[Message], options: Sequence[str]) -> list[float]:
        """Return log p(option | chat), one per option; nothing is heard."""
        return await self._client.weigh(unfolded(messages), options, self._token)

    def remark(self, text: str) -> None:
        """Let listeners hear a sentence of the frame's own."""
        self._hear(text)

    def _reply(self, result: CreateResult) -> Reply:
        self._n_tokens += result.usage.completion_tokens
        finish: Literal["stop", "length"] = "length" if result.finish_reason == "length" else "stop"
        usage = result.usage
        return Reply(str(result.content), usage.prompt_tokens, usage.completion_tokens, 0.0, finish)


def fold(messages: Sequence[LLMMessage]) -> tuple[Message, ...]:
    """Return a chat whose roles alternate; the input is left as it is.

    System texts are joined and come first. A run of user turns becomes one; if several
    speakers are in it, each part begins with the speaker's name.

    Raises:
        UsageError: there is no turn to answer, or a turn is not text.
    """
    chat = [Message("system", m.content) for m in messages if isinstance(m, SystemMessage)]
    turns = [m for m in messages if not isinstance(m, SystemMessage)]
    for is_assistant, run in groupby(turns, key=lambda m: isinstance(m, AssistantMessage)):
        chat.append(Message("assistant" if is_assistant else "user", _joined(list(run))))
    return fitted(chat)


def unfolded(messages: Sequence[Message]) -> list[LLMMessage]:
    """Return our messages in AutoGen's types."""
    made: list[LLMMessage] = []
    for role, content in messages:
        if role == "system":
            made.append(SystemMessage(content=content))
        elif role == "user":
            made.append(UserMessage(content=content, source="user"))
        else:
            made.append(AssistantMessage(content=content, source="assistant"))
    return made


def _joined(run: Sequence[LLMMessage]) -> str:
    texts = [_text(message) for message in run]
    names = [message.source for message in run if isinstance(message, UserMessage)]
    if len(set(names)) > 1:
        texts = [f"{name}: {text}" for name, text in zip(names, texts, strict=True)]
    return "\n\n".join(texts)


def _text(message: LLMMessage) -> str:
    content = getattr(message, "content", None)
    if isinstance(message, UserMessage | AssistantMessage) and isinstance(content, str):
        return content
    raise UsageError(
        f"wanted turns of text, got {shown(type(message).__name__)} with "
        f"{shown(type(content).__name__)}; these models take neither images nor tools"
    )


def _refuse(
    tools: Sequence[Tool | ToolSchema],
    json_output: bool | type[BaseModel] | None,
    extra: Mapping[str, Any],
) -> None:
    if tools or json_output:
        raise UsageError(
            "wanted plain text from this model, got a request for "
            f"{'tools' if tools else 'JSON output'}; use an endpoint that offers it"
        )
    unknown = sorted(extra.keys() - _EXTRA)
    if unknown:
        raise UsageError(
            f"wanted extra arguments among {', '.join(sorted(_EXTRA))}, got {', '.join(unknown)}; "
            "remove them"
        )
