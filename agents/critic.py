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

from agents.claims import sentences, share_held, unsupported
from agents.expert import seed_for
from agents.faults import faults_of
from agents.generation import Message
from agents.roles import StopRule, Team
from agents.targets import better, in_degrees, off, shortest_turn
from agents.voice import Voice
from orbweave.records import Measurement, Targets

__all__ = [
    "CRITERIA",
    "Judgement",
    "Standing",
    "best_of",
    "expected_scores",
    "given",
    "is_faint",
    "judge",
    "measured_means",
    "misses",
    "stop_reason",
]

CRITERIA = ("depth", "creativity", "clarity", "quantitative")
_LEAST_STEP = 0.3
"""Brightness, of black to white, by which solid and void must differ for the solid fraction of a
picture to be that of its drawing. Chosen by us: honeycomb walls in amber on grey, 0.25 apart,
measure .36 to .41 when drawn .13 to .25 solid; renderings that follow are 0.34 apart or more."""
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
    own: str = ""
    """The part of the advice that is the model's: what is checked; empty if it gave none."""


class Standing(NamedTuple):
    """Where one version stands."""

    score: float
    """Mean of the critic's scores, in [1, 5]."""
    distance: float | None
    """To the targets, in tolerances, see `agents.targets.distance`; None without any."""
    missed: tuple[str, ...] = ()
    """Names of the targets that are not met."""


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
    said = given(fields, targets, measured)
    scores = await expected_scores(voice, team.critique.messages(said))
    lines = "".join(f"{name.capitalize()}: {round(score)}\n" for name, score in scores.items())
    missed = misses(targets, measured, team.stop)
    told = " ".join(miss.told for miss in missed.values())
    changes = " ".join(miss.drawn for miss in missed.values())
    shown = ", ".join(f"{name} {score:.1f}" for name, score in scores.items())
    facts = f"Scores: {shown} of 5. Measured: {said['measured']}. Wanted: {said['wanted']}."
    voice.remark(f"{facts}\nAdvice: {told}")
    own, loose = await _advice(voice, team, said, f"{lines}Advice:", seed)
    if loose:
        note = (
            f"(Left out of the advice what states {', '.join(loose)}, which nothing given holds.)"
        )
        voice.remark(f"\n{note}\n")
        facts = f"{facts}\n{note}"
    if not own:
        voice.remark(f"\n{_standing(scores)}\n")
    told = f"{told} {own or _standing(scores)}".strip()
    return Judgement(scores, told, changes, f"{facts}\nAdvice: {told}", own)


def given(
    fields: Mapping[str, str], targets: Targets, measured: Mapping[str, float | None]
) -> dict[str, str]:
    """Return all that the critic is given, in words: nothing else holds a number of its advice."""
    wanted = targets.model_dump(exclude_none=True)
    return {**fields, "wanted": _listed(wanted), "measured": _listed(measured)}


async def expected_scores(voice: Voice, chat: Sequence[Message]) -> dict[str, float]:
    """Return the expected score of each criterion after a chat in the form `critique`.

    Each is read with the ones before it written out, as the model was trained to write them.
    """
    scores: dict[str, float] = {}
    lines = ""
    for name in CRITERIA:
        scores[name] = await _score(voice, chat, lines + f"{name.capitalize()}:")
        lines += f"{name.capitalize()}: {round(scores[name])}\n"
    return scores


def measured_means(
    measurements: Sequence[Measurement], wanted: Targets | None = None
) -> dict[str, float | None]:
    """Return the mean of each statistic over pictures; None where no picture has it.

    Directions are averaged on the half circle: 179 and 1 degree give 0, not 90. Of a picture
    whose lines cross, as fibrils and the bands across them do, the dominant direction nearest
    to the wanted one counts.
    """
    aim = wanted.direction_deg if wanted else None

    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return round(sum(known) / len(known), 4) if known else None

    return {
        "solid_fraction": mean([m.solid_fraction for m in measurements]),
        "direction_deg": _mean_direction([_direction(m, aim) for m in measurements]),
        "spacing_px": mean([m.spacing_px for m in measurements]),
        "anisotropy": mean([m.anisotropy for m in measurements]),
    }


def is_faint(measurements: Sequence[Measurement]) -> bool:
    """Whether solid and void are too near in brightness to be told apart in the pictures.

    Two shades, a share s of them solid, differ by the standard deviation over sqrt(s (1 - s)).
    """
    parts = [(m.contrast, m.solid_fraction * (1 - m.solid_fraction)) for m in measurements]
    steps = [contrast / math.sqrt(part) for contrast, part in parts if part > 0]
    return bool(steps) and sum(steps) / len(steps) < _LEAST_STEP


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
        elif off(name, wanted, got, rule) > 1:
            up = shortest_turn(got, wanted) > 0 if name == "direction_deg" else wanted > got
            told, drawn = _CHANGES[name][up]
            told = _MISSED[name] + told
        else:
            continue
        values = {"wanted": wanted, "got": got}
        if name == "direction_deg":
            values = {key: None if v is None else in_degrees(v) for key, v in values.items()}
        found[name] = Miss(told.format(**values), drawn.format(**values))
    return found


def best_of(history: Sequence[Standing], rule: StopRule, since: int = 0) -> int:
    """Return the version that is the result so far: nearest to its targets, else best judged.

    A later one takes its place only if it gains `rule.min_gain`, or if it is the first to meet
    every target.

    Args:
        history: Where each version stands, oldest first; at least one.
        rule: How small a gain counts as none.
        since: The first version that may be it, if there is one; earlier ones do not know
            what a person asked for since.
    """
    best = first = since if since < len(history) else 0
    for version, standing in enumerate(history[first:], start=first):
        held = history[best]
        now, then = (standing.distance, standing.score), (held.distance, held.score)
        gains = better(now, then, rule.min_gain)
        if bool(standing.missed) != bool(held.missed):
            gains = bool(held.missed)  # meeting all beats being nearer on average
        if gains:
            best = version
    return best


