"""The figures of a study: marks with their intervals, and room for long lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from training.evaluation import MEAN
from ui.study_tables import Accuracy, Analysis, Gain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["accuracy_figure", "gain_figure", "roomy", "save_figure"]

_CROWDED = 24
"""Merges from which on a figure that lists them has to grow."""


class _Bar(NamedTuple):
    """One mark with its interval, in percent or points."""

    model: str
    group: str
    value: float
    low: float
    high: float


def accuracy_figure(one: Analysis) -> Figure:
    """Draw the accuracy of every model and merge, a panel per group of questions."""
    bars = [_bar(row, row.accuracy) for row in one.accuracies if row.group != MEAN]
    return _whiskers(bars, "right answers, %", None)


def gain_figure(one: Analysis, first: str) -> Figure:
    """Draw what every model and merge gains over the first, a panel per group of questions."""
    return _whiskers([_bar(row, row.gain) for row in one.gains], f"points over {first}", 0.0)


def _bar(row: Accuracy | Gain, value: float) -> _Bar:
    return _Bar(row.model, row.group, 100 * value, 100 * row.low, 100 * row.high)


def _whiskers(bars: Sequence[_Bar], label: str, zero: float | None) -> Figure:
    """Draw a panel per group of questions: a line per model, the best pooled one on top."""
    from merging.synergy_views import COLOURS, in_our_style

    @in_our_style
    def draw() -> Figure:
        from matplotlib.figure import Figure

        groups = list(dict.fromkeys(bar.group for bar in bars))
        order = [b.model for b in sorted(bars, key=lambda b: b.value) if b.group == groups[0]]
        figure = Figure(
            figsize=(3.0 + 2.4 * len(groups), 1.3 + 0.24 * len(order)), layout="constrained"
        )
        panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
        for axes, group in zip(panels, groups, strict=True):
            own = sorted((b for b in bars if b.group == group), key=lambda b: order.index(b.model))
            if zero is not None:
                axes.axvline(zero, color="black", linewidth=1)
            arms = [[max(0, b.value - b.low) for b in own], [max(0, b.high - b.value) for b in own]]
            look: Any = {"fmt": "o", "color": COLOURS["blue"], "markersize": 5, "capsize": 2.5}
            axes.errorbar([b.value for b in own], range(len(own)), xerr=arms, **look)
            axes.set(title=group, xlabel=label, ylim=(-0.6, len(order) - 0.4))
            axes.grid(axis="x", color="0.9")
            axes.set_axisbelow(True)
        panels[0].set_yticks(range(len(order)), order)
        return figure

    return draw()


def roomy(figure: Figure, n: int) -> Figure:
    """Return a figure large enough for the list of n merges beside it, in like proportions."""
    width, height = figure.get_size_inches()
    if n > _CROWDED:
        tall = max(height, 0.165 * n + 1.4)
        figure.set_size_inches(max(width, 0.8 * tall), tall)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG."""
    from merging.synergy_views import save

    save(figure, path)
