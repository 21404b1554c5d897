"""What was asked and answered in a script: one record a turn, and Markdown for reading."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from agents.generation import Sampling
from agents.json_reply import JsonReply
from orbweave.records import Record

__all__ = ["FINISHED", "Outcome", "SpokenTurn", "Transcript", "markdown", "said_of"]

Outcome = Literal["answered", "cut off", "empty", "context full", "timed out", "failed"]
"""What became of a turn.

answered      the model ended by itself
cut off       the token limit came first; the reply is kept and the chat goes on
empty         nothing but blanks came; the chat goes on
context full  the chat no longer fits the model; this and later turns are not asked
timed out     no reply within the time limit; later turns are not asked
failed        the model could not be loaded or could not answer; later turns are not asked
"""
FINISHED: frozenset[Outcome] = frozenset({"answered", "cut off", "empty"})
"""Outcomes after which the chat goes on, and which a later run does not ask again."""


class SpokenTurn(Record):
    """One turn of one model with one seed; a line of `turns.jsonl`."""

    model: str
    """Model reference."""
    seed: int
    index: int
    """Place in the script, from 0."""
    turn: str
    """The turn's name in the script."""
    system: str = ""
    asked: str = ""
    """The user's text as the model saw it."""
    reply: str = ""
    outcome: Outcome
    error: str = ""
    """Why there is no reply."""
    json_reply: JsonReply | None = None
    """Where the script wanted JSON."""
    sampling: Sampling | None = None
    generation_seed: int = 0
    max_new_tokens: int = 0
    """Room the reply had; less than the script's where the model's window is smaller."""
    n_prompt_tokens: int = 0
    n_tokens: int = 0
    seconds: float = 0.0
    """Wall time; not part of what a seed repeats."""

    @property
    def is_finished(self) -> bool:
        """Whether there is a reply that later turns can build on."""
        return self.outcome in FINISHED


class Transcript(NamedTuple):
    """Everything one model said with one seed."""

    script: str
    model: str
    seed: int
    turns: tuple[SpokenTurn, ...]
    """In order; the last may be one that was not answered."""
    pictures: Mapping[str, Sequence[str]] = {}
    """Turn -> paths of its pictures, relative to the transcript."""


def said_of(turn: SpokenTurn) -> str:
    """Return in a few words what became of a turn; empty if nothing is worth saying."""
    parts: list[str] = [] if turn.outcome == "answered" else [turn.outcome]
    if turn.outcome == "cut off":
        parts = [f"cut off at {turn.max_new_tokens:,} tokens"]
    if turn.error:
        parts.append(turn.error)
    if turn.json_reply is not None:
        problem = f" ({turn.json_reply.problem})" if turn.json_reply.problem else ""
        parts.append(f"JSON {turn.json_reply.status}{problem}")
    return "; ".join(parts)


def markdown(transcript: Transcript) -> str:
    """Return a transcript for reading; what was asked and said stands in quotation blocks."""
    parts = [
        f"# {_plain(transcript.script)}\n",
        f"Model {_code(transcript.model)}, seed {transcript.seed}.\n",
    ]
    system = None
    for turn in transcript.turns:
        parts.append(f"## {turn.index + 1}. {turn.turn}\n")
        if turn.system != system:
            parts.append(f"**System**\n\n{_quoted(turn.system)}\n")
            system = turn.system
        parts.append(f"**User**\n\n{_quoted(turn.asked)}\n")
        if turn.is_finished:
            parts.append(f"**Assistant**\n\n{_quoted(turn.reply)}\n")
        if said_of(turn):
            parts.append(f"*{_plain(said_of(turn))}*\n")
        if turn.json_reply is not None and turn.json_reply.status == "repaired":
            value = json.dumps(turn.json_reply.value, ensure_ascii=False, indent=2)
            parts.append(f"**As repaired**\n\n{_indented(value)}\n")
        parts += [f"![{turn.turn}]({path})\n" for path in transcript.pictures.get(turn.turn, ())]
    return "\n".join(parts)


def _quoted(text: str) -> str:
    """Return a text as a quotation block, in which no line can open a heading of the page."""
    lines = text.strip().splitlines() or ["(nothing)"]
    return "\n".join(f"> {_plain(line)}".rstrip() for line in lines)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _plain(text: str) -> str:
    """Return a text in which a viewer finds no HTML of the model's own."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _code(text: str) -> str:
    """Return a text as a code span, whatever backticks are in it."""
    fence = "`"
    while fence in text:
        fence += "`"
    space = " " if len(fence) > 1 else ""
    return f"{fence}{space}{text}{space}{fence}"
