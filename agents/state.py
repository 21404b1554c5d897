"""What is saved of a conversation after every step, so that it can go on where it stopped.

    facts -> advice of each expert -> prompt -> pictures -> critique -> prompt ...
                        a remark of a person anywhere between

    write_state(state, folder / STATE_FILE)
    state = read_state(folder / STATE_FILE)

A state holds all a conversation rests on, its facts and its team included: models and a renderer
are all it takes to go on. It is a value: steering makes new states and leaves old ones alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, ValidationError, model_validator
from pydantic_core import from_json

from agents.critic import Judgement
from agents.engineer import Draft
from agents.knowledge import Fact
from agents.remark import quoted
from agents.roles import Team
from orbweave.errors import OrbweaveError, UsageError, shown
from orbweave.files import write_text
from orbweave.records import (
    Brief,
    Citation,
    Corpus,
    Critique,
    Domain,
    ImagePrompt,
    Measurement,
    Picture,
    Record,
    Turn,
)

__all__ = [
    "STATE_FILE",
    "AdviceStep",
    "Alternative",
    "CritiqueStep",
    "FactsStep",
    "Outcome",
    "PicturesStep",
    "PromptStep",
    "Recast",
    "RemarkStep",
    "State",
    "StateError",
    "Step",
    "begin",
    "read_state",
    "turn_of",
    "write_state",
]

STATE_FILE = "state.json"
"""Its name in the folder of a design."""
SCHEMA_VERSION: Literal[1] = 1

Outcome = Literal["under way", "finished", "paused", "cancelled", "timed out", "failed"]
"""How the latest run ended; `under way` in a file means that the process was killed."""

# As objects with names in the file: a list of bare values would break when a field is added.
_DraftField = Annotated[Draft, PlainSerializer(lambda draft: draft._asdict())]
_JudgementField = Annotated[Judgement, PlainSerializer(lambda judged: judged._asdict())]


class StateError(OrbweaveError):
    """A saved conversation cannot be read as a whole.

    Attributes:
        readable: What could be read of it, up to the first broken step; None if nothing.
    """

    def __init__(self, message: str, readable: State | None = None) -> None:
        super().__init__(message)
        self.readable = readable


class FactsStep(Record):
    """Who was chosen and what each is given; the facts themselves, so that none need be found."""

    kind: Literal["facts"] = "facts"
    domains: tuple[Domain, ...]
    facts: tuple[tuple[Fact, ...], ...]
    """One row per expert."""
    citations: tuple[Citation, ...]
    corpora: tuple[Corpus, ...] = ()
    """Corpora of the user's own that they were looked up in."""
    note: str = ""
    """What to know of how the concept was understood, see `Knowledge.note_on`."""


class AdviceStep(Record):
    """An expert spoke."""

    kind: Literal["advice"] = "advice"
    expert: Annotated[int, Field(ge=0)]
    """Index into `FactsStep.domains`."""
    turn: Turn


class PromptStep(Record):
    """The engineer wrote a version of the prompt."""

    kind: Literal["prompt"] = "prompt"
    turn: Turn
    draft: _DraftField
    prompt: ImagePrompt
    is_stale: bool = False
    """The words were changed by a person, and the geometry must be chosen again for them."""


class PicturesStep(Record):
    """A version was drawn and measured."""

    kind: Literal["pictures"] = "pictures"
    version: Annotated[int, Field(ge=0)]
    pictures: tuple[Picture, ...]
    measurements: tuple[Measurement, ...]


class CritiqueStep(Record):
    """The critic judged a version, and it was decided whether to go on."""

    kind: Literal["critique"] = "critique"
    turn: Turn
    judgement: _JudgementField
    critique: Critique
    stop_reason: str
    """Empty to go on."""


class RemarkStep(Record):
    """A person said something: a wish, or after a critique the feedback of the next revision."""

    kind: Literal["remark"] = "remark"
    turn: Turn


Step = Annotated[
    FactsStep | AdviceStep | PromptStep | PicturesStep | CritiqueStep | RemarkStep,
    Field(discriminator="kind"),
]


class Recast(Record):
    """A turn that is to be spoken with another seed or by another model than the team's."""

    turn: Annotated[int, Field(ge=0)]
    """Index of the turn."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    """In the place of the brief's; None leaves it."""
    model: str | None = None
    """In the place of the role's; None leaves it."""


