"""A script: the turns that are put to any model, and what each turn may use of the earlier ones.

    name: sample
    system: You are a materials scientist.
    fields: {concept: a bandage}
    turns:
      - name: principles
        ask: What can silk and leaves teach us about {concept}?
      - name: prompt
        ask: Turn this into a prompt for an image generator. {reply.principles}
        image: true

`{reply.NAME}` or `{reply.1}` is an earlier reply, `{concept}` a field; `{{` and `}}` are braces.
Without its own settings a turn is drawn as in the paper's chats.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import ConfigDict, Field, ValidationError

from agents.generation import Sampling
from agents.json_reply import shape_faults
from orbweave.errors import UsageError, shown
from orbweave.records import Record
from orbweave.yaml_text import parsed, yaml_fault

__all__ = [
    "PAPER_SAMPLING",
    "PAPER_TOKENS",
    "SCRIPTS",
    "Script",
    "ScriptTurn",
    "check_script",
    "list_scripts",
    "load_script",
]

SCRIPTS = Path(__file__).with_name("scripts")
"""The shipped scripts."""
PAPER_SAMPLING = Sampling(temperature=0.2, top_p=0.9, top_k=512, repetition_penalty=1.1)
"""How the paper's chats were drawn. Source: Lu, Luu & Buehler (2025), methods and repository."""
PAPER_TOKENS = 1_024
"""Longest reply of the paper's chats, in tokens."""
_MAX_BYTES = 1_000_000
_NAME = re.compile(r"[A-Za-z][\w-]*", re.A)
_REPLY = "reply."
_FAULTS = {"model_type": "wanted keys and values", "too_short": "wanted at least one"}
"""In the place of what pydantic says, which speaks of our classes."""


class Draw(Record):
    """Settings of `Sampling` that differ from what stands above them."""

    temperature: Annotated[float, Field(ge=0.0, lt=100.0)] | None = None
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0.0, lt=100.0)] | None = None


class ScriptTurn(Record):
    """One question of a script."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True)

    name: str
    ask: Annotated[str, Field(min_length=1)]
    """The user's text, with places for fields and earlier replies."""
    system: str | None = None
    """Replaces the script's system text for this turn; it may hold the same places."""
    fresh: bool = False
    """The chat begins anew here: of the earlier turns only what the text names is seen, and
    later turns see none before this one."""
    sampling: Draw = Draw()
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] | None = None
    shape: Any = Field(default=None, alias="json")
    """Keys and types of the JSON that is wanted, see `agents.json_reply`; None wants prose."""
    image: bool = False
    """The reply is an image prompt; `--render` draws it."""


class Script(Record):
    """Turns and how they are spoken."""

    name: Annotated[str, Field(min_length=1)]
    about: str = ""
    source: str = ""
    system: str = ""
    fields: dict[str, str] = {}
    """Name -> text to put into the turns; `--set` replaces it."""
    models: Annotated[tuple[str, ...], Field(min_length=1)] = ("base",)
    """Model references to ask where the caller names none."""
    sampling: Draw = Draw()
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] = PAPER_TOKENS
    turns: Annotated[tuple[ScriptTurn, ...], Field(min_length=1, max_length=50)]

    @property
    def digest(self) -> str:
        """SHA-256 of everything that decides what is asked and how; 64 hex digits."""
        asked = self.model_dump_json(exclude={"about", "source", "models"})
        return hashlib.sha256(asked.encode()).hexdigest()

    def sampling_of(self, turn: ScriptTurn) -> Sampling:
        """Return how a turn's reply is drawn: the turn's settings, the script's, the paper's."""
        given = self.sampling.model_dump(exclude_none=True)
        return replace(PAPER_SAMPLING, **given | turn.sampling.model_dump(exclude_none=True))

    def system_of(self, turn: ScriptTurn, replies: Sequence[str]) -> str:
        """Return the system text of a turn, empty for none."""
        return self._filled(self.system if turn.system is None else turn.system, replies)

    def ask_of(self, turn: ScriptTurn, replies: Sequence[str]) -> str:
        """Return the user's text of a turn.

        Args:
            turn: One of this script's.
            replies: Of all turns before it, in order.
        """
        return self._filled(turn.ask, replies)

    def _filled(self, text: str, replies: Sequence[str]) -> str:
        numbers = {turn.name: i for i, turn in enumerate(self.turns)}
        parts = []
        for literal, place in _places(text):
            parts.append(literal)
            if place is not None and place.startswith(_REPLY):
                which = place.removeprefix(_REPLY)
                parts.append(replies[int(which) - 1 if which.isdecimal() else numbers[which]])
            elif place is not None:
                parts.append(self.fields[place])
        return "".join(parts)


def list_scripts() -> list[str]:
    """Return the names of the shipped scripts."""
    return sorted(path.stem for path in SCRIPTS.glob("*.yaml"))


def load_script(source: str | Path, fields: Mapping[str, str] | None = None) -> Script:
    """Return a shipped script by name, or one read from a YAML file.

    Raises:
        UsageError: there is none; or every fault of it in one message.
    """
    script, faults = check_script(source, fields or {})
    if script is None:
        raise UsageError("; ".join(faults))
    return script


