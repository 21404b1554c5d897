"""Who writes training data, and how its replies are read.

A teacher is anything that answers a chat; here, a model behind a web address.
OpenAI's protocol is what vLLM, Ollama, llama.cpp and most hosted models speak; this is the
one file of the package that touches the `openai` client.
"""

from __future__ import annotations

import ast
import json
import os
import re
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from orbweave.errors import EngineError, shown
from training.rows import Turn

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

__all__ = ["KEY_VARIABLE", "OpenAITeacher", "Teacher", "read_json"]

KEY_VARIABLE = "OPENAI_API_KEY"
"""Environment variable with the key; servers on one's own machine want none."""


class Teacher(Protocol):
    """A model that writes training data; it may be called from several threads at once."""

    @property
    def name(self) -> str:
        """The model reference, as the rows show it."""
        ...

    def __call__(self, messages: Sequence[Turn], seed: int) -> str:
        """Return the reply to a chat.

        Raises:
            EngineError: no reply could be had.
        """
        ...


class OpenAITeacher:
    """A chat model of an OpenAI-compatible server.

    Busy servers and broken connections are tried again by the client, with growing pauses.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None = None,
        temperature: float = 0.7,
        max_tokens: int = 2_048,
        timeout_s: float = 300.0,
        max_retries: int = 4,
    ) -> None:
        """Prepare the client; nothing is sent.

        Args:
            url: Base address, as in `http://localhost:8000/v1`.
            model: The model's name there.
            api_key: None takes it from the environment variable `OPENAI_API_KEY`.
            temperature: Softmax temperature; several passes over one text need more than 0.
            max_tokens: Longest reply.
            timeout_s: Patience with one reply.
            max_retries: Further tries of a request that failed in passing.
        """
        from openai import OpenAI

        key = api_key or os.environ.get(KEY_VARIABLE) or "none"
        self._url, self._model = url, model
        self._temperature, self._max_tokens = temperature, max_tokens
        self._client = OpenAI(base_url=url, api_key=key, timeout=timeout_s, max_retries=max_retries)
        self._counting = threading.Lock()
        self.requests = 0
        """Replies had so far."""
        self.prompt_tokens = 0
        """Tokens of all prompts so far, as the server counts them; 0 if it does not."""
        self.reply_tokens = 0
        """Tokens of all replies so far, likewise."""

    @property
    def name(self) -> str:
        """The model reference."""
        return f"{self._url}#{self._model}"

    def __call__(self, messages: Sequence[Turn], seed: int) -> str:
        """Return the reply to a chat; see `Teacher`."""
        from openai import APIConnectionError, APIStatusError, OpenAIError

        try:
            answer = self._client.chat.completions.create(
                model=self._model,
                messages=[_message(turn) for turn in messages],
                seed=seed,
                temperature=self._temperature,
                max_tokens=self._max_tokens,
            )
        except APIConnectionError as err:
            raise EngineError(
                f"wanted an answer from {self._url}, {shown(err)}; is the server running there?"
            ) from err
        except APIStatusError as err:
            mend = f"set {KEY_VARIABLE}" if err.status_code in {401, 403} else "see the server"
            raise EngineError(
                f"wanted an answer from {self.name}, it said {err.status_code}: "
                f"{shown(err.message, 200)}; {mend}"
            ) from err
        except OpenAIError as err:
            raise EngineError(f"wanted an answer from {self.name}, {shown(err, 200)}") from err
        with self._counting:
            self.requests += 1
            if answer.usage is not None:
                self.prompt_tokens += answer.usage.prompt_tokens
                self.reply_tokens += answer.usage.completion_tokens
        return (answer.choices[0].message.content or "") if answer.choices else ""

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _message(turn: Turn) -> ChatCompletionMessageParam:
    if turn.role == "system":
        return {"role": "system", "content": turn.content}
    if turn.role == "assistant":
        return {"role": "assistant", "content": turn.content}
    return {"role": "user", "content": turn.content}


# ---------------------------------------------------------------- replies

_MENDS = (
    # A backslash of LaTeX, which JSON would refuse or read as a control character.
    (re.compile(r'(?<!\\)\\(?=[^"\\/bfnrtu]|[bf][a-z]|u(?![\da-fA-F]{4}))'), r"\\\\"),
    (re.compile(r"(?<!\\)\\(?=(?:times|theta|tau|text|nu|nabla|neq|rho|right)\b)"), r"\\\\"),
    (re.compile(r",(?=\s*[}\]])"), ""),  # a comma after the last item
)


def read_json(reply: str) -> Any:
    """Return the longest JSON list or object in a reply, whatever stands around it.

    Mended are commas after the last item, LaTeX's backslashes and Python's way of writing
    lists. What breaks off is not completed: half a number is a wrong number.

    Raises:
        ValueError: there is none.
    """
    text = re.sub(r"<think>.*?</think>", "", reply, flags=re.S)
    for pattern, put in _MENDS:
        text = pattern.sub(put, text)
    decoder = json.JSONDecoder(strict=False)
    best: Any = None
    length = at = 0
    while (found := re.compile(r"[\[{]").search(text, at)) is not None:
        try:
            value, end = decoder.raw_decode(text, found.start())
        except (ValueError, RecursionError):
            at = found.end()
            continue
        if end - found.start() > length:
            best, length = value, end - found.start()
        at = end
    outer = re.search(r"[\[{].*[\]}]", text, re.S)
    if outer is not None and length < len(outer[0]) / 2:
        try:
            value = ast.literal_eval(outer[0])
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            value = None
        best = value if isinstance(value, list | dict) else best
    if best is None:
        raise ValueError(f"no whole JSON list or object in {shown(reply)}")
    return best
