"""Figures of what goes with what among many merges, one function each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from merging.synergy_patterns import Correlations, Groups, density
from merging.synergy_views import COLOURS, CROWDED, in_our_style, numbered, row_inch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["cluster_map", "correlation_map", "dendrogram_view", "density_map"]

_LOOKS = tuple(zip("os^Dv", COLOURS.values(), strict=True))
"""Marker and colour of each group."""
_GROUPED = 0.5
"""Silhouette from which on groups may be believed (Kaufman and Rousseeuw, 1990, chapter 2)."""


@in_our_style
def correlation_map(found: Correlations) -> Figure:
    """Draw Pearson's and Spearman's correlations as heat maps; bold ones are more than chance."""
    from matplotlib.figure import Figure

    k = len(found.columns)
    side = 1.1 + 0.5 * k
    figure = Figure(figsize=(2 * side + 1.6, side + 0.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    tables = (("Pearson", found.pearson), ("Spearman (ranks)", found.spearman))
    for axes, (title, table) in zip(panels, tables, strict=True):
        axes.set_facecolor("0.85")  # shows where nothing is defined
        image = axes.imshow(table, cmap="PuOr_r", vmin=-1, vmax=1)
        axes.set_xticks(range(k), found.columns, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(k), found.columns)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set_title(title)
        for (i, j), r in np.ndenumerate(table):
            look: Any = {"ha": "center", "va": "center", "fontsize": 8}
            look["color"] = "white" if abs(r) > 0.6 else "black"
            look["fontweight"] = "bold" if i != j and abs(r) > found.sure_above else "normal"
            axes.text(j, i, "–" if np.isnan(r) else f"{r:+.2f}", **look)
    figure.colorbar(image, ax=panels, label="correlation (dimensionless)")
    figure.suptitle(
        f"Correlations over {found.n} merges; bold: |r| above {found.sure_above:.2f}, "
        "which chance alone exceeds in 5 %",
        x=0.01,
        ha="left",
        fontsize=10,
    )
    return figure


@in_our_style
def cluster_map(found: Groups) -> Figure:
    """Draw the groups of K-means and their centroids."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    axes = figure.subplots()
    _points(axes, found)
    cross: Any = {"marker": "+", "s": 160, "color": "black", "linewidth": 1.6}
    axes.scatter(*found.centroids.T, label="centroids", zorder=4, **cross)
    if len(found.names) <= CROWDED:
        for i, place in enumerate(found.points, start=1):
            axes.annotate(str(i), place, xytext=(5, 3), textcoords="offset points", fontsize=8)
        numbered(axes, found.names)
    doubt = "" if found.silhouette >= _GROUPED else ": there may be none"
    axes.set_title(f"Groups of merges (K-means; mean silhouette {found.silhouette:.2f}{doubt})")
    figure.legend(loc="outside lower left", ncols=6)
    return figure


@in_our_style
def density_map(found: Groups) -> Figure:
    """Draw the density of merges in the plane of expected and actual accuracy."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.6, 4.8), layout="constrained")
    axes = figure.subplots()
    low, high = found.points.min(axis=0) - 1, found.points.max(axis=0) + 1
    x, y = np.meshgrid(*(np.linspace(a, b, 120) for a, b in zip(low, high, strict=True)))
    heights = density(found.points, np.column_stack([x.ravel(), y.ravel()]))
    if heights is not None:
        shades = axes.contourf(x, y, heights.reshape(x.shape), 10, cmap="Greys", alpha=0.8)
        figure.colorbar(shades, ax=axes, label="share of the merges per unit of area")
    _points(axes, found)
    axes.set_title(
        "No density: the merges lie on one line"
        if heights is None
        else "Density of merges (Gaussian kernel, Scott's rule)"
    )
    figure.legend(loc="outside lower left", ncols=5)
    return figure


@in_our_style
def dendrogram_view(found: Groups) -> Figure:
    """Draw Ward's tree of the merges, marked with the groups of K-means."""
    from matplotlib.figure import Figure
    from scipy.cluster.hierarchy import dendrogram

    tree: Any = dendrogram(found.tree, no_plot=True)
    leaves = tree["leaves"]
    n = len(leaves)
    figure = Figure(figsize=(7.2, 1.6 + row_inch(n) * n), layout="constrained")
    axes = figure.subplots()
    for heights, places in zip(tree["dcoord"], tree["icoord"], strict=True):
        axes.plot(heights, places, color="black", linewidth=1)
    rows = [5 + 10 * i for i in range(len(leaves))]  # where scipy puts the leaves
    for label in sorted(set(found.labels)):
        own = [row for row, leaf in zip(rows, leaves, strict=True) if found.labels[leaf] == label]
        marker, colour = _LOOKS[label % len(_LOOKS)]
        look: Any = {"marker": marker, "color": colour, "clip_on": False, "zorder": 3}
        axes.scatter([0] * len(own), own, s=38, label=f"K-means group {label + 1}", **look)
    axes.set_yticks(rows, [found.names[leaf] for leaf in leaves])
    axes.tick_params(axis="y", length=0, pad=8)
    axes.spines["left"].set_visible(False)
    axes.set(
        xlim=(0, None),
        ylim=(0, 10 * len(leaves)),
        xlabel="Ward distance between z-scores (dimensionless)",
        title="Merges by likeness of expected and actual accuracy",
    )
    figure.legend(loc="outside lower left", ncols=5)
    return figure


def _points(axes: Any, found: Groups) -> None:
    """Draw merges as points of the z-score plane, one look a group."""
    for label in sorted(set(found.labels)):
        own = found.points[np.array(found.labels) == label]
        marker, colour = _LOOKS[label % len(_LOOKS)]
        look: Any = {"marker": marker, "color": colour, "edgecolor": "white", "linewidth": 0.6}
        axes.scatter(*own.T, s=42, label=f"group {label + 1}", zorder=3, **look)
    axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.set(
        xlabel="expected accuracy, z-score (dimensionless)",
        ylabel="actual accuracy, z-score (dimensionless)",
    )