def stop_reason(history: Sequence[Standing], rule: StopRule, rounds: int, since: int = 0) -> str:
    """Return why to stop after the latest version, in words; empty to go on.

    Args:
        history: Where each version stands, oldest first; at least one.
        rule: Levels and patience.
        rounds: Versions allowed.
        since: As in `best_of`.
    """
    now, best = history[-1], best_of(history, rule, since)
    if now.distance is not None and not now.missed:
        return "the measured targets are met"
    if now.distance is None and now.score >= rule.level:
        return f"the critic's mean score {now.score:.2f} reached {rule.level:.2f}"
    held = history[best]
    if len(history) >= rounds:
        missed = f"; still off target: {', '.join(held.missed)}" if held.missed else ""
        kept = "" if best == len(history) - 1 else f"; version {best} is the best"
        return f"the bound of {rounds} round{'s' * (rounds != 1)} was reached{missed}{kept}"
    if len(history) - 1 - best >= rule.patience:
        how = (
            f"with mean score {held.score:.2f}"
            if held.distance is None
            else f"{held.distance:.2f} tolerances from its targets"
        )
        return f"no improvement in {rule.patience} rounds: version {best} is still the best, {how}"
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
    seed: int,
) -> tuple[str, tuple[str, ...]]:
    """Return one or two sentences of advice, and the numbers for which others were left out.

    No advice if the model gives none that is usable.
    """
    loose: tuple[str, ...] = ()
    echoes = [example.reply for example in team.critique.examples]
    for attempt in range(team.critique.tries):
        job = team.critique.job(fields, seed=seed_for(seed, attempt), stop=("\n",))
        reply = await voice.say(replace(job, prefix=lead, heard=lead.rpartition("\n")[0]))
        whole = [s for s in sentences(reply.text[len(lead) :]) if s[-1] in ".!?"]
        loose = unsupported(" ".join(whole), fields.values())
        advice = " ".join([s for s in whole if not unsupported(s, fields.values())][:2])
        usable = not faults_of(advice, min_words=6, max_words=70, echo_of=echoes)
        if usable and share_held(advice, [*fields.values(), *echoes]) >= team.critique.grounding:
            return advice, loose
    return "", loose


def _standing(scores: Mapping[str, float]) -> str:
    """Return advice on the weakest criterion, marked as not the model's."""
    weakest = min(CRITERIA, key=lambda name: scores[name])
    return f"{_STANDING_ADVICE[weakest]} (standing advice on {weakest}: the model gave none)"


_NAMES: Mapping[str, str] = {
    "solid_fraction": "solid fraction {:.2f}",
    "direction_deg": "direction {}",
    "spacing_px": "spacing {:.0f} px",
    "anisotropy": "anisotropy {:.2f}",
}
_UNMEASURED: Mapping[str, Miss] = {
    "solid_fraction": Miss("The solid fraction could not be measured.", ""),
    "direction_deg": Miss(
        "No dominant direction, wanted {wanted}; draw parallel lines.",
        "All lines run parallel, {wanted} from the horizontal.",
    ),
    "spacing_px": Miss(
        "No regular spacing, wanted about {wanted:.0f} px; repeat the lines evenly.",
        "The lines repeat at even gaps.",
    ),
}
_MISSED: Mapping[str, str] = {
    "solid_fraction": "Measured solid fraction {got:.2f}, wanted about {wanted:.2f}; ",
    "direction_deg": "Dominant direction {got}, wanted {wanted}; ",
    "spacing_px": "Measured spacing {got:.0f} px, wanted about {wanted:.0f}; ",
}
"""What was measured and wanted, as the feedback the engineer was trained on puts it."""
_CHANGES: Mapping[str, tuple[Miss, Miss]] = {
    "solid_fraction": (
        Miss("make lines thinner and gaps wider.", "Thin lines with wide open gaps between them."),
        Miss("make lines thicker and gaps smaller.", "Thick lines with narrow gaps between them."),
    ),
    "direction_deg": (
        Miss("turn the lines clockwise.", "All lines run {wanted} from the horizontal."),
        Miss("turn the lines anticlockwise.", "All lines run {wanted} from the horizontal."),
    ),
    "spacing_px": (
        Miss("set the lines closer together.", "The lines are set close together."),
        Miss("set the lines further apart.", "The lines are set far apart."),
    ),
}
"""What to do if the measurement is above, and if it is below, the target."""


def _direction(measurement: Measurement, wanted: float | None) -> float | None:
    main = measurement.direction_deg
    if wanted is None:
        return main
    seen = [d for d in (main, *measurement.directions_deg) if d is not None]
    return min(seen, key=lambda d: abs(shortest_turn(d, wanted)), default=None)


def _mean_direction(degrees: Sequence[float | None]) -> float | None:
    known = [cmath.rect(1, math.radians(2 * d)) for d in degrees if d is not None]
    if not known or abs(sum(known)) < 1e-9:
        return None
    return round(math.degrees(cmath.phase(sum(known))) / 2 % 180, 1)


def _listed(values: Mapping[str, float | None]) -> str:
    known = [
        _NAMES[name].format(in_degrees(value) if name == "direction_deg" else value)
        for name, value in values.items()
        if value is not None
    ]
    return ", ".join(known) or "nothing"
