"""What goes with what among many merges: correlations and groups, with their warnings.

Definitions follow the paper's analysis of merging (arXiv 2409.03444): columns are the merged
accuracy, the improvement over the better parent, the parents' score gap ("diversity" there)
and traits such as stages; groups are found in the z-scores of expected and actual accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from merging.synergy import Synergy
from orbweave.errors import UsageError
from orbweave.statistics import LEVEL

__all__ = [
    "Correlations",
    "Groups",
    "correlations",
    "density",
    "group",
    "merge_correlations",
    "z_scores",
]

Floats = NDArray[np.float64]
_SAME = 0.999
"""Above this |r| two columns say the same thing."""
_RESTARTS = 20
"""Of K-means, from different starts; the tightest grouping is kept."""


class Correlations(NamedTuple):
    """How columns go together over merges."""

    columns: tuple[str, ...]
    pearson: Floats
    """Shape (columns, columns); NaN where a column is constant."""
    spearman: Floats
    """The same of ranks."""
    n: int
    """Merges."""
    sure_above: float
    """|r| that chance exceeds in 5 % of cases where there is nothing, for independent merges;
    1 where there are too few to tell."""
    warnings: tuple[str, ...]

    def varying(self) -> Correlations:
        """Return it without the columns that are the same for every merge; warnings stay."""
        kept = [i for i in range(len(self.columns)) if not np.isnan(self.pearson[i, i])]
        return self._replace(
            columns=tuple(self.columns[i] for i in kept),
            pearson=self.pearson[np.ix_(kept, kept)],
            spearman=self.spearman[np.ix_(kept, kept)],
        )

    def document(self) -> dict[str, Any]:
        """Return it as JSON values; undefined correlations are null."""
        tables = {"pearson": self.pearson, "spearman": self.spearman}
        plain = {
            name: [[None if np.isnan(r) else float(r) for r in row] for row in table]
            for name, table in tables.items()
        }
        return {**self._asdict(), **plain}


class Groups(NamedTuple):
    """Merges grouped by expected and actual accuracy."""

    names: tuple[str, ...]
    points: Floats
    """Shape (merges, 2): z-scores of expected and actual accuracy."""
    labels: tuple[int, ...]
    """Group of each merge; 0 has the highest actual accuracy."""
    centroids: Floats
    """Shape (groups, 2)."""
    silhouette: float
    """Mean silhouette width, in [-1, 1]. K-means finds groups in anything: below about 0.5
    there may be none."""
    tree: Floats
    """Ward linkage, shape (merges - 1, 4), as scipy.cluster.hierarchy.linkage."""


def merge_correlations(rows: Sequence[Synergy]) -> Correlations:
    """Return the correlations over merges of what is known of them.

    Beside the paper's columns there are two that measure diversity itself: the distance of the
    parents' weights, if it was handed in for all, and how often their answers disagree.

    Raises:
        UsageError: fewer than three merges.
    """
    columns: dict[str, list[float]] = {
        "merged accuracy": [row.actual for row in rows],
        "improvement": [row.improvement for row in rows],
        "score gap": [row.score_gap for row in rows],
        "disagreement": [row.disagreement for row in rows],
    }
    distances = [row.distance for row in rows if row.distance is not None]
    if len(distances) == len(rows):
        columns["weight distance"] = distances
    traits = dict.fromkeys(name for row in rows for name in row.traits)
    columns |= {name: [row.traits.get(name, 0.0) for row in rows] for name in traits}
    found = correlations(columns)
    shared = set(rows[0].parents).intersection(*(row.parents for row in rows))
    pairs = {frozenset(row.parents) for row in rows}
    cautions = []
    if 0 < len(distances) < len(rows):
        cautions.append(
            f"the distance of the parents' weights is known of {len(distances)} of {len(rows)} "
            "merges only, so it is left out"
        )
    if shared and len(pairs) > 1:
        cautions.append(
            f"every merge has the parent {', '.join(sorted(shared))}, so the score gap says how "
            "good the other parent is and nothing of diversity"
        )
    if len(pairs) < len(rows):
        cautions.append(
            f"{len(rows)} merges come from {len(pairs)} pair{'s' * (len(pairs) > 1)} of parents, "
            "so they are not independent and chance reaches higher |r| than stated"
        )
    return found._replace(warnings=(*found.warnings, *cautions))


def correlations(columns: Mapping[str, Sequence[float]]) -> Correlations:
    """Return Pearson and Spearman correlations of columns, and what makes them doubtful.

    Args:
        columns: Name -> values, equally many each, at least three.

    Raises:
        UsageError: fewer than three rows, or columns of unlike length.
    """
    from scipy.stats import rankdata
    from scipy.stats import t as student

    lengths = {len(column) for column in columns.values()}
    n = min(lengths, default=0)
    if len(lengths) != 1 or n < 3:
        raise UsageError(
            f"wanted columns of one length, at least 3 merges, got {sorted(lengths) or 'none'}; "
            "two merges correlate perfectly whatever they are"
        )
    values = np.array(list(columns.values()), dtype=float)  # (columns, merges)
    names = tuple(columns)
    limit = float(student.ppf((1 + LEVEL) / 2, n - 2))
    pearson = _correlation(values)
    return Correlations(
        columns=names,
        pearson=pearson,
        spearman=_correlation(rankdata(values, axis=1)),
        n=n,
        sure_above=limit / float(np.sqrt(n - 2 + limit**2)),
        warnings=tuple(_warnings(names, values, pearson)),
    )


def z_scores(values: Sequence[float]) -> Floats:
    """Return values less their mean, over their standard deviation (that of a population).

    A constant column gives zeros.
    """
    array = np.asarray(values, dtype=float)
    centred = array - array.mean()
    return centred / centred.std() if _varies(array) else np.zeros_like(array)


def group(rows: Sequence[Synergy], n_groups: int = 2, *, seed: int = 0) -> Groups:
    """Group merges by the z-scores of expected and actual accuracy: K-means, and Ward's tree.

    Raises:
        UsageError: fewer different merges than groups.
    """
    from scipy.cluster.hierarchy import linkage

    expected, actual = ([getattr(row, key) for row in rows] for key in ("expected", "actual"))
    places = np.column_stack([z_scores(expected), z_scores(actual)]) if rows else np.zeros((0, 2))
    n_different = len(np.unique(places.round(9), axis=0))
    if not 2 <= n_groups <= n_different:
        raise UsageError(
            f"wanted at least 2 groups and as many different merges, got {n_groups} groups of "
            f"{n_different} different merges"
        )
    labels, centroids = _k_means(places, n_groups, seed)
    return Groups(
        names=tuple(row.name for row in rows),
        points=places,
        labels=tuple(labels.tolist()),
        centroids=centroids,
        silhouette=_silhouette(places, labels),
        tree=np.asarray(linkage(places, method="ward"), dtype=float),
    )


def density(points: Floats, at: Floats) -> Floats | None:
    """Return the Gaussian kernel density of points (Scott's rule) at other places.

    Args:
        points: Shape (n, 2).
        at: Shape (m, 2).

    Returns:
        Shape (m,), or None where the points lie on one line and have no density in the plane.
    """
    from scipy.stats import gaussian_kde

    if len(points) < 3 or np.linalg.matrix_rank(points - points.mean(axis=0), tol=1e-9) < 2:
        return None
    return np.asarray(gaussian_kde(points.T)(at.T), dtype=float)


def _varies(values: Floats) -> bool:
    return bool(np.ptp(values) > 1e-12 * max(1.0, float(np.abs(values).max())))


def _correlation(values: Floats) -> Floats:
    """Return the correlation matrix of the rows; NaN where a row is constant."""
    varies = np.array([_varies(row) for row in values])
    centred = values - values.mean(axis=1, keepdims=True)
    lengths = np.where(varies, np.sqrt((centred**2).sum(axis=1)), np.nan)
    table: Floats = centred @ centred.T / np.outer(lengths, lengths)
    return table.clip(-1, 1)


def _warnings(names: Sequence[str], values: Floats, pearson: Floats) -> list[str]:
    told = [
        f"{name} is the same for every merge, so nothing correlates with it"
        for name, row in zip(names, values, strict=True)
        if not _varies(row)
    ]
    used = [i for i, row in enumerate(values) if _varies(row)]
    alike = [(i, j) for i in used for j in used if i < j and abs(pearson[i, j]) > _SAME]
    told += [
        f"{names[i]} and {names[j]} say the same (r = {pearson[i, j]:+.3f}); read only one of them"
        for i, j in alike
    ]
    n = values.shape[1]
    kept = [i for i in used if all(i != j for _, j in alike)]
    if len(kept) >= n:
        told.append(
            f"{n} merges for {len(kept)} columns that vary: any of them follows from the others"
        )
    elif dependent := _dependent(values[kept]):
        told.append(
            f"{', '.join(names[kept[i]] for i in dependent)} are bound by arithmetic: each follows "
            "from the others"
        )
    return told


def _dependent(values: Floats) -> list[int]:
    """Return the rows that take part in a linear dependence."""
    if not len(values):
        return []
    standard = np.stack([z_scores(row) for row in values])
    left, sizes, _ = np.linalg.svd(standard, full_matrices=False)
    null = left[:, sizes < 1e-8 * sizes[0]]  # (rows, dependences)
    return [i for i, part in enumerate(null) if np.abs(part).max(initial=0.0) > 1e-6]


def _k_means(points: Floats, k: int, seed: int) -> tuple[NDArray[np.int64], Floats]:
    """Return labels and centroids of the tightest of several runs, highest group first."""
    from scipy.cluster.vq import ClusterError, kmeans2

    rng = np.random.default_rng(seed)
    tightest, found = np.inf, None
    for _ in range(_RESTARTS):
        try:
            centroids, labels = kmeans2(points, k, minit="++", missing="raise", rng=rng)
        except ClusterError:  # a group ran empty: an unlucky start
            continue
        spread = float(((points - centroids[labels]) ** 2).sum())
        if spread < tightest - 1e-12:  # not by rounding alone: the first of equals stays
            tightest, found = spread, (labels.astype(np.int64), centroids)
    if found is None:
        raise UsageError(f"wanted {k} groups, every start left one of them empty; ask for fewer")
    groups, centres = found
    order = np.argsort(-centres[:, 1], kind="stable")
    return np.argsort(order)[groups], centres[order]


def _silhouette(points: Floats, labels: NDArray[np.int64]) -> float:
    """Return the mean silhouette width; a merge alone in its group counts 0.

    Source: Rousseeuw, J. Comput. Appl. Math. 20 (1987) 53.
    """
    from scipy.spatial.distance import cdist

    apart = cdist(points, points)
    widths = []
    for i, label in enumerate(labels):
        own = labels == label
        if own.sum() == 1:
            widths.append(0.0)
            continue
        within = apart[i, own].sum() / (own.sum() - 1)
        nearest = min(apart[i, labels == other].mean() for other in set(labels) - {label})
        widths.append((nearest - within) / max(within, nearest, 1e-300))
    return float(np.mean(widths))
