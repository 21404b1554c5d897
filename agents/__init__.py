"""Who talks, with which model, on what knowledge, until when.

    conversation = await converse(Brief(concept="..."), engine_for=..., knowledge=..., ...)

Importing this loads neither torch nor AutoGen; `converse` loads AutoGen when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agents.conversation import Conversation
from agents.knowledge import Fact, Knowledge, load_knowledge
from agents.roles import Team, load_team

if TYPE_CHECKING:
    from agents.team import converse

__all__ = [
    "Conversation",
    "Fact",
    "Knowledge",
    "Team",
    "converse",
    "load_knowledge",
    "load_team",
]


def __getattr__(name: str) -> Any:
    if name == "converse":
        from agents.team import converse

        return converse
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
