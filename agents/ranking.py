"""What marks and preferences say of models: tables, intervals and the biases of the judge.

Everything here is arithmetic on numbers, so that it can be checked by hand.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from orbweave.statistics import LEVEL, Interval, wilson

__all__ = [
    "Contest",
    "Pace",
    "Place",
    "Standing",
    "correlation",
    "first_shown",
    "rank",
    "standings",
    "strengths",
]

_RESAMPLES = 2_000


class Standing(NamedTuple):
    """One model in the table of marks."""

    model: str
    n: int
    """Answers with a mark in every criterion."""
    marks: dict[str, float]
    """Mean mark per criterion."""
    total: float
    """Sum of the marks."""
    mean: float
    normalised: float
    """Total over the best model's, times the highest mark of the scale."""
    interval: Interval | None
    """Of the total, over answers; None for fewer than two."""
    spread: float | None
    """Standard deviation of an answer's total over repeats, mean over answers; None if asked
    once."""


class Contest(NamedTuple):
    """What came of comparing two models on one question."""

    first: str
    second: str
    question: str
    result: float
    """1 if the first won, 0 if the second did, 0.5 for a tie."""


class Place(NamedTuple):
    """One model among those compared."""

    model: str
    wins: int
    ties: int
    losses: int
    win_rate: float
    """Wins and half the ties over all contests."""
    interval: Interval | None
    """Of the win rate, questions drawn anew; None for fewer than two questions."""
    strength: float
    """Bradley-Terry log strength, mean 0: exp of a difference is the odds of winning."""


class Pace(NamedTuple):
    """How often a judge preferred what it was shown first."""

    share: float
    """Mean over pairs of the share of a pair's clear views."""
    interval: Interval
    n: int
    """Pairs with a clear view."""


def standings(
    marks: Mapping[str, Sequence[Sequence[Mapping[str, float]]]],
    *,
    highest: float = 10.0,
    seed: int = 0,
    level: float = LEVEL,
) -> list[Standing]:
    """Return the table of marks, the best first.

    Args:
        marks: Model -> answers -> repeats -> criterion to mark. Every repeat of every answer
            holds the same criteria; no answer is without repeats.
        highest: Of the scale.
        seed: Of the bootstrap.
        level: Confidence level of the intervals.

    Source: columns as in Lu, Luu & Buehler (2025), Table 3; intervals are ours.
    """
    rows = {m: [_mean_marks(repeats) for repeats in given] for m, given in marks.items() if given}
    totals = {m: [sum(a.values()) for a in answers] for m, answers in rows.items()}
    best = max((float(np.mean(t)) for t in totals.values()), default=1.0)
    table = []
    for model, answers in rows.items():
        means = {name: float(np.mean([a[name] for a in answers])) for name in answers[0]}
        total = sum(means.values())
        table.append(
            Standing(
                model=model,
                n=len(answers),
                marks=means,
                total=total,
                mean=total / len(means),
                normalised=highest * total / best,
                interval=_bootstrap_mean(totals[model], seed, level),
                spread=_spread(marks[model]),
            )
        )
    return sorted(table, key=lambda row: -row.total)


def rank(contests: Sequence[Contest], *, seed: int = 0, level: float = LEVEL) -> list[Place]:
    """Return the models compared, the highest win rate first.

    Args:
        contests: Of any pairs; a question may come up often.
        seed: Of the bootstrap.
        level: Confidence level of the intervals.
    """
    strength = strengths(contests)
    questions = list(dict.fromkeys(contest.question for contest in contests))
    places = []
    for model in strength:
        results = [(c.question, _result_of(model, c)) for c in contests if model in c[:2]]
        values = [value for _, value in results]
        places.append(
            Place(
                model=model,
                wins=values.count(1.0),
                ties=values.count(0.5),
                losses=values.count(0.0),
                win_rate=float(np.mean(values)),
                interval=_bootstrap_rate(results, questions, seed, level),
                strength=strength[model],
            )
        )
    return sorted(places, key=lambda place: (-place.win_rate, -place.strength))


