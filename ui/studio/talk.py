"""The conversation of a sitting: goes on from what is kept of it and keeps every step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from agents.conversation import Conversation, conversation_of
from agents.generation import Engine
from agents.roles import Team
from agents.state import begin
from orbweave.records import Brief
from ui.studio.sitting import Sitting

__all__ = ["at_work", "talking"]

at_work: ContextVar[Sitting | None] = ContextVar("at_work", default=None)
"""The sitting whose design is made here. What makes designs knows rows and folders, no sittings,
and hands a conversation on to what `talking` returns, in the same context."""


def talking(open_engine: Callable[[str], Engine]) -> Callable[..., Awaitable[Conversation]]:
    """Return what stands in for `agents.team.converse`, which raises as that does.

    Args:
        open_engine: Opens a model that a person chose for a turn and the team does not speak with.
    """

    async def converse(brief: Brief, *, team: Team, rounds: int, **parts: Any) -> Conversation:
        from agents.team import resume

        sitting = at_work.get()
        kept = sitting.state if sitting is not None else None
        state = kept or begin(brief, team=team, rounds=rounds)
        if sitting is not None:
            sitting.put_back()
            parts["keep"] = sitting.keep
        of_the_team, opened = parts.pop("engine_for"), dict[str, Engine]()

        def engine_for(model: str) -> Engine:
            engine: Engine = opened[model] if model in opened else of_the_team(model)
            return engine

        try:
            for model in state.models:
                if model not in team.models:
                    opened[model] = await asyncio.to_thread(open_engine, model)
            return conversation_of(await resume(state, engine_for=engine_for, **parts))
        finally:
            for engine in opened.values():
                await engine.close()

    return converse
