"""The figures of a study: marks with their intervals, and names that tell studies apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from training.evaluation import MEAN, POOLED
from ui.study_run import Found
from ui.study_tables import Accuracy, Analysis, Gain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PICTURES", "Pictures", "accuracy_figure", "gain_figure", "save_figure"]

PICTURES = "pictures"
"""Folder of the figures; their names begin with the study's, so that many studies can share one."""
_WAYS = (
    ("a model as it is", "black", "D"),
    ("merged by SLERP", "blue", "o"),
    ("merged by LERP", "orange", "s"),
    ("merged elsewhere", "green", "^"),
)
"""What a mark stands for, its colour and its shape."""
_MODEL, _SLERP, _LERP, _ELSEWHERE = range(4)


class Pictures:
    """Collects the figures of one study."""

    def __init__(self, study: str) -> None:
        """Collect for the study of that name."""
        self._study = study
        self.figures: dict[str, Figure] = {}
        """By file within the report's folder."""

    def add(self, name: str, title: str, figure: Figure) -> tuple[str, str]:
        """Keep a figure; returns its file and what it shows."""
        file = f"{PICTURES}/{self._study}-{name}.png"
        self.figures[file] = figure
        return file, title


class _Bar(NamedTuple):
    """One mark with its interval, in percent or points."""

    model: str
    group: str
    way: int
    """Place in `_WAYS`."""
    value: float
    low: float
    high: float


class _Line(NamedTuple):
    """Where a panel is divided."""

    group: str
    value: float
    look: str
    """Of the line, as matplotlib names it."""


def accuracy_figure(found: Found, one: Analysis) -> Figure:
    """Draw the accuracy of every different model, a panel per group of questions."""
    ways = _ways(found)
    rows = [row for row in one.accuracies if row.model in ways and row.group != MEAN]
    bars = [_bar(row, row.accuracy, ways) for row in rows]
    first = [bar for bar in bars if bar.model == found.study.first]
    lines = [_Line(bar.group, bar.value, "--") for bar in first]
    lines.append(_Line(POOLED, 100 * one.chance, ":"))
    return _whiskers(bars, "right answers, %", lines)


def gain_figure(found: Found, one: Analysis) -> Figure:
    """Draw what every different model gains over the first, a panel per group of questions."""
    ways = _ways(found)
    bars = [_bar(row, row.gain, ways) for row in one.gains]
    lines = [_Line(group, 0.0, "-") for group in dict.fromkeys(bar.group for bar in bars)]
    return _whiskers(bars, f"points over {found.study.first}", lines)


def _ways(found: Found) -> dict[str, int]:
    """Return how each different model was made, by its name."""
    kinds = {"parent": _MODEL, "slerp": _SLERP, "lerp": _LERP}
    return {
        each.name: _ELSEWHERE
        if each.name in found.study.models and found.study.is_merge(each.name)
        else kinds[each.way]
        for each in found.scored
        if each.same_as == each.name
    }


def _bar(row: Accuracy | Gain, value: float, ways: dict[str, int]) -> _Bar:
    return _Bar(row.model, row.group, ways[row.model], 100 * value, 100 * row.low, 100 * row.high)


def _whiskers(bars: Sequence[_Bar], label: str, lines: Sequence[_Line]) -> Figure:
    """Draw a panel per group of questions: a row per model, the best pooled one on top."""
    from merging.synergy_views import COLOURS, in_our_style, row_inch

    @in_our_style
    def draw() -> Figure:
        from matplotlib.figure import Figure

        groups = list(dict.fromkeys(bar.group for bar in bars))
        order = [b.model for b in sorted(bars, key=lambda b: b.value) if b.group == groups[0]]
        height = 1.7 + row_inch(len(order)) * len(order)
        figure = Figure(figsize=(3.0 + 2.2 * len(groups), height), layout="constrained")
        panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
        for axes, group in zip(panels, groups, strict=True):
            for line in lines:
                if line.group == group:
                    axes.axvline(line.value, color="black", linewidth=1, linestyle=line.look)
            for way, (name, colour, marker) in enumerate(_WAYS):
                own = [b for b in bars if (b.group, b.way) == (group, way)]
                arms = [[max(0, b.value - b.low) for b in own]]
                arms.append([max(0, b.high - b.value) for b in own])
                look: Any = {"fmt": marker, "color": COLOURS.get(colour, colour), "markersize": 4}
                look |= {"capsize": 2, "elinewidth": 0.9, "label": name}
                if own:
                    rows = [order.index(b.model) for b in own]
                    axes.errorbar([b.value for b in own], rows, xerr=arms, **look)
            axes.set(title=group, xlabel=label, ylim=(-0.6, len(order) - 0.4))
            axes.grid(axis="x", color="0.9")
            axes.set_axisbelow(True)
        panels[0].set_yticks(range(len(order)), order)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=4)
        return figure

    return draw()


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG."""
    from merging.synergy_views import save

    save(figure, path)
