"""Accuracies and gains as bars, with their intervals; losses hang below the line.

matplotlib is touched here alone, without its global state, so a chart can be drawn in any
thread and the same table gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from training.evaluation import Accuracy, Comparison, Evaluation, accuracies, comparisons

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Bar", "accuracy_bars", "draw", "gain_bars", "save"]

_COLOURS = ("#4c566a", "#2a7f62", "#c8553d", "#3a6ea5", "#b8860b", "#7d4f9e", "#5b9aa0", "#a23b72")
"""Grey for the first model, then hues that differ in lightness too."""
_GROUPS = ("overall", "set")
_INCH = {"per_bar": 0.2, "per_group": 0.5, "margin": 1.6, "row": 3.0}
_SETTINGS: Any = {"svg.hashsalt": "orbweave", "svg.fonttype": "none", "font.size": 8}


class Bar(NamedTuple):
    """One bar, in percent or percentage points."""

    model: str
    name: str
    height: float
    low: float
    high: float


def accuracy_bars(rows: Sequence[Accuracy], scoring: str) -> list[Bar]:
    """Return a bar per model and set, in percent."""
    return [
        Bar(row.model, row.name, 100 * row.accuracy, 100 * row.low, 100 * row.high)
        for row in rows
        if row.scoring == scoring and row.group in _GROUPS
    ]


def gain_bars(rows: Sequence[Comparison], scoring: str) -> list[Bar]:
    """Return a bar per model and set, in percentage points over the first model."""
    return [
        Bar(row.model, row.name, 100 * row.gain, 100 * row.low, 100 * row.high)
        for row in rows
        if row.scoring == scoring and row.group in _GROUPS
    ]


def draw(evaluation: Evaluation) -> Figure:
    """Return a row of charts per scoring: accuracies, and gains where there is a second model."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    models = [result.model for result in evaluation.models]
    table, gains = accuracies(evaluation), comparisons(evaluation)
    n_groups = len({row.name for row in table if row.group in _GROUPS})
    columns = 2 if gains else 1
    panel = n_groups * (_INCH["per_group"] + _INCH["per_bar"] * len(models))
    with rc_context(_SETTINGS):
        figure = Figure(
            figsize=(
                columns * (panel + _INCH["margin"]),
                _INCH["row"] * len(evaluation.scorings) + 0.2 * len(models),
            ),
            layout="constrained",
        )
        grid = figure.subplots(len(evaluation.scorings), columns, squeeze=False)
        for axes, scoring in zip(grid, evaluation.scorings, strict=True):
            _bars(axes[0], accuracy_bars(table, scoring), models)
            axes[0].set(ylabel=f"accuracy by {scoring}, %", ylim=(0, 100))
            if gains:
                _bars(axes[1], gain_bars(gains, scoring), models)
                axes[1].set_ylabel(f"gain over {models[0]}, points")
                axes[1].axhline(0, color="black", linewidth=0.8)
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=min(4, len(models)))
    return figure


def save(evaluation: Evaluation, folder: Path, stem: str = "accuracy") -> list[Path]:
    """Write the chart as PNG and SVG into an existing folder and return the files."""
    from matplotlib import rc_context

    figure = draw(evaluation)
    files = [folder / f"{stem}.png", folder / f"{stem}.svg"]
    with rc_context(_SETTINGS):
        figure.savefig(files[0], dpi=160)
        figure.savefig(files[1], metadata={"Date": None})  # no clock: same table, same file
    return files


def _bars(axes: Any, bars: Sequence[Bar], models: Sequence[str]) -> None:
    """Draw bars grouped by name, one colour a model."""
    names = list(dict.fromkeys(bar.name for bar in bars))
    shown = [model for model in models if any(bar.model == model for bar in bars)]
    width = 0.8 / len(shown)
    for k, model in enumerate(shown):
        own = [bar for bar in bars if bar.model == model]
        places = [names.index(bar.name) + (k - (len(shown) - 1) / 2) * width for bar in own]
        # An interval may lie wholly beside its bar's end; a bar of an error has no negative length.
        errors = [
            [max(0.0, bar.height - bar.low) for bar in own],
            [max(0.0, bar.high - bar.height) for bar in own],
        ]
        axes.bar(
            places,
            [bar.height for bar in own],
            width,
            yerr=errors,
            label=model,
            color=_COLOURS[models.index(model) % len(_COLOURS)],
            error_kw={"elinewidth": 0.8, "capsize": 2},
        )
    axes.set_xticks(range(len(names)), names, rotation=20, ha="right")
    axes.spines[["top", "right"]].set_visible(False)
