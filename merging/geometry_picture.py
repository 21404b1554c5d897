"""The geometry of two models by depth and kind of weight, as a picture.

matplotlib is touched here alone, without its global state: the picture can be drawn in any
thread, and the same geometry gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from merging.geometry import COLLINEAR_DEG, Geometry, Part, Summary
from orbweave.errors import UsageError
from orbweave.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["SUFFIXES", "check_suffix", "draw", "save"]

SUFFIXES = (".png", ".svg")

_LOOKS: dict[Part, tuple[str, str]] = {
    "attention": ("#0072b2", "o"),
    "mlp": ("#d55e00", "s"),
    "norm": ("#009e73", "^"),
    "embedding": ("#cc79a7", "D"),
    "head": ("#e69f00", "v"),
    "other": ("#666666", "x"),
}
"""Colours of Okabe and Ito (2008), told apart by colour-blind eyes; and markers for grey paper."""
_SETTINGS: Any = {
    "svg.hashsalt": "orbweave",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a $ in a folder's name is no formula
    "font.size": 9,
}
_INCH = {"row": 2.2, "margin": 1.1, "width": 8.0}
_BEFORE, _AFTER = -2.0, 1.0
"""Places of what lies outside the layers, in layers from the first and from the last one's end."""


class _Row(NamedTuple):
    """One measure, drawn over depth."""

    label: str
    value: Callable[[Summary], float | None]
    neutral: float
    """Where the two models do not differ, or have nothing to do with each other."""


_ANGLE = _Row("angle, degrees", lambda s: s.angle_deg, 0.0)
_RATIO = _Row("norm ratio |B| / |A|", lambda s: s.norm_ratio, 1.0)
_COSINE = _Row("cosine of\ntask vectors", lambda s: s.task_cosine, 0.0)


def check_suffix(path: Path) -> None:
    """Check that a picture can be written under that name.

    Raises:
        UsageError: it ends neither in .png nor in .svg.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"wanted a picture as .png or .svg, got {path}; change the ending")


def draw(geometry: Geometry) -> Figure:
    """Return the figure: a row per measure, layers from left to right, a colour per kind."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    has_tasks = geometry.total.task_cosine is not None
    rows = [_ANGLE, _RATIO, *([_COSINE] if has_tasks else [])]
    summaries = geometry.by_layer
    with rc_context(_SETTINGS):
        figure = Figure(
            figsize=(_INCH["width"], _INCH["row"] * len(rows) + _INCH["margin"]),
            layout="constrained",
        )
        grid = figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0]
        for axes, row in zip(grid, rows, strict=True):
            _draw_row(axes, row, summaries)
        _mark_straight_lines(grid[0])
        _label_depth(grid[-1], summaries)
        figure.align_ylabels()
        figure.suptitle(_title(geometry), fontsize=11)
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)
    return figure


def save(geometry: Geometry, path: Path, *, force: bool = False) -> None:
    """Write the picture as PNG or SVG, as its name ends.

    Raises:
        UsageError: the name ends otherwise.
        OutputError: the file exists and `force` is off, or cannot be written.
    """
    from matplotlib import rc_context

    check_suffix(path)
    kind, content = path.suffix.lower().removeprefix("."), BytesIO()
    with rc_context(_SETTINGS):
        # No clock in the file: the same geometry gives the same bytes.
        metadata = {"Date": None} if kind == "svg" else {}
        draw(geometry).savefig(content, format=kind, dpi=160, metadata=metadata)
    write_bytes(path, content.getvalue(), force=force)


def _draw_row(axes: Any, row: _Row, summaries: list[Summary]) -> None:
    """Draw one measure: a line per kind through the layers, single marks outside them."""
    axes.axhline(row.neutral, color="#999999", linewidth=0.8)
    n_layers = 1 + max((s.layer for s in summaries if s.layer is not None), default=-1)
    for part, (colour, marker) in _LOOKS.items():
        own = [(s.layer, row.value(s)) for s in summaries if s.part == part]
        inside = [(layer, value) for layer, value in own if layer is not None]
        outside = [value for layer, value in own if layer is None]
        look = {"color": colour, "marker": marker, "markersize": 4}
        if inside:
            axes.plot(*zip(*inside, strict=True), **look, linewidth=1.2, label=part)
        if outside:
            label = None if inside else part
            place = _BEFORE if part == "embedding" else n_layers + _AFTER
            axes.plot([place], outside, **look, linestyle="none", label=label)
    axes.set_ylabel(row.label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.margins(y=0.12)


def _mark_straight_lines(axes: Any) -> None:
    """Show below which angle SLERP is a straight line, where that is in view."""
    top = axes.get_ylim()[1] or 1.0
    axes.set_ylim(-0.06 * top, top)  # marks at zero are seen whole
    if top > COLLINEAR_DEG:
        axes.axhspan(0, COLLINEAR_DEG, color="#999999", alpha=0.18, linewidth=0)
        text = f"grey, below {COLLINEAR_DEG:.2f}°: SLERP is a straight line"
    else:
        text = f"all below {COLLINEAR_DEG:.2f}°: SLERP is a straight line"
    axes.set_title(text, fontsize=8, loc="right", color="#555555")


def _label_depth(axes: Any, summaries: list[Summary]) -> None:
    """Label layers by number, and what lies before and behind them by name."""
    layers = sorted({s.layer for s in summaries if s.layer is not None})
    step = max(1, round(len(layers) / 10))
    ticks = {float(layer): str(layer) for layer in layers[: -step // 2 or None : step]}
    ticks |= {float(layer): str(layer) for layer in layers[-1:]}
    outside = {s.part for s in summaries if s.layer is None}
    if "embedding" in outside:
        ticks[_BEFORE] = "before"
    if outside - {"embedding"}:
        ticks[len(layers) + _AFTER] = "after"
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set_xlabel("layer")


def _title(geometry: Geometry) -> str:
    a, b = (_short(name) for name in geometry.parents)
    base = f", base = {_short(geometry.base)}" if geometry.base else ""
    return f"Two models by depth: A = {a}, B = {b}{base}"


def _short(name: str, limit: int = 36) -> str:
    """Return the end of a long name, which tells more than its beginning."""
    return name if len(name) <= limit else f"…{name[1 - limit :]}"
