"""Probabilities of options from a model behind a web address, as well as its server can.

`exact` scores each option as the reply, token by token, which vLLM can. `letters` puts the
options as a choice and reads the probabilities of their letters, where a server gives those of
tokens. `votes` counts the letters it says. Each falls back on the next, and says so.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

from agents.generation import Message
from orbweave.errors import EngineError, shown

__all__ = ["NotAnswered", "Weigher", "Weighing"]

_log = logging.getLogger(__name__)

Weighing = Literal["exact", "letters", "votes"]
"""Best first."""
_N_VOTES = 5
"""Replies counted: enough to tell a clear favourite, few enough to wait for."""
_MAX_OPTIONS = 20
"""OpenAI's bound of `top_logprobs`."""


class NotAnswered(Exception):
    """The server does not know the question, or not what was asked with it."""


class Weigher:
    """Asks one model of one server."""

    def __init__(
        self, post: Callable[[str, dict[str, Any]], Awaitable[Any]], model: str, by: Weighing
    ) -> None:
        """Start with a way of asking.

        Args:
            post: Returns the JSON answer to a path and a body; raises NotAnswered.
            model: The reference, for errors.
            by: The best way that the server is hoped to know.
        """
        self._post, self._model = post, model
        self._ids: dict[str, list[int]] = {}
        self.by: Weighing = by
        """The way at present."""

    async def __call__(self, chat: Sequence[Message], options: Sequence[str]) -> list[float]:
        """Return log p(option | chat), one per option.

        By `letters` and `votes` they are shares among the options, which sum to 1.

        Raises:
            EngineError: an option is empty, there are too many, or the server cannot be had.
        """
        if not options or "" in options:
            raise EngineError(f"wanted options to weigh, got an empty one in {shown(options)}")
        if self.by == "exact":
            try:
                return await self._exact(chat, options)
            except NotAnswered as err:
                self._fall_back("letters", err)
        if len(options) == 1:
            return [0.0]
        if len(options) > _MAX_OPTIONS:
            raise EngineError(
                f"wanted {len(options)} options weighed, {self._model} can be asked for "
                f"{_MAX_OPTIONS} at most; serve it with vLLM, or ask for fewer"
            )
        if self.by == "letters":
            try:
                return await self._letters(chat, options)
            except NotAnswered as err:
                self._fall_back("votes", err)
        return await self._votes(chat, options)

    async def _exact(self, chat: Sequence[Message], options: Sequence[str]) -> list[float]:
        """Return log p(option | chat), token by token, by what vLLM says of a token it must say.

        It can score a whole prompt in one request too, but under an adapter that ends the
        server (version 0.32 on a CPU). Steps that options share are asked for once.
        """
        messages = [m._asdict() for m in chat]
        prompt = await self._tokenize({"messages": messages, "add_generation_prompt": True})
        for option in options:
            if option not in self._ids:
                asked = {"prompt": option, "add_special_tokens": False}
                self._ids[option] = await self._tokenize(asked)
        ways = [_beginnings(self._ids[option]) for option in options]
        steps = list(dict.fromkeys(step for way in ways for step in way))
        # The server keeps what it computed of the prompt for the first, and the others wait less.
        first = await self._token_logprob(prompt, steps[0])
        rest = await asyncio.gather(*(self._token_logprob(prompt, step) for step in steps[1:]))
        known = dict(zip(steps, [first, *rest], strict=True))
        return [math.fsum(known[step] for step in way) for way in ways]

    async def _token_logprob(self, prompt: list[int], said: tuple[int, ...]) -> float:
        """Return the log-probability of the last token after the prompt and those before it."""
        forced = {"prompt": [*prompt, *said[:-1]], "allowed_token_ids": [said[-1]]}
        once = {"max_tokens": 1, "temperature": 0.0, "logprobs": 0}
        answer = await self._post("completions", forced | once)
        try:
            return float(answer["choices"][0]["logprobs"]["token_logprobs"][0])
        except (KeyError, TypeError, IndexError, ValueError) as err:
            raise NotAnswered("it gives no log-probability of a token") from err

    async def _tokenize(self, question: dict[str, Any]) -> list[int]:
        answer = await self._post("/tokenize", question)
        tokens = answer.get("tokens") if isinstance(answer, dict) else None
        if not tokens or not isinstance(tokens, list) or not all(type(t) is int for t in tokens):
            raise NotAnswered("it does not say what a text is in tokens")
        return tokens

    async def _letters(self, chat: Sequence[Message], options: Sequence[str]) -> list[float]:
        """Return the shares of the options' letters in the first token of the reply."""
        body = _choice(chat, options) | {"max_tokens": 1, "temperature": 0.0}
        answer = await self._post(
            "chat/completions", body | {"logprobs": True, "top_logprobs": _MAX_OPTIONS}
        )
        try:
            top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            found = [(str(each["token"]), float(each["logprob"])) for each in top]
        except (KeyError, TypeError, IndexError, ValueError) as err:
            raise NotAnswered("it gives no log-probabilities") from err
        weights = [0.0] * len(options)
        for token, logprob in found:
            place = _letter(token, len(options))
            if place is not None:
                weights[place] += math.exp(logprob)
        if not any(weights):
            raise NotAnswered("none of the letters is among its likeliest tokens")
        # A letter that is not among the likeliest is at most as likely as the last of them.
        floor = math.exp(min(logprob for _, logprob in found))
        return _shares([weight or floor for weight in weights])

    async def _votes(self, chat: Sequence[Message], options: Sequence[str]) -> list[float]:
        """Return the shares of the options among a few replies, half a vote given to each."""
        body = _choice(chat, options) | {"max_tokens": 4, "temperature": 1.0}
        asked = (self._post("chat/completions", body | {"seed": n}) for n in range(_N_VOTES))
        votes = [0.5] * len(options)
        try:
            answers = await asyncio.gather(*asked)
        except NotAnswered as err:
            raise EngineError(f"wanted an answer of {self._model}, {err}") from err
        for answer in answers:
            try:
                said = str(answer["choices"][0]["message"]["content"])
            except (KeyError, TypeError, IndexError):
                continue
            if (place := _letter(said, len(options))) is not None:
                votes[place] += 1.0
        if max(votes) < 1.0:
            raise EngineError(
                f"wanted a choice among {len(options)} options from {self._model}, none of its "
                f"{_N_VOTES} replies begins with a letter; use another model for this role"
            )
        return _shares(votes)

    def _fall_back(self, to: Weighing, reason: NotAnswered) -> None:
        _log.warning(
            "%s cannot weigh options by %s (%s); from now on by %s",
            *(self._model, self.by, reason, to),
        )
        self.by = to


def _beginnings(ids: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the tokens up to and with each."""
    return [tuple(ids[: n + 1]) for n in range(len(ids))]


def _choice(chat: Sequence[Message], options: Sequence[str]) -> dict[str, Any]:
    """Return the chat with the options put as a choice of letters."""
    *before, last = chat
    lines = [f"{chr(65 + place)}: {option}" for place, option in enumerate(options)]
    asked = "\n".join(["Which of these is your answer? Say its letter only.", *lines])
    messages = [*before, Message(last.role, f"{last.content}\n\n{asked}")]
    return {"messages": [m._asdict() for m in messages]}


def _letter(text: str, n: int) -> int | None:
    """Return the place of the letter a reply begins with, None if it is no option's."""
    match = re.match(r"\W*([A-Za-z])\b", text)
    place = ord(match[1].upper()) - 65 if match else n
    return place if place < n else None


def _shares(weights: Sequence[float]) -> list[float]:
    total = math.fsum(weights)
    return [math.log(weight / total) for weight in weights]
