"""Scores a study: every model and every merge, made in memory, each answer kept as it comes.

Models are told apart by what their weights are made of, so a second run, of this study or of
another one with the same work folder, asks only what it does not know yet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from merging.build import open_models
from merging.compatibility import check
from merging.folder import refuse_faults
from merging.parent import Parent
from merging.sweep import Asked, Bench, Scores, Sweep, open_laboratory, weights_hash
from merging.synergy import Merge, Results
from merging.variants import Way
from training.benchmark import Benchmark, load_benchmark
from training.evaluation import Scoring
from ui.study import Pair, Study, named
from ui.study_alone import ANSWERS, Alone
from ui.sweep import LoglikBench

if TYPE_CHECKING:
    from merging.geometry import Geometry

__all__ = ["Found", "ReplyBench", "Scored", "Tell", "benches_of", "open_all", "run"]

Tell = Callable[[str], None]
_UNPARSABLE = 0.5
"""Score of a wrong option where a reply could not be read: it counts as wrong, never as right."""


class ReplyBench(LoglikBench):
    """Asks for a one-word reply; the option it means scores 1, the others 0."""

    def __init__(self, benchmarks: Sequence[Benchmark], batch: int = 16) -> None:
        super().__init__(benchmarks, batch)
        self.digest = hashlib.sha256(f"reply\n{self.digest}".encode()).hexdigest()

    def sample(self, n: int) -> ReplyBench:
        """Return a bench of at most n of the questions, spread evenly, to time them."""
        return ReplyBench(super().sample(n).benchmarks, self.batch)

    def ask(self, on_progress: Callable[[int], None]) -> Scores:
        """Return 1 for the option a reply means and 0 for the others."""
        from training.reply import read_reply
        from training.scoring import replies

        found: dict[str, Sequence[float]] = {}
        starts = accumulate((len(b.questions) for b in self.benchmarks), initial=0)
        for benchmark, before in zip(self.benchmarks, starts, strict=False):
            texts = replies(
                self._model,
                self._tokenizer,
                benchmark.questions,
                self.batch,
                lambda done, _, before=before: on_progress(before + done),  # type: ignore[misc]
            )
            for question, text in zip(benchmark.questions, texts, strict=True):
                row = [0.0] * len(question.options)
                meant = read_reply(text, question)
                if meant is None:
                    row[question.answer - 1] = _UNPARSABLE
                else:
                    row[meant] = 1.0
                found[f"{benchmark.name}/{question.id}"] = row
        return found


class Scored(NamedTuple):
    """One model or merge of a study."""

    name: str
    pair: str
    """Empty for a model as it is."""
    way: Way
    profile: str
    t: float | None
    made_from: str
    """A model's reference, or the merge recipe as YAML."""
    same_as: str
    """The first that has the same weights; often its own name."""


@dataclass(frozen=True, eq=False)
class Found:
    """Everything a study found."""

    study: Study
    questions: tuple[Asked, ...]
    options: tuple[int, ...]
    """How many each question has: guessing gets one of so many right."""
    scored: tuple[Scored, ...]
    """Models first, then merges by pair."""
    results: dict[Scoring, Results]
    """Who got what right; equal models have equal rows."""
    merges: tuple[Merge, ...]
    """Every different merge once."""
    controls: tuple[tuple[str, str], ...]
    """LERP and SLERP at the same place, where they are two models."""
    geometries: dict[str, Geometry]
    """Pair -> how its models lie to each other."""
    hashes: dict[str, str]
    """Label -> hash of the model's weights, adapters included."""
    n_known: int
    """Sets of answers, one a model and way of scoring, that were kept from before ..."""
    n_sets: int
    """... and how many there are in all."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Spent on merging, loading and scoring."""


def benches_of(study: Study, batch: int = 16) -> dict[Scoring, LoglikBench]:
    """Return what asks the questions, one for each way of scoring."""
    benchmarks = [load_benchmark(name) for name in study.asked]
    kinds: dict[Scoring, type[LoglikBench]] = {"loglik": LoglikBench, "reply": ReplyBench}
    return {scoring: kinds[scoring](benchmarks, batch) for scoring in study.scorings}


def open_all(study: Study, on_note: Tell = lambda _: None) -> dict[str, Parent]:
    """Read the headers of every model and check every merge, before any weight is read.

    Returns:
        The models by their labels.

    Raises:
        UsageError, ModelError: models are missing, damaged or do not fit together; tells of all.
    """
    refs = {label: one.model for label, one in study.models.items()}
    opened = open_models(list(dict.fromkeys(refs.values())), on_note)
    parents = {label: replace(opened[ref], name=label) for label, ref in refs.items()}
    refuse_faults(
        list(
            dict.fromkeys(
                finding
                for pair in study.pairs()
                for variant in pair.variants
                if variant.way != "parent"
                for finding in check(variant.recipe, parents)
            )
        )
    )
    return parents