def check_script(
    source: str | Path, fields: Mapping[str, str]
) -> tuple[Script | None, tuple[str, ...]]:
    """Return the script and no faults, or None and every fault found.

    Args:
        source: Name of a shipped script, or a YAML file.
        fields: Texts that replace the script's own.
    """
    path = SCRIPTS / f"{source}.yaml" if str(source) in list_scripts() else Path(source)
    try:
        if path.stat().st_size > _MAX_BYTES:
            return None, (f"wanted a script, {path} holds more than 1 MB; shorten it",)
        raw, repeated = parsed(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as err:
        reason = getattr(err, "strerror", None) or "not a text file"
        known = ", ".join(list_scripts())
        return None, (f"wanted a script, got {shown(source)}: {reason}; shipped are {known}",)
    except yaml.YAMLError as err:
        return None, (f"wanted YAML in {shown(path)}, {yaml_fault(err)}",)
    except RecursionError:
        return None, (f"wanted a script, {shown(path)} is nested too deeply",)
    if repeated:
        return None, (f"wanted YAML in {shown(path)}, {'; '.join(repeated)}",)
    if not isinstance(raw, dict):
        return None, (f"wanted a script with name and turns in {path}, got {shown(raw)}",)
    try:
        return _checked(raw, fields)
    except RecursionError:  # an alias that holds itself
        return None, (f"wanted a script, {shown(path)} is nested without end",)


def _checked(
    raw: dict[Any, Any], fields: Mapping[str, str]
) -> tuple[Script | None, tuple[str, ...]]:
    """Return the script that a file's content is, or None and every fault of it."""
    faults = _form_faults(raw)
    known_fields = raw.get("fields") if isinstance(raw.get("fields"), dict) else {}
    assert isinstance(known_fields, dict)
    unknown = sorted(fields.keys() - known_fields.keys())
    if unknown:
        named = ", ".join(map(str, known_fields)) or "none"
        faults.append(f"wanted fields of this script ({named}), got {', '.join(unknown)}")
    faults += _turn_faults(raw, set(map(str, known_fields)))
    if faults:
        return None, tuple(faults)
    return Script.model_validate(raw | {"fields": known_fields | dict(fields)}), ()


def _form_faults(raw: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with keys and values."""
    try:
        Script.model_validate(raw)
    except ValidationError as err:
        return [
            f"at {'.'.join(map(str, e['loc']))}: {_FAULTS.get(e['type'], e['msg'].lower())}, "
            f"got {shown(e['input'], 40)}"
            for e in err.errors()
            # Items that are faulty themselves are not counted, which is no fault of their list.
            if e["type"] != "too_short" or not e["input"]
        ]
    return []


def _turn_faults(raw: Mapping[str, Any], fields: set[str]) -> list[str]:
    """Return what is wrong between turns; turns of a wrong form are passed over."""
    turns = raw.get("turns")
    turns = [t for t in turns if isinstance(t, dict)] if isinstance(turns, list) else []
    faults: list[str] = []
    earlier: list[str] = []
    for number, turn in enumerate(turns, 1):
        name, where = str(turn.get("name")), f"turn {number} ({turn.get('name')})"
        if isinstance(turn.get("name"), str) and not _NAME.fullmatch(name):
            faults.append(f"{where}: wanted a name of letters, digits, - and _, got {shown(name)}")
        if name in earlier:
            faults.append(f"{where}: another turn is called {name}; names must differ")
        if isinstance(ask := turn.get("ask"), str) and ask and not ask.strip():
            faults.append(f"{where}: wanted a question in words, got {shown(ask)}")
        for text in (raw.get("system"), turn.get("system"), turn.get("ask")):
            if isinstance(text, str):
                faults += _place_faults(text, where, earlier, fields)
        if turn.get("json") is not None:
            faults += [f"{where}: {fault}" for fault in shape_faults(turn["json"])]
            if turn.get("image"):
                faults.append(f"{where}: wanted an image prompt or JSON, got both; take two turns")
        earlier.append(name)
    return faults


def _place_faults(text: str, where: str, earlier: Sequence[str], fields: set[str]) -> Iterator[str]:
    try:
        places = [place for _, place in _places(text) if place is not None]
    except ValueError as err:
        yield f"{where}: {err}; write {{{{ and }}}} for braces that are meant"
        return
    for place in places:
        which = place.removeprefix(_REPLY)
        if place.startswith(_REPLY):
            if which.isdecimal():
                known = 1 <= int(which) <= len(earlier)
            else:
                known = which in earlier
            if not known:
                names = ", ".join(earlier) or "none"
                yield f"{where}: wanted an earlier reply ({names}), got {{{place}}}"
        elif place not in fields:
            names = ", ".join(sorted(fields)) or "none"
            yield (
                f"{where}: wanted a field ({names}) or {{reply.NAME}}, got {{{place}}}; "
                f"write {{{{{place}}}}} for braces that are meant"
            )


def _places(text: str) -> Iterator[tuple[str, str | None]]:
    """Yield (literal text, place behind it or None).

    Raises:
        ValueError: braces that do not match, or more in them than a name.
    """
    for literal, place, form, conversion in string.Formatter().parse(text):
        if form or conversion:
            raise ValueError(f"wanted a plain name in braces, got {shown(place)} with a format")
        yield literal, place
