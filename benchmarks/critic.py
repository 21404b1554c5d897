"""Whether the critic's scores mean anything: expected scores against written ones.

    python benchmarks/critic.py --model generalist

For each held-out critique, one the model in `training/weights` never learnt, the four scores are
read from the model's token probabilities as the team reads them, and compared with what the
teacher wrote: rank correlation (Spearman) and mean absolute error, beside the error of always
saying the mean of the learnt critiques, which needs no model. With `--all` every critique is
read, which is fair only for a model that was not trained on them. JSON on stdout.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata
from unlearnt import items_of, unlearnt  # beside this script

from agents.critic import CRITERIA, expected_scores
from agents.generation import Engine
from agents.roles import Team, load_team
from orbweave.statistics import Interval

Scores = Mapping[str, float]
RESAMPLES = 2_000
FEW = 30
"""Critiques below which a figure is only told with a warning."""
WEAK = 0.3
"""Rank correlation below which the critic is said to hardly discriminate; chosen by us."""
NARROW = 0.25
"""Spread of its scores over that of the written ones, likewise."""


def main() -> None:
    """Read the scores and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="generalist")
    parser.add_argument("--all", action="store_true", help="every critique, learnt ones too")
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    every, held = items_of("critique"), unlearnt("critique")
    known = {item["id"] for item in held}
    learnt = [item["scores"] for item in every if item["id"] not in known]
    constant = {name: statistics.fmean(scores[name] for scores in learnt) for name in CRITERIA}
    items = (every if args.all else held)[: args.limit]
    read = asyncio.run(_read(args.model, items))
    written = [item["scores"] for item in items]
    figures = {"model": args.model, "held_out": not args.all}
    json.dump(figures | calibration(read, written, constant, args.seed), sys.stdout, indent=2)
    print()


def calibration(
    read: Sequence[Scores], written: Sequence[Scores], constant: Scores, seed: int = 0
) -> dict[str, Any]:
    """Return how well scores agree with written ones, per criterion and for their mean.

    Args:
        read: Expected scores, one mapping of criteria per critique.
        written: What was written, in the same order.
        constant: The baseline's answer for each criterion.
        seed: Of the bootstrap.

    Returns:
        n, a verdict in words, and per criterion `spearman` with its 95 % interval (None where
        one side has a single value), `mae`, and `mae_constant` of the baseline.
    """
    columns = {
        name: ([s[name] for s in read], [s[name] for s in written], constant[name])
        for name in CRITERIA
    }
    columns["mean"] = (
        [statistics.fmean(s[name] for name in CRITERIA) for s in read],
        [statistics.fmean(s[name] for name in CRITERIA) for s in written],
        statistics.fmean(constant.values()),
    )
    figures = {name: _agreement(*column, seed) for name, column in columns.items()}
    return {"n": len(read), "verdict": _verdict(figures["mean"], len(read)), "scores": figures}


def _agreement(
    read: Sequence[float], written: Sequence[float], constant: float, seed: int
) -> dict[str, Any]:
    a, b = np.asarray(read), np.asarray(written, dtype=float)
    rank = _spearman(a, b)
    interval = _interval(a, b, seed) if rank is not None else None
    return {
        "spearman": None if rank is None else round(rank, 3),
        "interval": interval and [round(bound, 3) for bound in interval],
        "mae": round(float(np.abs(a - b).mean()), 3),
        "mae_constant": round(float(np.abs(constant - b).mean()), 3),
        "spread_read": round(float(a.std()), 3),
        "spread_written": round(float(b.std()), 3),
    }


def _spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    rank = float(_rank_correlations(a[None], b[None])[0])
    return None if np.isnan(rank) else rank


def _interval(a: np.ndarray, b: np.ndarray, seed: int) -> Interval:
    """Return the 95 % percentile interval of the rank correlation, critiques drawn anew."""
    drawn = np.random.default_rng(seed).integers(len(a), size=(RESAMPLES, len(a)))
    low, high = np.nanquantile(_rank_correlations(a[drawn], b[drawn]), [0.025, 0.975])
    return Interval(float(low), float(high))


def _rank_correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return Spearman's coefficient of each row, shape (n,); NaN where a row has one value."""
    x, y = (rankdata(side, axis=1) - (side.shape[1] + 1) / 2 for side in (a, b))
    spread = np.sqrt((x * x).sum(1) * (y * y).sum(1))
    return np.where(spread > 0, (x * y).sum(1) / np.where(spread > 0, spread, 1.0), np.nan)


def _verdict(mean: Mapping[str, Any], n: int) -> str:
    few = f" (only {n} critiques: no firm ground)" if n < FEW else ""
    rank = mean["spearman"]
    share = mean["spread_read"] / max(mean["spread_written"], 1e-9)
    if rank is None or rank < WEAK or share < NARROW:
        return f"hardly discriminates: its scores spread {share:.0%} of the written ones{few}"
    if mean["interval"] is not None and mean["interval"][0] <= 0:
        return f"not shown to discriminate{few}"
    nearer = "nearer than" if mean["mae"] < mean["mae_constant"] else "no nearer than"
    return f"discriminates, and is {nearer} a constant answer{few}"


async def _read(model: str, items: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    from agents.engine import TransformersEngine
    from merging.build import resolve_model
    from ui.design import team_with

    team = team_with(load_team(), model)
    engine = TransformersEngine(resolve_model(model, lambda text: None), model)
    try:
        return await asyncio.gather(*(_scores(engine, team, item) for item in items))
    finally:
        await engine.close()


async def _scores(engine: Engine, team: Team, item: Mapping[str, Any]) -> dict[str, float]:
    """Return the expected scores of an item, asked as its training row was laid out."""
    fields = {
        "concept": item["concept"],
        "prompt": item["image_prompt"],
        "wanted": "nothing",
        "measured": "nothing",
    }
    return await expected_scores(_Weigher(engine), team.critique.messages(fields))


class _Weigher:
    """As much of a voice as scores need."""

    n_tokens = 0

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.weigh = engine.logprobs

    async def say(self, job: Any) -> Any:
        raise NotImplementedError("scores are weighed, nothing is said")

    def remark(self, text: str) -> None:
        """Nobody listens."""


if __name__ == "__main__":
    main()