def strengths(contests: Sequence[Contest], *, n_steps: int = 10_000) -> dict[str, float]:
    """Return the Bradley-Terry log strength of each model, their mean 0.

    A tie is half a win for both. Each model also has one tie with an imagined model of
    strength 1, which keeps those finite who always win or always lose.

    Source: Hunter, Ann. Stat. 32 (2004) 384, the minorise-maximise step (3).
    """
    models = list(dict.fromkeys(name for contest in contests for name in contest[:2]))
    if not models:
        return {}
    place = {name: i for i, name in enumerate(models)}
    met: NDArray[np.float64] = np.zeros((len(models), len(models)))
    won = np.full(len(models), 0.5)
    for contest in contests:
        i, j = place[contest.first], place[contest.second]
        met[i, j] += 1
        met[j, i] += 1
        won[i] += contest.result
        won[j] += 1 - contest.result
    power = np.ones(len(models))
    for _ in range(n_steps):
        before = power
        power = won / ((met / (power[:, None] + power[None, :])).sum(1) + 1 / (power + 1))
        if np.allclose(power, before, rtol=1e-10, atol=0):
            break
    logs = np.log(power) - np.log(power).mean()
    return {name: float(logs[place[name]]) for name in models}


def first_shown(pairs: Iterable[Sequence[float]], level: float = LEVEL) -> Pace | None:
    """Return how often the one shown first was preferred; 0.5 if the judge is fair.

    Views of one pair hang together, so a pair counts once, by its mean. Where both orders come
    to the same answer the pair leans to neither place: pairs are matched, and a judge who is
    consistent varies less than tosses would.

    Args:
        pairs: Of each pair, every view's preference for the first shown; it was shown in both
            orders. Exact ties say nothing and are left out.
        level: Confidence level of the interval.

    Source: interval of Agresti and Min, Stat. Med. 24 (2005) 729: half a pair is added to each
    of the four ways in which two views can fall.
    """
    clear = [[share > 0.5 for share in shares if share != 0.5] for shares in pairs]
    means = [sum(firsts) / len(firsts) for firsts in clear if firsts]
    if not means:
        return None
    return Pace(sum(means) / len(means), _matched(means, level), len(means))


def _matched(means: Sequence[float], level: float) -> Interval:
    """Return the interval of the mean over pairs, within [0, 1]; see `first_shown`."""
    leanings = [2 * mean - 1 for mean in means]  # 1: first both times; 0: the same answer
    n = len(leanings) + 2  # one pair leaning each half way, one not at all
    middle = sum(leanings) / n
    squares = sum(leaning**2 for leaning in leanings) + 1
    half = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(squares - n * middle**2) / n
    return Interval(max(0.0, (1 + middle - half) / 2), min(1.0, (1 + middle + half) / 2))


def correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation; None if one does not vary or there are under three."""
    if len(first) < 3 or len(set(first)) < 2 or len(set(second)) < 2:
        return None
    from scipy.stats import spearmanr

    value = float(spearmanr(first, second).statistic)
    return None if math.isnan(value) else value


def _mean_marks(repeats: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([r[name] for r in repeats])) for name in repeats[0]}


def _spread(answers: Sequence[Sequence[Mapping[str, float]]]) -> float | None:
    totals = [[sum(marks.values()) for marks in repeats] for repeats in answers]
    deviations = [float(np.std(t, ddof=1)) for t in totals if len(t) > 1]
    return float(np.mean(deviations)) if deviations else None


def _bootstrap_mean(values: Sequence[float], seed: int, level: float) -> Interval | None:
    if len(values) < 2:
        return None
    rng = np.random.default_rng(seed)
    drawn = rng.choice(np.asarray(values), size=(_RESAMPLES, len(values))).mean(1)
    return _middle(drawn, level)


def _bootstrap_rate(
    results: Sequence[tuple[str, float]], questions: Sequence[str], seed: int, level: float
) -> Interval | None:
    """Return the interval of a win rate, whole questions drawn anew."""
    sums = {question: [0.0, 0] for question in questions}
    for question, value in results:
        sums[question][0] += value
        sums[question][1] += 1
    table = np.array([pair for pair in sums.values() if pair[1]])  # (n_questions, 2)
    if len(table) < 2:
        return None
    if table[:, 0].sum() in (0.0, table[:, 1].sum()):  # nothing varies: no resample would
        return wilson(len(table) if table[0, 0] else 0, len(table), level)
    rng = np.random.default_rng(seed)
    drawn = table[rng.integers(len(table), size=(_RESAMPLES, len(table)))].sum(1)
    return _middle(drawn[:, 0] / drawn[:, 1], level)


def _middle(drawn: NDArray[np.float64], level: float) -> Interval:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _result_of(model: str, contest: Contest) -> float:
    return contest.result if contest.first == model else 1 - contest.result
