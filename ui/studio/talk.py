"""The conversation of a sitting: goes on from what is kept of it and keeps every step."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from agents.conversation import Conversation, conversation_of
from agents.roles import Team
from agents.state import begin
from orbweave.records import Brief
from ui.studio.sitting import Sitting

__all__ = ["at_work", "converse"]

at_work: ContextVar[Sitting | None] = ContextVar("at_work", default=None)
"""The sitting whose design is made here. What makes designs knows rows and folders, no sittings,
and hands a conversation on to `converse`, in the same context."""


async def converse(brief: Brief, *, team: Team, rounds: int, **parts: Any) -> Conversation:
    """Stand in for `agents.team.converse`, which it calls; raises as that does."""
    from agents.team import resume

    sitting = at_work.get()
    kept = sitting.state if sitting is not None else None
    state = kept or begin(brief, team=team, rounds=rounds)
    if sitting is not None:
        sitting.put_back()
        parts["keep"] = sitting.keep
    return conversation_of(await resume(state, **parts))