class Alternative(Record):
    """What a turn was before, with all that came after it: nothing a person changes is lost."""

    turn: int
    """Index of the turn."""
    why: Literal["edited", "re-rolled", "chosen"]
    context: str
    """Digest of what stood before; while it is the same, what came after fits too."""
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]
    """The turn's own step first."""


class State(Record):
    """A conversation as far as it has come."""

    schema_version: Literal[1] = SCHEMA_VERSION
    id: str
    """Twelve hex digits."""
    parent: str | None = None
    """Id of the conversation this one branched off."""
    forked_at: int | None = None
    """Steps it has in common with its parent."""
    brief: Brief
    team: Team
    rounds: Annotated[int, Field(ge=1)]
    """Prompt versions at most; a person's remark that is yet to be answered allows one more."""
    steps: tuple[Step, ...] = ()
    """In the order they ended."""
    recasts: tuple[Recast, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    """Oldest first."""
    outcome: Outcome = "under way"
    why: str = ""
    """Why the latest run ended: the stop reason, or what failed."""
    timings_s: dict[str, float] = Field(default_factory=dict)
    """Wall time per phase, of all runs; whoever runs it names the phases."""

    @model_validator(mode="after")
    def _steps_follow_each_other(self) -> State:
        n = dict.fromkeys(("facts", "advice", "prompt", "pictures", "critique", "remark"), 0)
        n_experts = 0
        for step in self.steps:
            if isinstance(step, FactsStep):
                fits, n_experts = n["facts"] == 0, len(step.domains)
            elif isinstance(step, AdviceStep):
                fits = step.expert < n_experts and n["prompt"] == 0
            elif isinstance(step, PromptStep):
                fits = n["facts"] == 1 and n["advice"] == n_experts and n["critique"] == n["prompt"]
            elif isinstance(step, PicturesStep):
                fits = step.version == n["pictures"] == n["prompt"] - 1
            else:
                fits = step.kind == "remark" or n["critique"] == n["pictures"] - 1
            if not fits:
                raise ValueError(f"a step of kind {step.kind!r} cannot stand where it does")
            n[step.kind] += 1
        spoken = [turn.index for turn in self.turns]
        advised = [step.expert for step in self.steps if isinstance(step, AdviceStep)]
        if len(spoken) != len(set(spoken)) or len(advised) != len(set(advised)):
            raise ValueError("a turn stands there twice")
        return self

    @property
    def turns(self) -> tuple[Turn, ...]:
        """What was said, in the order of the turns' indices."""
        said = (turn for step in self.steps if (turn := turn_of(step)) is not None)
        return tuple(sorted(said, key=lambda turn: turn.index))

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Every picture on the disk, those of alternatives included."""
        steps = [*self.steps, *(step for alt in self.alternatives for step in alt.steps)]
        return tuple(p for s in steps if isinstance(s, PicturesStep) for p in s.pictures)

    @property
    def stop_reason(self) -> str:
        """Why the conversation is over; empty if it is not."""
        last = self.steps[-1] if self.steps else None
        return last.stop_reason if isinstance(last, CritiqueStep) else ""

    @property
    def asked(self) -> str:
        """The concept and what people added to it, quoted."""
        added = " ".join(quoted(text) for text in self.remarks())
        return f"{self.brief.concept} (added by a person: {added})" if added else self.brief.concept

    def remarks(self, since: int = 0) -> tuple[str, ...]:
        """Return what people said after so many steps."""
        return tuple(step.turn.text for step in self.steps[since:] if isinstance(step, RemarkStep))

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that may still be asked, once."""
        recast = [recast.model for recast in self.recasts if recast.model is not None]
        return tuple(dict.fromkeys([*self.team.models, *recast]))


def turn_of(step: Step) -> Turn | None:
    """Return what was said in a step; None if nothing was."""
    return None if isinstance(step, FactsStep | PicturesStep) else step.turn


def begin(brief: Brief, *, team: Team, rounds: int = 1) -> State:
    """Return the state of a conversation in which nothing has happened.

    Raises:
        UsageError: `rounds` is below 1.
    """
    if rounds < 1:
        raise UsageError(f"wanted at least 1 round, got {rounds}; one round is one prompt")
    return State(id=secrets.token_hex(6), brief=brief, team=team, rounds=rounds)


def write_state(state: State, path: Path) -> None:
    """Write a state, whole or not at all.

    Raises:
        OutputError: the disk refused.
    """
    write_text(path, state.model_dump_json(indent=1) + "\n")


def read_state(path: Path) -> State:
    """Read a saved state.

    Raises:
        StateError: there is none, it has another schema, or it is broken; in the last case
            the error's `readable` holds what is whole of it. The file is never changed.
    """
    try:
        content = path.read_bytes()
    except OSError as err:
        raise StateError(
            f"wanted the saved conversation {path}, the system said "
            f"{shown(err.strerror or err)}; give the folder of an unfinished design"
        ) from err
    try:
        data = from_json(content)
    except ValueError as err:
        raise _broken(path, _partial(content), err) from err
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(data, dict) and version != SCHEMA_VERSION:
        raise StateError(_other_schema(path, version))
    try:
        return State.model_validate_json(content)
    except ValidationError as err:
        raise _broken(path, data, err) from err


def _other_schema(path: Path, version: object) -> str:
    known = isinstance(version, int) and version < SCHEMA_VERSION
    which = "an older version" if known else "another program or a newer version"
    return (
        f"wanted a conversation of schema {SCHEMA_VERSION} in {path}, got {shown(version)} from "
        f"{which} of Orbweave; go on with that version, or begin the design anew"
    )


def _broken(path: Path, data: object, err: ValueError) -> StateError:
    readable = _readable(data) if isinstance(data, dict) else None
    if isinstance(err, ValidationError):
        first = err.errors()[0]
        where = ".".join(map(str, first["loc"])) or "steps"
        reason = f"at {where}: {first['msg']}"
    else:
        reason = str(err)
    left = (
        f"its first {len(readable.steps)} steps can be read: go on from there with --force, "
        "or put back a copy"
        if readable
        else "nothing of it can be read: put back a copy, or begin the design anew"
    )
    return StateError(
        f"wanted a whole conversation in {path}, it is broken ({shown(reason, 120)}); {left}",
        readable,
    )


def _partial(content: bytes) -> object:
    """Return what stands before the fault of a broken JSON text."""
    try:
        return _finished(from_json(content, allow_partial=True))
    except ValueError as err:
        # A fault in the middle is named by its line and column; before it stands a whole text.
        before = _before(content, str(err))
    try:
        return _finished(from_json(before, allow_partial=True))
    except ValueError:
        return None


def _finished(data: object) -> object:
    """Return a broken object without what was being read last; in a list, its last item."""
    if not isinstance(data, dict) or not data:
        return data
    name, value = data.popitem()
    return {**data, name: value[:-1]} if isinstance(value, list) else data


def _before(content: bytes, message: str) -> bytes:
    words = message.split()
    try:
        line, column = int(words[words.index("line") + 1]), int(words[words.index("column") + 1])
    except ValueError:
        return b""
    lines = content.splitlines(keepends=True)
    return b"".join(lines[: line - 1]) + b"".join(lines[line - 1 : line])[: max(0, column - 1)]


def _readable(data: Mapping[str, Any]) -> State | None:
    """Return the longest beginning that is a state; None if not even its head is whole."""
    if data.get("schema_version") != SCHEMA_VERSION:
        return None
    head = {name: data[name] for name in State.model_fields.keys() & data.keys()}
    steps = head.pop("steps", [])
    head = {**head, "outcome": "failed", "why": "the saved state was broken"}
    for name in ("recasts", "alternatives"):
        head[name] = _whole(head, name)
    for n in range(len(steps) if isinstance(steps, Sequence) else 0, -1, -1):
        found = _state_or_none({**head, "steps": steps[:n]})
        if found is not None:
            return found
    return None


def _whole(head: Mapping[str, Any], name: str) -> list[Any]:
    """Return those items of a list that are whole."""
    bare = {k: v for k, v in head.items() if k not in ("recasts", "alternatives")}
    items = head.get(name)
    return [
        item
        for item in (items if isinstance(items, list) else [])
        if _state_or_none({**bare, name: [item]})
    ]


def _state_or_none(data: Mapping[str, Any]) -> State | None:
    try:
        return State.model_validate(data)
    except ValidationError:
        return None
