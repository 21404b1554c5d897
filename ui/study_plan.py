"""What a study would cost here, before it is run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from merging.sketch import Sample, open_sketch, read_sample
from training.evaluation import Scoring
from ui.study import Study, matrix
from ui.study_alone import ANSWERS, Alone
from ui.study_run import Tell, benches_of, open_all
from ui.sweep import LoglikBench

__all__ = ["Estimate", "estimate"]

_SAMPLE = 8
"""Questions that are timed."""


class Estimate(NamedTuple):
    """What a study would cost here."""

    n_models: int
    """Models and merges, without those that have the weights of another."""
    n_questions: int
    n_known: int
    """Sets of answers there are already: at most models x ways of scoring."""
    merging_s: float
    """Opening pairs included."""
    scoring_s: float


def estimate(
    study: Study, work: Path, *, batch: int = 16, on_note: Tell = lambda _: None
) -> Estimate:
    """Return what a study would cost here, from some tensors and a few questions timed.

    Of every model some tensors are read, which tell where SLERP is a straight line: there it is
    the LERP, and half of the merges need not be asked. One model is loaded as a whole and asked.

    Raises:
        UsageError, ModelError: as in `run`.
    """
    benches, parents = benches_of(study, batch), open_all(study, on_note)
    pairs, models = study.pairs(), [Alone(label, parents[label]) for label in study.alone()]
    n_models, n_known, seen = len(matrix(study)), 0, set[str]()
    opening_s = merged_s = 0.0
    for model in models:
        n_known += sum(model.kept(work, bench) is not None for bench in benches.values())
    paired = dict.fromkeys(label for pair in pairs for label in (pair.a, pair.b))
    samples: dict[str, Sample] = {}
    for label in paired:
        on_note(f"reading some weights of {label}")
        samples[label] = read_sample(parents[label])
    for pair in pairs:
        opened = {label: parents[label] for label in (pair.a, pair.b)}
        sketch = open_sketch(pair.variants, opened, samples)
        opening_s += sum(samples[label].seconds for label in opened) + sketch.measuring_s
        merged_s = max(merged_s, sketch.measuring_s)
        fresh = replace(sketch, matrix=tuple(v for v in pair.variants if v.name not in seen))
        made = fresh.made()
        seen |= {pair.a, pair.b}
        n_models -= len(made) - len({each.key for each in made})  # the same weights, asked once
        n_known += sum(fresh.known(bench, work / ANSWERS) for bench in benches.values())
    n_questions = len(next(iter(benches.values())).questions)
    left = 1 - n_known / (n_models * len(benches))
    question_s = 0.0
    if left:
        on_note(f"timing some questions with {study.first}")
        question_s = _question_s(benches, Alone(study.first, parents[study.first]).load)
    merging_s = opening_s + left * (n_models - len(study.models)) * merged_s * len(benches)
    scoring_s = left * n_models * n_questions * question_s
    return Estimate(n_models, n_questions, n_known, round(merging_s, 1), round(scoring_s, 1))


def _question_s(
    benches: Mapping[Scoring, LoglikBench], load: Callable[[LoglikBench], None]
) -> float:
    """Return how long a question takes in all ways of scoring, from a few of them."""
    spent = 0.0
    for bench in benches.values():
        few = bench.sample(_SAMPLE)
        load(few)
        begin = time.perf_counter()
        few.ask(lambda done: None)
        spent += (time.perf_counter() - begin) / len(few.questions)
    return spent
