"""Who sits in the team and in which words each is asked; the words are data in `teams`.

A `Form` is one kind of question: a system text, the layout of the user's turn and the beginning
of the answer. Models are trained on the very forms they are asked in, so a form changes
only together with the training items laid out by it.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, model_validator

from agents.generation import Message, Sampling
from agents.voice import Job
from orbweave.errors import UsageError, shown
from orbweave.records import SCALES, Domain, Record, Scale
from orbweave.yaml_text import fault_text, parsed, yaml_fault

__all__ = [
    "FORMS",
    "TEAMS",
    "Example",
    "Expert",
    "Form",
    "Palette",
    "StopRule",
    "Team",
    "load_team",
]

FORMS = ("principle", "look", "prompt", "revision", "critique")
"""The forms of a team, by the names of their fields."""
TEAMS = Path(__file__).with_name("teams")
"""The shipped teams."""


class Example(Record):
    """One worked case shown to an untuned model before the real one."""

    fields: dict[str, str]
    reply: str


class Form(Record):
    """One kind of question to a model."""

    system: str
    """Who the model is; may name fields in braces."""
    user: str
    """Layout of the user's turn with fields in braces, e.g. `Concept: {concept}`."""
    prefix: str = ""
    """How the reply must begin."""
    examples: tuple[Example, ...] = ()
    """Shown as earlier turns; a model trained on the form needs none."""
    grounding: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Share of a free reply's words that its fields or the examples must hold; a model of 135M
    writes about something else otherwise. A better one may need less: of 368 prompts that teachers
    wrote from notes 80 % hold more than 0.1, of prompts beside other notes 5 % do."""
    tries: Annotated[int, Field(ge=1, le=5)] = 2
    """Attempts, each with its own seed, before the frame steps in."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 80
    temperature: Annotated[float, Field(ge=0.0)] = 0.3
    repetition_penalty: Annotated[float, Field(ge=1.0)] = 1.0
    """Above 1 the model also shuns the words of its facts, so 1 suits rewording."""

    @model_validator(mode="after")
    def _examples_fit(self) -> Form:
        missing = [sorted(self.fields - e.fields.keys()) for e in self.examples]
        if any(missing):
            raise ValueError(f"an example lacks the fields {missing}")
        return self

    @property
    def fields(self) -> frozenset[str]:
        """The names in braces in the user's layout."""
        return frozenset(name for _, name, _, _ in string.Formatter().parse(self.user) if name)

    def messages(self, fields: Mapping[str, str]) -> tuple[Message, ...]:
        """Return the chat that asks this question; `fields` may hold more than is used.

        Raises:
            KeyError: a field is missing, which is an error of the caller.
        """
        turns = [Message("system", self.system.format_map(dict(fields)))]
        for example in self.examples:
            turns.append(Message("user", self.user.format_map(example.fields)))
            turns.append(Message("assistant", example.reply))
        return (*turns, Message("user", self.user.format_map(dict(fields))))

    def job(self, fields: Mapping[str, str], *, seed: int, stop: tuple[str, ...] = ()) -> Job:
        """Return the question as a job for a voice."""
        return Job(
            messages=self.messages(fields),
            max_new_tokens=self.max_new_tokens,
            seed=seed,
            prefix=self.prefix.format_map(dict(fields)),
            stop=stop,
            sampling=Sampling(
                temperature=self.temperature, repetition_penalty=self.repetition_penalty
            ),
        )


class Expert(Record):
    """One domain expert."""

    domain: Domain
    name: str
    """As shown, an identifier."""
    field: str
    """What it is an expert on, in words."""
    model: str = "base"
    """Model reference."""


class Palette(Record):
    """Sentences a prompt can be composed of, where a model cannot write one."""

    views: dict[Scale, tuple[str, ...]]
    leads: dict[Scale, str] = {}
    """Ties what the facts look like to the thing, at scales other than theirs."""
    colours: dict[Scale, tuple[str, ...]]
    close: str
    """Last sentence."""

    @model_validator(mode="after")
    def _every_scale_has_both(self) -> Palette:
        for name, given in {"view": self.views, "colours": self.colours}.items():
            if missing := [scale for scale in SCALES if not given.get(scale)]:
                raise ValueError(f"no {name} for the scales {missing}")
        return self

    @property
    def sentences(self) -> frozenset[str]:
        """Every sentence, of all scales."""
        by_scale = [*self.views.values(), *self.colours.values()]
        return frozenset({*chain.from_iterable(by_scale), *self.leads.values(), self.close})


class StopRule(Record):
    """When a conversation is good enough, or not getting better.

    Tolerances are as tight as the measurements are accurate.
    """

    level: Annotated[float, Field(ge=1.0, le=5.0)] = 4.2
    """Mean critic's score at which to stop, where there is nothing to measure."""
    min_gain: Annotated[float, Field(ge=0.0)] = 0.05
    """A smaller fall of the distance to the targets, in tolerances, or rise of the mean score
    counts as none."""
    patience: Annotated[int, Field(ge=1)] = 2
    """Rounds without a gain after which to stop."""
    solid_fraction: Annotated[float, Field(gt=0.0)] = 0.02
    """Tolerated distance from the target, absolute."""
    direction_deg: Annotated[float, Field(gt=0.0)] = 3.0
    """Tolerated distance from the target in degrees."""
    spacing: Annotated[float, Field(gt=0.0)] = 0.05
    """Tolerated distance from the target, relative."""


