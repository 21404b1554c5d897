"""Figures of merges against their parents, one function each; all take plain values.

Colours are those of Okabe and Ito, which the colour-blind tell apart; shapes and line styles say
the same again. matplotlib is used without its global state, so a figure can be drawn in any
thread and the same values give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec

import numpy as np

from merging.synergy import Synergy
from orbweave.errors import UsageError, shown
from orbweave.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "COLOURS",
    "CROWDED",
    "FORMATS",
    "Point",
    "accuracy_over_t",
    "check_suffix",
    "expected_against_actual",
    "in_our_style",
    "numbered",
    "row_inch",
    "save",
    "sorted_deviations",
]

P = ParamSpec("P")
FORMATS = (".png", ".svg", ".pdf")
COLOURS = {
    "blue": "#0072B2",
    "orange": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "grey": "#707070",
}
_STATUS = (
    ("gain over the better parent", COLOURS["blue"], "o", None),
    ("no difference can be claimed", COLOURS["grey"], "o", "white"),
    ("worse than the better parent", COLOURS["orange"], "v", None),
)
"""What can be said of a merge: colour, marker, filling if not the colour."""
_WAYS = (("slerp", COLOURS["blue"], "o", "-", -1), ("lerp", COLOURS["orange"], "s", "--", 1))
"""Colour, marker, line and side of the place it is drawn on, so that bars do not hide bars."""
CROWDED = 24
"""Merges from which on they are not numbered beside the axes, and rows move closer together."""
_PARENT_LINES: Any = ((0, (1, 1.5)), (0, (6, 1.5, 1, 1.5)))
_SETTINGS: Any = {
    "svg.hashsalt": "orbweave",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a $ in a folder's name is no formula
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.title_fontsize": 8,
}


class Point(NamedTuple):
    """One merge of a sweep, in shares."""

    way: str
    """`slerp` or `lerp`."""
    place: float | str
    """t, or the name of a profile that changes with depth."""
    accuracy: float
    low: float
    high: float


def in_our_style(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Let a function that draws a figure do so in the style of all of them."""

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Figure:
        from matplotlib import rc_context

        with rc_context(_SETTINGS):
            return draw(*args, **kwargs)

    return styled


def save(figure: Figure, path: Path, *, force: bool = True) -> None:
    """Write a figure as PNG, SVG or PDF by the suffix, whole or not at all.

    Raises:
        UsageError: another suffix.
        OutputError: the file exists and `force` is off, or cannot be written.
    """
    from matplotlib import rc_context

    suffix = check_suffix(path)
    clock = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix)
    content = BytesIO()
    with rc_context(_SETTINGS):
        figure.savefig(content, format=suffix[1:], dpi=160, metadata=clock)
    write_bytes(path, content.getvalue(), force=force)


