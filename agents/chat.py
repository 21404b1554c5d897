"""Chats in the one form that every chat template can take."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from agents.generation import Message
from orbweave.errors import UsageError

__all__ = ["fitted"]


def fitted(messages: Sequence[Message], *, system_role: bool = True) -> tuple[Message, ...]:
    """Return a chat whose roles alternate; the input is left as it is.

    System texts are joined and come first; a run of turns of one role becomes one turn. Without
    a system role, which Gemma's and Mistral's older templates lack, the system text opens the
    first user turn.

    Raises:
        UsageError: there is no turn to answer.
    """
    system = "\n\n".join(m.content for m in messages if m.role == "system")
    turns = [m for m in messages if m.role != "system"]
    if not turns:
        raise UsageError("wanted a turn to answer, got only system texts; add a user turn")
    chat = [
        Message(role, "\n\n".join(message.content for message in run))
        for role, run in groupby(turns, key=lambda m: m.role)
    ]
    if system and system_role:
        return (Message("system", system), *chat)
    if system and chat[0].role == "user":
        return (Message("user", f"{system}\n\n{chat[0].content}"), *chat[1:])
    return (Message("user", system), *chat) if system else tuple(chat)
