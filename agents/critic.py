"""The critic's turn: four scores read from token probabilities, what was missed, one advice.

A score is the mean of 1 to 5 under the model's own probabilities, so it is a number even
where a small model could not have written one. What a picture measures against what was
wanted is said by arithmetic, not by the model.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from agents.claims import sentences, share_held
from agents.expert import seed_for
from agents.faults import faults_of
from agents.generation import Message
from agents.roles import StopRule, Team
from agents.voice import Voice
from orbweave.records import Measurement, Targets

__all__ = ["CRITERIA", "Judgement", "judge", "measured_means", "misses", "stop_reason"]

CRITERIA = ("depth", "creativity", "clarity", "quantitative")
_STANDING_ADVICE: Mapping[str, str] = {
    "depth": "Say how the parts join and how they change from one side to the other.",
    "creativity": "Join two structures in one place instead of showing them side by side.",
    "clarity": "Name the viewpoint, the background and the thickest element first.",
    "quantitative": "Give counts and ratios: how many lines, how wide the gaps against the lines.",
}


class Miss(NamedTuple):
    """A target that was not met."""

    told: str
    """What was measured, what was wanted and what to do."""
    drawn: str
    """What to do as a sentence of a prompt."""


class Judgement(NamedTuple):
    """What the critic found."""

    scores: dict[str, float]
    """Expected score per criterion, in [1, 5]."""
    advice: str
    changes: str
    """What must change to meet the targets, as sentences of a prompt; empty if nothing."""
    text: str
    """The turn as shown."""


async def judge(
    voice: Voice,
    team: Team,
    fields: Mapping[str, str],
    targets: Targets,
    measured: Mapping[str, float | None],
    seed: int,
) -> Judgement:
    """Return scores and advice on one prompt version and its pictures.

    Args:
        voice: The critic's model.
        team: Supplies the form `critique` and the tolerances.
        fields: concept and prompt.
        targets: What the picture should measure.
        measured: Means over the pictures, see `measured_means`.
        seed: Of this turn.

    Raises:
        EngineError: the model failed.
    """
    said = {**fields, "wanted": _wanted(targets), "measured": _listed(measured)}
    chat = team.critique.messages(said)
    scores: dict[str, float] = {}
    lines = ""
    for name in CRITERIA:
        scores[name] = await _score(voice, chat, lines + f"{name.capitalize()}:")
        lines += f"{name.capitalize()}: {round(scores[name])}\n"
    missed = misses(targets, measured, team.stop)
    told = " ".join(miss.told for miss in missed.values())
    changes = " ".join(miss.drawn for miss in missed.values())
    shown = ", ".join(f"{name} {score:.1f}" for name, score in scores.items())
    facts = f"Scores: {shown} of 5. Measured: {said['measured']}. Wanted: {said['wanted']}."
    voice.remark(f"{facts}\nAdvice: {told}")
    advice = await _advice(voice, team, said, f"{lines}Advice:", scores, seed)
    told = f"{told} {advice}".strip()
    return Judgement(scores, told, changes, f"{facts}\nAdvice: {told}")


def measured_means(measurements: Sequence[Measurement]) -> dict[str, float | None]:
    """Return the mean of each statistic over pictures; None where no picture has it.

    Directions are averaged on the half circle: 179 and 1 degree give 0, not 90.
    """

    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return round(sum(known) / len(known), 4) if known else None

    return {
        "solid_fraction": mean([m.solid_fraction for m in measurements]),
        "direction_deg": _mean_direction([m.direction_deg for m in measurements]),
        "spacing_px": mean([m.spacing_px for m in measurements]),
        "anisotropy": mean([m.anisotropy for m in measurements]),
    }


def misses(
    targets: Targets, measured: Mapping[str, float | None], rule: StopRule
) -> dict[str, Miss]:
    """Return what to change for each target that is missed; empty if all are met.

    A target nobody could measure (no direction, no period) counts as missed.
    """
    found: dict[str, Miss] = {}
    for name, wanted in targets.model_dump(exclude_none=True).items():
        got = measured.get(name)
        if got is None:
            told, drawn = _UNMEASURED[name]
        elif _distance(name, wanted, got, rule) > 1:
            up = _turn(wanted, got) > 0 if name == "direction_deg" else wanted > got
            told, drawn = _CHANGES[name][up]
        else:
            continue
        found[name] = Miss(told.format(wanted=wanted, got=got), drawn.format(wanted=wanted))
    return found


def stop_reason(
    history: Sequence[tuple[float, Mapping[str, float | None]]],
    targets: Targets,
    rule: StopRule,
    rounds: int,
) -> str:
    """Return why to stop after the latest version, in words; empty to go on.

    Args:
        history: Mean score and measured means per version, oldest first; at least one.
        targets: What the pictures should measure.
        rule: Levels and tolerances.
        rounds: Versions allowed.
    """
    mean, measured = history[-1]
    missed = misses(targets, measured, rule)
    asked = targets.model_dump(exclude_none=True)
    if mean >= rule.level and not missed:
        also = " and the measured targets are met" if asked else ""
        return f"the critic's mean score {mean:.2f} reached {rule.level:.2f}{also}"
    if len(history) >= rounds:
        left = f"; still off target: {', '.join(missed)}" if missed else ""
        return f"the bound of {rounds} round{'s' * (rounds != 1)} was reached{left}"
    if len(history) > 1:
        before, was = history[-2]
        closer = _total(targets, measured, rule) < _total(targets, was, rule)
        if mean < before + rule.min_gain and not closer:
            return (
                f"no improvement: mean score {before:.2f} before, {mean:.2f} now, "
                "and the measured targets no closer"
            )
    return ""


async def _score(voice: Voice, chat: Sequence[Message], lead: str) -> float:
    """Return the expected score after `lead`, rounded to 0.01."""
    logs = await voice.weigh(chat, [f"{lead} {n}" for n in range(1, 6)])
    top = max(logs)
    weights = [math.exp(value - top) for value in logs]
    return round(sum(n * w for n, w in enumerate(weights, start=1)) / sum(weights), 2)


async def _advice(
    voice: Voice,
    team: Team,
    fields: Mapping[str, str],
    lead: str,
    scores: Mapping[str, float],
    seed: int,
) -> str:
    """Return one or two sentences of advice; a standing one, marked, if the model gives none."""
    echoes = [example.reply for example in team.critique.examples]
    for attempt in range(team.critique.tries):
        job = team.critique.job(fields, seed=seed_for(seed, attempt), stop=("\n",))
        reply = await voice.say(replace(job, prefix=lead, heard=lead.rpartition("\n")[0]))
        whole = [s for s in sentences(reply.text[len(lead) :]) if s[-1] in ".!?"][:2]
        advice = " ".join(whole)
        usable = not faults_of(advice, min_words=6, max_words=70, echo_of=echoes)
        if usable and share_held(advice, [*fields.values(), *echoes]) >= team.critique.grounding:
            return advice
    weakest = min(CRITERIA, key=lambda name: scores[name])
    standing = f"{_STANDING_ADVICE[weakest]} (standing advice on {weakest}: the model gave none)"
    voice.remark(f"\n{standing}\n")
    return standing


_NAMES: Mapping[str, str] = {
    "solid_fraction": "solid fraction {:.2f}",
    "direction_deg": "direction {:.0f} degrees",
    "spacing_px": "spacing {:.0f} px",
    "anisotropy": "anisotropy {:.2f}",
}
_UNMEASURED: Mapping[str, Miss] = {
    "solid_fraction": Miss("The solid fraction could not be measured.", ""),
    "direction_deg": Miss(
        "No main direction, wanted {wanted:.0f} degrees: draw parallel lines.",
        "All lines run parallel, {wanted:.0f} degrees from the horizontal.",
    ),
    "spacing_px": Miss(
        "No regular spacing, wanted {wanted:.0f} px: repeat the lines evenly.",
        "The lines repeat at even gaps.",
    ),
}
_CHANGES: Mapping[str, tuple[Miss, Miss]] = {
    "solid_fraction": (
        Miss(
            "Solid fraction {got:.2f}, wanted {wanted:.2f}: make lines thinner and gaps wider.",
            "Thin lines with wide open gaps between them.",
        ),
        Miss(
            "Solid fraction {got:.2f}, wanted {wanted:.2f}: make lines thicker and gaps smaller.",
            "Thick lines with narrow gaps between them.",
        ),
    ),
    "direction_deg": (
        Miss(
            "Lines run at {got:.0f} degrees, wanted {wanted:.0f}: turn them clockwise.",
            "All lines run {wanted:.0f} degrees from the horizontal.",
        ),
        Miss(
            "Lines run at {got:.0f} degrees, wanted {wanted:.0f}: turn them anticlockwise.",
            "All lines run {wanted:.0f} degrees from the horizontal.",
        ),
    ),
    "spacing_px": (
        Miss(
            "Spacing {got:.0f} px, wanted {wanted:.0f}: set the lines closer together.",
            "The lines are set close together.",
        ),
        Miss(
            "Spacing {got:.0f} px, wanted {wanted:.0f}: set the lines further apart.",
            "The lines are set far apart.",
        ),
    ),
}
"""What to do if the measurement is above, and if it is below, the target."""


def _distance(name: str, wanted: float, got: float, rule: StopRule) -> float:
    """Return the distance from a target in tolerances, so that 1 is just met."""
    if name == "direction_deg":
        return abs(_turn(wanted, got)) / rule.direction_deg
    if name == "spacing_px":
        return abs(wanted - got) / wanted / rule.spacing
    return abs(wanted - got) / rule.solid_fraction


def _turn(wanted: float, got: float) -> float:
    """Return the shortest turn of a line to the wanted direction, anticlockwise in degrees."""
    return (wanted - got + 90) % 180 - 90


def _total(targets: Targets, measured: Mapping[str, float | None], rule: StopRule) -> float:
    """Return the sum of distances; a target that could not be measured counts 10."""
    return sum(
        10.0 if (got := measured.get(name)) is None else _distance(name, wanted, got, rule)
        for name, wanted in targets.model_dump(exclude_none=True).items()
    )


def _mean_direction(degrees: Sequence[float | None]) -> float | None:
    known = [cmath.rect(1, math.radians(2 * d)) for d in degrees if d is not None]
    if not known or abs(sum(known)) < 1e-9:
        return None
    return round(math.degrees(cmath.phase(sum(known))) / 2 % 180, 1)


def _wanted(targets: Targets) -> str:
    return _listed(targets.model_dump(exclude_none=True))


def _listed(values: Mapping[str, float | None]) -> str:
    known = [_NAMES[name].format(value) for name, value in values.items() if value is not None]
    return ", ".join(known) or "nothing"
