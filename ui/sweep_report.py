"""What a sweep of merges found, in words, as a table, as a document and as figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from merging.sweep import Answers, Reading, Sweep
from merging.synergy import Difference, Synergy, against_the_mean, caveat, points, verdict
from orbweave.statistics import wilson
from ui.markdown import aligned_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["curve", "deviations", "document", "markdown", "summary"]


def markdown(sweep: Sweep, reading: Reading) -> str:
    """Return what was found as Markdown: in words, drawn, and as a table.

    The pictures are those that stand beside it in the sweep's folder.
    """
    title = f"# Merges of {sweep.parents[0]} and {sweep.parents[1]}"
    drawn = ["![Accuracy over t, SLERP beside LERP](accuracy-over-t.png)", ""]
    if reading.choice is not None:
        drawn += ["![Each merge against its better parent](deviations.png)", ""]
    told = (f"- {sentence}" for sentence in summary(sweep, reading))
    return "\n".join([title, "", *told, "", *drawn, table(sweep, reading)])


def table(sweep: Sweep, reading: Reading) -> str:
    """Return one line per variant, all of the reporting half but for the first column."""
    choice = reading.choice
    if choice is None:
        return ""
    reported = sweep.results.take(choice.reporting)
    by_name = {row.name: row for row in choice.table}
    head = [
        "model",
        "choosing half, %",
        "reporting half, % (95 %)",
        f"over {choice.best.better}, points (95 %)",
        "p",
        "p, Holm",
        "SLERP over LERP, points (95 %)",
    ]
    lines = []
    for name in sweep.results.names:
        right = reported.row(name)
        bounds = wilson(int(right.sum()), right.size)
        first = sweep.twin(name)
        row = by_name.get(first)
        lines.append(
            [
                name if first == name else f"{name} = {first}",
                f"{100 * choice.chosen_by[name]:.1f}",
                f"{100 * right.mean():.1f} ({100 * bounds.low:.1f} to {100 * bounds.high:.1f})",
                _points(row.improvement, row.improvement_low, row.improvement_high) if row else "",
                f"{row.p_value:.2g}" if row else "",
                f"{row.p_holm:.2g}" if row else "",
                _gain(reading.controls.get(name)),
            ]
        )
    return aligned_table(head, lines)


def summary(sweep: Sweep, reading: Reading) -> list[str]:
    """Return what was found as sentences."""
    choice = reading.choice
    if choice is None:
        return ["every variant has the weights of a parent, so there is no merge to judge"]
    best = choice.best
    told = [
        f"chosen: {best.name}, best of {len(choice.table)} different merges on the "
        f"{len(choice.choosing)} questions of the choosing half",
        f"on the other {len(choice.reporting)}: {verdict(best)}",
        against_the_mean(best),
    ]
    if doubt := caveat(len(choice.reporting)):
        told.append(doubt)
    if reading.arc is None:
        told.append(
            "SLERP and LERP are one model everywhere: the parents lie so close that every arc "
            "is a straight line"
        )
    else:
        mean, bounds = reading.arc
        told.append(
            f"SLERP over LERP at the same t, in points, mean of {len(reading.controls)}: "
            f"{_points(mean, bounds.low, bounds.high)}"
        )
    told.append(
        f"{sweep.n_models} different models, {sweep.n_known} answered before; "
        f"merging {sweep.merging_s:.1f} s, loading {sweep.loading_s:.1f} s, "
        f"scoring {sweep.scoring_s:.1f} s"
    )
    return told


def document(sweep: Sweep, reading: Reading) -> dict[str, Any]:
    """Return all of it as JSON values, with every answer."""
    choice, results = reading.choice, sweep.results
    found: dict[str, Any] = {
        "schema_version": 1,
        "parents": list(sweep.parents),
        "weight_distance": sweep.distance,
        "n_models": sweep.n_models,
        "n_known": sweep.n_known,
        "merging_s": round(sweep.merging_s, 3),
        "loading_s": round(sweep.loading_s, 3),
        "scoring_s": round(sweep.scoring_s, 3),
        "summary": summary(sweep, reading),
        "variants": [_variant(sweep, each) for each in sweep.answers],
    }
    if choice is not None:
        found |= {
            "best": choice.best.name,
            "verdict": verdict(choice.best),
            "chosen_by": choice.chosen_by,
            "choosing": [results.questions[i] for i in choice.choosing],
            "reporting": [results.questions[i] for i in choice.reporting],
            "synergy": [row.model_dump(mode="json") for row in choice.table],
            "slerp_over_lerp": {name: d._asdict() for name, d in reading.controls.items()},
        }
    if reading.arc is not None:
        mean, bounds = reading.arc
        found["slerp_over_lerp_mean"] = {"gain": mean, **bounds._asdict()}
    return found | {"questions": list(results.questions)}


def curve(sweep: Sweep, reading: Reading) -> Figure:
    """Return accuracy over t on the reporting half."""
    from merging.synergy_views import Point, accuracy_over_t

    results, best = sweep.results, None
    if reading.choice is not None:
        results, best = results.take(reading.choice.reporting), reading.choice.best.name
    drawn: dict[str, Point] = {}
    for variant in (each.made.variant for each in sweep.answers):
        if variant.way != "parent":
            right = results.row(variant.name)
            place = variant.profile if variant.t is None else variant.t
            bounds = wilson(int(right.sum()), right.size)
            drawn[variant.name] = Point(variant.way, place, float(right.mean()), *bounds)
    return accuracy_over_t(
        list(drawn.values()),
        {name: results.accuracy(name) for name in sweep.parents},
        n=len(results.questions),
        chosen=drawn.get(best or ""),
    )


def deviations(rows: Sequence[Synergy]) -> Figure:
    """Return the merges against the better parent, sorted."""
    from merging.synergy_views import sorted_deviations

    return sorted_deviations(rows)


def _variant(sweep: Sweep, answers: Answers) -> dict[str, Any]:
    variant = answers.made.variant
    return {
        **variant._asdict(),
        "recipe": variant.recipe.model_dump(mode="json", exclude_defaults=True),
        "same_as": sweep.twin(variant.name),
        "accuracy": sum(answers.right) / len(answers.right),
        "right": list(answers.right),
    }


def _points(value: float, low: float, high: float) -> str:
    if low == high:
        return f"{points(value)} (no interval)"
    return f"{points(value)} ({points(low)} to {points(high)})"


def _gain(found: Difference | None) -> str:
    return _points(found.gain, found.low, found.high) if found else ""