def run(
    study: Study,
    work: Path,
    *,
    batch: int = 16,
    on_note: Tell = lambda _: None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Found:
    """Score everything that is not known yet, and measure the geometry of every pair.

    Args:
        study: What to score.
        work: Folder that answers are kept in as they come; made if need be.
        batch: Questions at a time.
        on_note: Is told, in a sentence, what a long step is doing.
        on_progress: Is told (questions done, questions in all), those known before included.

    Raises:
        UsageError, ModelError: models are missing or damaged, or do not fit together.
        OutputError: an answer cannot be written.
    """
    benches, parents = benches_of(study, batch), open_all(study, on_note)
    n_asked = sum(len(bench.questions) for bench in benches.values())
    tally = _Tally(on_progress, _n_models(study), n_asked)
    collected = _Run(study, work, benches, parents, tally, on_note)
    for label in study.alone():
        collected.score_alone(label)
    for pair in study.pairs():
        collected.score_pair(pair)
    return collected.found()


@dataclass
class _Run:
    """What was scored so far."""

    study: Study
    work: Path
    benches: Mapping[Scoring, LoglikBench]
    parents: Mapping[str, Parent]
    tally: _Tally
    on_note: Tell
    rows: dict[Scoring, dict[str, tuple[bool, ...]]] = field(default_factory=dict)
    merged: list[Scored] = field(default_factory=list)
    merges: list[Merge] = field(default_factory=list)
    controls: list[tuple[str, str]] = field(default_factory=list)
    geometries: dict[str, Geometry] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    sets: set[tuple[Scoring, str]] = field(default_factory=set)
    """Way of scoring and key of the model, of all there are answers for."""
    n_new: int = 0
    seconds: dict[str, float] = field(
        default_factory=lambda: {"merging": 0.0, "loading": 0.0, "scoring": 0.0}
    )

    def score_alone(self, label: str) -> None:
        """Score a model that no merge is made of."""
        model = Alone(label, self.parents[label])
        self.hashes[label] = weights_hash(self.parents[label])
        for scoring, bench in self.benches.items():
            scores = model.kept(self.work, bench)
            if scores is None:
                self.on_note(f"loading {label}")
                scores = model.ask(self.work, bench, self.tally.within_one())
                self.n_new += 1
            self.sets.add((scoring, label))
            self.rows.setdefault(scoring, {})[label] = _right(scores, bench)
            self.tally.add(1, len(bench.questions))

    def score_pair(self, pair: Pair) -> None:
        """Score two models and all their merges; the parents are asked once in all."""
        self.on_note(f"pair {pair.name}")
        opened = {label: self.parents[label] for label in (pair.a, pair.b)}
        laboratory = open_laboratory(pair.variants, opened, self.on_note)
        self.hashes |= {label: found.weights for label, found in laboratory.hashes.items()}
        for scoring, bench in self.benches.items():
            sweep = laboratory.run(
                bench, kept=self.work / ANSWERS, on_progress=self.tally.within_one()
            )
            self.tally.add(len(pair.variants), len(bench.questions))
            rows = self.rows.setdefault(scoring, {})
            rows |= {named(pair, each.made.variant.name): each.right for each in sweep.answers}
            self.sets |= {(scoring, each.made.key) for each in sweep.answers}
            self.n_new += sweep.n_models - sweep.n_known
            self.seconds["merging"] += sweep.merging_s
            self.seconds["loading"] += sweep.loading_s
            self.seconds["scoring"] += sweep.scoring_s
        self._note_merges(pair, sweep)
        self.geometries[pair.name] = _geometry(pair, self.parents, self.study.first)

    def _note_merges(self, pair: Pair, sweep: Sweep) -> None:
        """Note what was merged; who is equal to whom is the same for every way of scoring."""
        refs = {label: self.study.models[label].model for label in (pair.a, pair.b)}
        self.merged += [
            Scored(
                name=named(pair, variant.name),
                pair=pair.name,
                way=variant.way,
                profile=variant.profile,
                t=variant.t,
                made_from=variant.recipe.renamed(refs).to_yaml(),
                same_as=named(pair, sweep.twin(variant.name)),
            )
            for variant in pair.variants
            if variant.way != "parent"
        ]
        self.merges += [_in_study(self.study, pair, merge) for merge in sweep.merges()]
        self.controls += [
            (named(pair, line.variant.name), named(pair, arc.variant.name))
            for line, arc in sweep.pairs()
            if line.key != arc.key
        ]

    def found(self) -> Found:
        """Return all of it."""
        models = (
            Scored(label, "", "parent", "", None, one.model, label)
            for label, one in self.study.models.items()
        )
        scored = (*models, *self.merged)
        merges = [*self.merges, *_merged_elsewhere(self.study, self.merges)]
        bench = next(iter(self.benches.values()))
        questions = tuple(bench.questions)
        names, ids = tuple(each.name for each in scored), tuple(q.id for q in questions)
        return Found(
            study=self.study,
            questions=questions,
            options=tuple(len(q.options) for each in bench.benchmarks for q in each.questions),
            scored=scored,
            results={
                scoring: Results(names, ids, np.array([rows[name] for name in names], dtype=bool))
                for scoring, rows in self.rows.items()
            },
            merges=tuple(_with_common_traits(merges)),
            controls=tuple(self.controls),
            geometries=self.geometries,
            hashes=self.hashes,
            n_known=len(self.sets) - self.n_new,
            n_sets=len(self.sets),
            seconds={what: round(value, 1) for what, value in self.seconds.items()},
        )


def _n_models(study: Study) -> int:
    """Return how many models are gone through; a parent of several pairs comes with each."""
    return len(study.alone()) + sum(len(pair.variants) for pair in study.pairs())


def _right(scores: Scores, bench: Bench) -> tuple[bool, ...]:
    by_question = ((scores[question.id], question.answer) for question in bench.questions)
    return tuple(
        max(range(len(options)), key=options.__getitem__) == answer
        for options, answer in by_question
    )


# ---------------------------------------------------------------- merges in the study


def _in_study(study: Study, pair: Pair, merge: Merge) -> Merge:
    """Return a merge under its name in the study, with the stages of its parents as traits."""
    traits = {**merge.traits, **_traits(study, (pair.a, pair.b))}
    return merge._replace(name=named(pair, merge.name), traits=traits)


def _merged_elsewhere(study: Study, merges: Sequence[Merge]) -> list[Merge]:
    """Return the models that say what they were merged from."""
    distances = {frozenset(merge.parents): merge.distance for merge in merges}
    return [
        Merge(
            label,
            one.merged_from,
            distances.get(frozenset(one.merged_from)),
            {"slerp": 0.0, **_traits(study, one.merged_from)},
        )
        for label, one in study.models.items()
        if one.merged_from
    ]


def _traits(study: Study, parents: Sequence[str]) -> dict[str, float]:
    """Return for every stage of the study what share of these models went through it."""
    stages = [_stages(study.models[label].strategy) for label in parents]
    known = dict.fromkeys(stage for one in study.models.values() for stage in _stages(one.strategy))
    return {stage: sum(stage in own for own in stages) / len(stages) for stage in known}


def _stages(strategy: str) -> list[str]:
    """Return the words of a strategy: `Instruct-CPT-SFT` has the stages instruct, cpt and sft."""
    return [word for word in strategy.lower().split("-") if word]


def _with_common_traits(merges: Sequence[Merge]) -> list[Merge]:
    """Return merges with the traits that all of them have: a depth profile has no one t."""
    shared = set.intersection(*(set(merge.traits) for merge in merges)) if merges else set()
    return [
        merge._replace(traits={k: v for k, v in merge.traits.items() if k in shared})
        for merge in merges
    ]


def _geometry(pair: Pair, parents: Mapping[str, Parent], first: str) -> Geometry:
    """Return how a pair's models lie, seen from the baseline where that is a third like them."""
    from merging.geometry import compare

    a, b, base = (parents[label] for label in (pair.a, pair.b, first))
    is_third = first not in {pair.a, pair.b} and all(
        name in base.tensors and base.tensors[name].shape == info.shape
        for name, info in a.tensors.items()
    )
    return compare(a, b, base if is_third else None)


@dataclass
class _Tally:
    """One count of questions over models that are scored one after the other."""

    on_progress: Callable[[int, int], None]
    n_models: int
    n_asked: int
    """Questions a model is asked, over all scorings."""
    done: int = 0

    def within_one(self) -> Callable[[int, int], None]:
        """Return a callback for the questions of what comes next."""
        return lambda done, _: self.on_progress(self.done + done, self.n_models * self.n_asked)

    def add(self, n_models: int, n_questions: int) -> None:
        """Count models as done."""
        self.done += n_models * n_questions
        self.on_progress(self.done, self.n_models * self.n_asked)