class Team(Record):
    """Everything about a team that is words and numbers."""

    name: str
    scale: Scale | None = None
    """The scale it works at, whatever the brief says; None takes the brief's."""
    experts: tuple[Expert, ...]
    """None of them is a team of one: the engineer writes from the concept alone."""
    most_rounds: Annotated[int, Field(ge=1)] | None = None
    """Prompt versions at most, however many are asked for."""
    facts_each: Annotated[int, Field(ge=1, le=8)] = 3
    """Facts each expert is given."""
    grounding: Annotated[float, Field(ge=0.0, le=1.0)] = 0.7
    """Share of an expert sentence's words that its fact or the concept must hold; a smaller
    share is taken for straying. A large model may be given more room, e.g. 0.4."""
    turn_limit_s: Annotated[float, Field(gt=0.0)] = 600.0
    """Seconds a turn may take; a speaker who is not done by then ends the run. Chosen by us: ten
    times what a turn of the embedded model takes on two busy cores."""
    engineer_model: str = "base"
    critic_model: str = "base"
    principle: Form
    """Facts -> what the design should do."""
    look: Form
    """What one sees in nature -> what one would see in the design."""
    prompt: Form
    """Concept and notes -> title, prompt, what to avoid."""
    revision: Form
    """Prompt and feedback -> prompt."""
    critique: Form
    """Concept, prompt and measurements -> scores and advice."""
    palette: Palette
    trained: tuple[str, ...] = ()
    """References of models that were trained on these very forms: they need no examples."""
    stop: StopRule = StopRule()

    @property
    def models(self) -> tuple[str, ...]:
        """Every model the team speaks with, once, in the order of speaking."""
        spoken = [expert.model for expert in self.experts]
        return tuple(dict.fromkeys([*spoken, self.engineer_model, self.critic_model]))

    def without_examples(self) -> Team:
        """Return the team as trained models are asked: without worked examples."""
        bare = {"examples": ()}
        return self.model_copy(
            update={name: getattr(self, name).model_copy(update=bare) for name in FORMS}
        )

    def expert(self, domain: Domain) -> Expert:
        """Return the expert of a domain.

        Raises:
            UsageError: the team has none.
        """
        for expert in self.experts:
            if expert.domain == domain:
                return expert
        known = ", ".join(expert.domain for expert in self.experts)
        raise UsageError(f"wanted an expert on {shown(domain)}, the team has {known}; name one")


def load_team(source: str | Path = "default") -> Team:
    """Return a shipped team by name, or one read from a YAML file.

    Raises:
        UsageError: there is no such team, or the file is no team.
    """
    path = source if isinstance(source, Path) else TEAMS / f"{source}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in TEAMS.glob("*.yaml")))
        raise UsageError(f"wanted a team, found no {shown(source)}; use a YAML file or: {known}")
    try:
        return Team.model_validate(_content(path))
    except ValidationError as err:
        faults = [fault_text(error) for error in err.errors()]
        told = f"found {len(faults)} faults: {'; '.join(faults)}" if faults[1:] else faults[0]
        raise UsageError(f"wanted a team in {shown(path)}, {told}") from err


def _content(path: Path, heirs: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return what a team file says, laid over the team it is `like`.

    That is another file beside it or a shipped team, by name. Mappings are merged key by key;
    lists and values are replaced.
    """
    try:
        content, repeated = parsed(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        why = yaml_fault(err) if isinstance(err, yaml.YAMLError) else "bytes that are not UTF-8"
        raise UsageError(f"wanted a team in {shown(path)}, it is no YAML: {why}") from err
    if repeated:
        raise UsageError(f"wanted a team in {shown(path)}, {'; '.join(repeated)}")
    if not isinstance(content, dict):
        raise UsageError(f"wanted a team in {shown(path)}, got no mapping of names to values")
    like = content.pop("like", None)
    if like is None:
        return content
    places = [folder / f"{like}.yaml" for folder in (path.parent, TEAMS)]
    parent = next((p for p in places if p.is_file() and p.resolve() != path.resolve()), None)
    if parent is None or Path(str(like)).name != like:
        raise UsageError(
            f"wanted the team that {shown(path)} is like, found no {shown(like)}; "
            "name a YAML file beside it, without its ending, or a shipped team"
        )
    if parent.resolve() in heirs:
        raise UsageError(f"wanted a first team, but {shown(path)} and {shown(parent)} are alike")
    return _laid_over(_content(parent, (*heirs, path.resolve())), content)


def _laid_over(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(merged.get(key), dict) and isinstance(value, dict)
        merged[key] = _laid_over(merged[key], value) if both else value
    return merged
