"""What has happened in a sitting so far, folded from its events one by one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from agents.events import (
    Critiqued,
    FactsFound,
    Prompted,
    Rendered,
    RenderStep,
    Spoke,
    Stopped,
    TurnEnded,
    TurnStarted,
)
from orbweave.records import Citation, Critique, ImagePrompt, Measurement, Picture, Turn
from ui.studio.journal import Entry, Moved, Noted, Status, Steered

__all__ = ["Item", "Speech", "Story"]


class Item(NamedTuple):
    """One thing on the table, in the order it came."""

    kind: Literal["turn", "prompt", "pictures", "critique"]
    number: int
    """Index of the turn, or version of the prompt."""


@dataclass
class Speech:
    """A turn under way; `turn` is set once it is finished and then holds the text."""

    index: int
    speaker: str
    role: str
    model: str
    heard: str = ""
    """Streamed so far: a preview."""
    turn: Turn | None = None


@dataclass
class Story:
    """Everything there is to show of a sitting."""

    status: Status = "queued"
    why: str = ""
    note: str = ""
    """What is being waited for."""
    began_at: float = 0.0
    """When the run, or its last attempt, began; seconds since 1970."""
    ended_at: float = 0.0
    n_heard: int = 0
    """Happenings so far; tells a reader whether anything is new."""
    domains: tuple[str, ...] = ()
    facts: dict[str, Citation] = field(default_factory=dict)
    facts_note: str = ""
    speeches: dict[int, Speech] = field(default_factory=dict)
    prompts: dict[int, ImagePrompt] = field(default_factory=dict)
    pictures: dict[int, tuple[Picture, ...]] = field(default_factory=dict)
    """By prompt version; paths are relative to the design folder."""
    measurements: dict[str, Measurement] = field(default_factory=dict)
    """By the picture's path."""
    critiques: dict[int, Critique] = field(default_factory=dict)
    step: tuple[int, int] | None = None
    """Denoising steps done and in all, while pictures are drawn."""
    stop_reason: str = ""
    steered: list[str] = field(default_factory=list)
    """What a person changed, oldest first."""
    items: list[Item] = field(default_factory=list)

    def hear(self, entry: Entry) -> None:
        """Take in what happened next."""
        self.n_heard += 1
        what = entry.what
        if isinstance(what, Moved):
            self._move(what, entry.at)
        elif isinstance(what, Noted):
            self.note = what.text
        elif isinstance(what, Steered):
            self.steered.append(what.text)
        elif isinstance(what, FactsFound):
            self.domains = what.domains
            self.facts |= {fact.id: fact for fact in what.facts}
            self.facts_note = what.note
        elif isinstance(what, TurnStarted):
            self.note = ""
            self._speech(what.index, what.speaker, what.role, what.model)
        elif isinstance(what, Spoke):
            if what.index in self.speeches:
                self.speeches[what.index].heard += what.text
        elif isinstance(what, TurnEnded):
            turn = what.turn
            self._speech(turn.index, turn.speaker, turn.role, turn.model).turn = turn
        elif isinstance(what, Prompted):
            self.prompts[what.version] = what.prompt
            self._put(Item("prompt", what.version))
        elif isinstance(what, RenderStep):
            self.note, self.step = "", (what.step, what.total)
        elif isinstance(what, Rendered):
            self.step = None
            self.pictures[what.version] = what.pictures
            self.measurements |= {m.picture: m for m in what.measurements}
            self._put(Item("pictures", what.version))
        elif isinstance(what, Critiqued):
            self.critiques[what.critique.prompt_version] = what.critique
            self._put(Item("critique", what.critique.prompt_version))
        elif isinstance(what, Stopped):
            self.stop_reason = what.reason

    def _move(self, moved: Moved, at: float) -> None:
        if moved.status == "running":
            self.began_at = at
        elif moved.status != "queued":
            self.ended_at = at
        self.status, self.why = moved.status, moved.why
        self.note, self.step = "", None

    def _speech(self, index: int, speaker: str, role: str, model: str) -> Speech:
        if index not in self.speeches:
            self.speeches[index] = Speech(index, speaker, role, model)
            self._put(Item("turn", index))
        return self.speeches[index]

    def _put(self, item: Item) -> None:
        """Put down what is new; turns spoken at once lie in the order of their indices."""
        if item in self.items:
            return
        place = len(self.items)
        while place and item.kind == "turn" == self.items[place - 1].kind:
            if self.items[place - 1].number < item.number:
                break
            place -= 1
        self.items.insert(place, item)
