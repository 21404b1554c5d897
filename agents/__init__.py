"""Who talks, with which model, on what knowledge, until when.

    conversation = await converse(Brief(concept="..."), engine_for=..., knowledge=..., ...)
    state = await resume(read_state(path), engine_for=..., knowledge=..., ...)

Importing this loads neither torch nor AutoGen; `converse` and `resume` load AutoGen when first
used. `agents.steering` changes a state on the way, `agents.comparison` sets two side by side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agents.conversation import Conversation
from agents.knowledge import Fact, Knowledge, load_knowledge
from agents.roles import Team, load_team
from agents.state import State, begin, read_state, write_state

if TYPE_CHECKING:
    from agents.team import converse, resume

__all__ = [
    "Conversation",
    "Fact",
    "Knowledge",
    "State",
    "Team",
    "begin",
    "converse",
    "load_knowledge",
    "load_team",
    "read_state",
    "resume",
    "write_state",
]


def __getattr__(name: str) -> Any:
    if name in ("converse", "resume"):
        from agents import team

        return getattr(team, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
