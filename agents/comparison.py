"""Two conversations side by side: which steps they share, and what differs in the others.

    compare(state, branch(state, at=4))

For views: words as a diff, pictures with the settings they differ in, measurements in pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

from agents.critic import measured_means
from agents.diff import Piece, word_diff
from agents.state import (
    AdviceStep,
    CritiqueStep,
    FactsStep,
    PicturesStep,
    PromptStep,
    RemarkStep,
    State,
    Step,
    turn_of,
)
from orbweave.records import Picture, Record

__all__ = ["Comparison", "Drawn", "Pair", "Wording", "compare"]


class Pair(Record):
    """The same step of both, or a step of one alone."""

    name: str
    """For people: the speaker, or what the step is."""
    is_same: bool
    """Whether both say or show the same; times and turn numbers do not count."""
    a: Step | None
    b: Step | None


class Wording(Record):
    """One version of the prompt in both."""

    version: int
    a: str | None
    """None where there is no such version."""
    b: str | None
    words: tuple[Piece, ...]
    """From `a` to `b`."""


class Drawn(Record):
    """The pictures of one version in both."""

    version: int
    a: tuple[Picture, ...]
    b: tuple[Picture, ...]
    same_seeds: bool
    """Whether picture n of both comes from the same seed, so that only settings differ."""
    settings: dict[str, tuple[Any, Any]]
    """Fields of the request in which the first pictures differ, as (a, b) in JSON values."""
    measured: dict[str, tuple[float | None, float | None]]
    """Mean statistics over the pictures, as (a, b)."""


class Comparison(Record):
    """Two conversations side by side."""

    a: str
    """Id."""
    b: str
    shared: int
    """Leading steps that are the same."""
    steps: tuple[Pair, ...]
    prompts: tuple[Wording, ...]
    drawn: tuple[Drawn, ...]
    stop_reasons: tuple[str, str]


def compare(a: State, b: State) -> Comparison:
    """Return two conversations side by side, step by step in the order of the talk."""
    pairs = tuple(_pair(*both) for both in _aligned(a, b))
    shared = next((n for n, pair in enumerate(pairs) if not pair.is_same), len(pairs))
    return Comparison(
        a=a.id,
        b=b.id,
        shared=shared,
        steps=pairs,
        prompts=_wordings(_prompts(a), _prompts(b)),
        drawn=_drawings(_pictures(a), _pictures(b)),
        stop_reasons=(a.stop_reason, b.stop_reason),
    )


def _aligned(a: State, b: State) -> list[tuple[str, Step | None, Step | None]]:
    left, right = _named(a), _named(b)
    matcher = SequenceMatcher(None, [n for n, _ in left], [n for n, _ in right], autojunk=False)
    both: list[tuple[str, Step | None, Step | None]] = []
    for kind, i, j, m, n in matcher.get_opcodes():
        if kind == "equal":
            both += [(x[0], x[1], y[1]) for x, y in zip(left[i:j], right[m:n], strict=True)]
        else:
            both += [(name, step, None) for name, step in left[i:j]]
            both += [(name, None, step) for name, step in right[m:n]]
    return both


def _named(state: State) -> list[tuple[str, Step]]:
    """Return the steps with names that are the same in other conversations, experts in order."""
    facts = next((s for s in state.steps if isinstance(s, FactsStep)), None)
    advice = sorted(
        (s for s in state.steps if isinstance(s, AdviceStep)), key=lambda step: step.expert
    )
    named: list[tuple[str, Step]] = []
    version = 0
    for step in state.steps:
        if isinstance(step, AdviceStep):
            step = advice.pop(0)
            assert facts is not None
            named.append((state.team.expert(facts.domains[step.expert]).name, step))
        elif isinstance(step, FactsStep | RemarkStep):
            named.append((step.kind, step))
        else:
            named.append((f"{step.kind}, version {version}", step))
            version += isinstance(step, CritiqueStep)
    return named


def _pair(name: str, a: Step | None, b: Step | None) -> Pair:
    same = a is not None and b is not None and _gist(a) == _gist(b)
    return Pair(name=name, is_same=same, a=a, b=b)


def _gist(step: Step) -> object:
    """Return what a step says or shows, without times and numbers of turns."""
    if isinstance(step, FactsStep):
        return step.citations
    if isinstance(step, PicturesStep):
        return [(picture.sha256, picture.request) for picture in step.pictures]
    turn = turn_of(step)
    assert turn is not None
    structure = step.prompt.structure if isinstance(step, PromptStep) else None
    return turn.speaker, turn.text, structure


def _prompts(state: State) -> list[str]:
    return [step.prompt.prompt for step in state.steps if isinstance(step, PromptStep)]


def _pictures(state: State) -> list[PicturesStep]:
    return [step for step in state.steps if isinstance(step, PicturesStep)]


def _wordings(a: Sequence[str], b: Sequence[str]) -> tuple[Wording, ...]:
    made = []
    for version in range(max(len(a), len(b))):
        left = a[version] if version < len(a) else None
        right = b[version] if version < len(b) else None
        words = word_diff(left or "", right or "")
        made.append(Wording(version=version, a=left, b=right, words=words))
    return tuple(made)


def _drawings(a: Sequence[PicturesStep], b: Sequence[PicturesStep]) -> tuple[Drawn, ...]:
    """Return each version side by side; one without pictures in one of them has none there."""
    made = []
    for version in range(max(len(a), len(b))):
        left = a[version] if version < len(a) else None
        right = b[version] if version < len(b) else None
        ours, theirs = (step.pictures if step else () for step in (left, right))
        means = [measured_means(step.measurements) if step else {} for step in (left, right)]
        names = dict.fromkeys([*means[0], *means[1]])
        made.append(
            Drawn(
                version=version,
                a=ours,
                b=theirs,
                same_seeds=[p.seed for p in ours] == [p.seed for p in theirs],
                settings=_settings(ours[0], theirs[0]) if ours and theirs else {},
                measured={name: (means[0].get(name), means[1].get(name)) for name in names},
            )
        )
    return tuple(made)


def _settings(a: Picture, b: Picture) -> dict[str, tuple[Any, Any]]:
    left, right = a.request.model_dump(mode="json"), b.request.model_dump(mode="json")
    return {name: (left[name], right[name]) for name in left if left[name] != right[name]}