def check_suffix(path: Path) -> str:
    """Return the suffix of a chart file, in lower case, before there is work to lose.

    Raises:
        UsageError: it is none of `FORMATS`.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(
            f"wanted a chart file ending in {', '.join(FORMATS)}, got {shown(path.name)}"
        )
    return suffix


@in_our_style
def accuracy_over_t(
    points: Sequence[Point],
    parents: Mapping[str, float],
    *,
    n: int,
    chosen: Point | None = None,
) -> Figure:
    """Draw accuracy over t for SLERP and LERP, the parents as lines, other profiles beside.

    Args:
        points: Merges.
        parents: Name -> accuracy in [0, 1], the one at t = 0 first.
        n: Questions that all of it was measured on.
        chosen: The merge that was chosen, on other questions.
    """
    from matplotlib.figure import Figure

    first, second = list(parents)
    profiles = list(dict.fromkeys(p.place for p in points if isinstance(p.place, str)))
    figure = Figure(figsize=(6.4 + 0.7 * len(profiles), 4.4), layout="constrained")
    widths = [5.0, 0.9 * len(profiles)] if profiles else [1.0]
    curve, *others = figure.subplots(
        1, len(widths), squeeze=False, sharey=True, width_ratios=widths
    )[0]
    for way, colour, marker, style, side in _WAYS:
        look: Any = {"color": colour, "marker": marker, "markersize": 4.5, "zorder": 3}
        own = [p for p in points if p.way == way]
        line = [(p.place + 0.004 * side, p) for p in own if not isinstance(p.place, str)]
        beside = [
            (profiles.index(p.place) + 0.14 * side, p) for p in own if isinstance(p.place, str)
        ]
        _whiskers(curve, sorted(line), label=way.upper(), linestyle=style, **look)
        if beside:
            _whiskers(others[0], beside, linestyle="none", **look)
        for axes, placed in ((curve, line), *((axes, beside) for axes in others)):
            for x, point in placed:
                if point == chosen:
                    ring: Any = {"s": 130, "facecolor": "none", "edgecolor": "black"}
                    axes.scatter(x, 100 * point.accuracy, label="chosen", zorder=4, **ring)
    for (name, accuracy), dashes in zip(parents.items(), _PARENT_LINES, strict=True):
        label = f"{name}, {100 * accuracy:.1f} %"
        for axes in (curve, *others):
            axes.axhline(100 * accuracy, color="black", linewidth=1, linestyle=dashes, label=label)
            label = "_"  # once in the legend
    curve.set(
        xlim=(-0.03, 1.03), xlabel=f"t, the share of {second} (0 to 1)", ylabel="right answers, %"
    )
    curve.set_title(f"Merges of {first} and {second}")
    for axes in others:
        axes.set_xticks(range(len(profiles)), profiles)
        axes.set(xlim=(-0.6, len(profiles) - 0.4), xlabel="profiles by depth")
    figure.legend(
        loc="outside lower left",
        ncols=5 if len(first + second) < 32 else 2,
        title=f"{n} questions, bars: 95 % Wilson intervals",
        alignment="left",
    )
    return figure


@in_our_style
def expected_against_actual(rows: Sequence[Synergy]) -> Figure:
    """Draw each merge's accuracy over the mean of its parents, with the line where both agree.

    A few merges are numbered and named beside the axes; of many, `sorted_deviations` has the names.
    """
    from matplotlib.figure import Figure

    is_crowded = len(rows) > CROWDED
    figure = Figure(figsize=(5.6 if is_crowded else 7.2, 5.4), layout="constrained")
    axes = figure.subplots()
    x, y = _percent(rows, "expected"), _percent(rows, "actual")
    low, high = x + _percent(rows, "excess_low"), x + _percent(rows, "excess_high")
    ends = (min(x.min(), low.min()) - 1, max(x.max(), high.max()) + 1)
    axes.plot(ends, ends, color="black", linewidth=1, linestyle="--", label="mean of the parents")
    for own, look in _looks(rows):
        axes.errorbar(x[own], y[own], yerr=_arms(y[own], low[own], high[own]), **look)
    if not is_crowded:
        for i, place in enumerate(zip(x, y, strict=True), start=1):
            axes.annotate(str(i), place, xytext=(5, 3), textcoords="offset points", fontsize=8)
        numbered(axes, [row.name for row in rows])
    axes.set(
        xlim=ends,
        ylim=ends,
        aspect="equal",
        xlabel="expected: mean of the parents, % right",
        ylabel="actual: the merge, % right",
        title="Expected against actual accuracy",
    )
    figure.legend(
        loc="outside lower left",
        ncols=2,
        title=f"{_asked(rows)}, bars: 95 % paired bootstrap of actual minus expected",
        alignment="left",
    )
    return figure


@in_our_style
def sorted_deviations(rows: Sequence[Synergy]) -> Figure:
    """Draw each merge against its better parent, best on top, with paired intervals."""
    from matplotlib.figure import Figure

    rows = sorted(rows, key=lambda row: (row.improvement, row.name))
    figure = Figure(figsize=(7.2, 1.7 + row_inch(len(rows)) * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="black", linewidth=1)
    x, low, high = (_percent(rows, f"improvement{end}") for end in ("", "_low", "_high"))
    for own, look in _looks(rows):
        axes.errorbar(x[own], own, xerr=_arms(x[own], low[own], high[own]), **look)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set(
        ylim=(-0.6, len(rows) - 0.4),
        xlabel="merge minus better parent, percentage points",
        title="Deviation from the better parent",
    )
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    figure.legend(
        loc="outside lower left",
        ncols=3,
        title=f"{_asked(rows)}, bars: 95 % paired bootstrap; claims corrected (Holm) for "
        f"{max(row.n_merges for row in rows)} merges",
        alignment="left",
    )
    return figure


def row_inch(n: int) -> float:
    """Return the height of one row of n named ones, in inches."""
    return 0.26 if n <= CROWDED else 0.17


def numbered(axes: Any, names: Sequence[str]) -> None:
    """Write beside the axes which number stands for which name."""
    key = "\n".join(f"{i:>2}  {name}" for i, name in enumerate(names, start=1))
    axes.annotate(key, (1.03, 1.0), xycoords="axes fraction", va="top", fontsize=8)


def _percent(rows: Sequence[Synergy], field: str) -> Any:
    return np.array([100 * getattr(row, field) for row in rows])


def _looks(rows: Sequence[Synergy]) -> list[tuple[list[int], dict[str, Any]]]:
    """Return which rows share what can be said of them, and how those are drawn."""
    found = []
    for index, (status, colour, marker, face) in enumerate(_STATUS):
        own = [i for i, row in enumerate(rows) if index == (0 if row.is_gain else 1 + row.is_loss)]
        if own:
            look = {"color": colour, "marker": marker, "markerfacecolor": face or colour}
            look |= {"linestyle": "none", "label": status}
            size = 6 if len(rows) <= CROWDED else 4
            found.append((own, {**look, "markersize": size, "elinewidth": 0.9, "capsize": 2}))
    return found


def _asked(rows: Sequence[Synergy]) -> str:
    counts = sorted({row.n for row in rows})
    return (
        f"{counts[0]} questions" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} questions"
    )


def _arms(middle: Any, low: Any, high: Any) -> Any:
    """Return the two arms of error bars, which have no negative length."""
    return np.maximum(0, [middle - low, high - middle])


def _whiskers(axes: Any, placed: Sequence[tuple[float, Point]], **look: Any) -> None:
    if placed:
        middle, low, high = (100 * np.array([p[i] for _, p in placed]) for i in (2, 3, 4))
        bars: Any = {"yerr": _arms(middle, low, high), "elinewidth": 0.9, "capsize": 2}
        axes.errorbar([x for x, _ in placed], middle, linewidth=1.4, **bars, **look)
