"""Many merges of two models, each made in memory and scored, with the controls beside them.

    laboratory = open_laboratory(variants("base", "base+silk", ts, ["paper"]), parents)
    sweep = laboratory.run(bench, kept=Path("answers"))
    reading = read(sweep, seed=0)   # the best, chosen on one half, measured on the other

Models are told apart by what their weights are made of: t = 0 is the first parent, and where
every tensor of a SLERP is a straight line, it is the LERP; neither is scored twice. The benchmark
is handed in as a `Bench`, so that this package knows nothing of one.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from merging.compatibility import Finding, check
from merging.digests import sha256
from merging.findings import one_model
from merging.folder import refuse_faults
from merging.parent import Parent
from merging.plan import Step, plan
from merging.synergy import (
    Choice,
    Difference,
    Merge,
    Results,
    choose,
    compare,
    mean_difference,
)
from merging.variants import Variant, Way, alone
from orbweave.errors import Cancelled, ModelError
from orbweave.files import write_text
from orbweave.statistics import Interval

if TYPE_CHECKING:
    from merging.stream import Grams
    from merging.tensors import LoadedWeights

__all__ = [
    "Asked",
    "Bench",
    "Laboratory",
    "Reading",
    "Sweep",
    "check_scores",
    "hashes_of",
    "open_laboratory",
    "read",
    "read_scores",
    "weights_hash",
    "write_scores",
]

Scores = Mapping[str, Sequence[float]]
"""Question id -> score of each option; the highest is the answer."""
_SCHEMA = 1
"""Raised when kept answers mean something else."""
_CHUNK = 1 << 17
"""Elements subtracted at a time."""


class Asked(NamedTuple):
    """A question as far as merging need know it."""

    id: str
    """Unique over all benchmarks."""
    stratum: str
    """Kept even between the two halves, e.g. benchmark and domain."""
    answer: int
    """Place of the right option."""


class Bench(Protocol):
    """Asks a model the questions of benchmarks."""

    @property
    def questions(self) -> Sequence[Asked]:
        """What is asked."""

    @property
    def digest(self) -> str:
        """Hash of the questions and of how they are scored."""

    def load(self, tensors: Mapping[str, Any], like: Parent) -> None:
        """Take a model's weights, a torch tensor by name; they are not changed afterwards.

        Configuration and tokenizer are those of `like`.
        """

    def ask(self, on_progress: Callable[[int], None]) -> Scores:
        """Return how the model scores every option; tells how many questions are done."""


class Made(NamedTuple):
    """A variant worked out: what its weights are."""

    variant: Variant
    steps: list[Step]
    like: str
    """The parent whose configuration and tokenizer it has."""
    key: str
    """Hash of everything the scores depend on but the benchmark."""


class Answers(NamedTuple):
    """What one model made of the questions."""

    made: Made
    right: tuple[bool, ...]
    """In the order of the questions."""


@dataclass(frozen=True)
class Sweep:
    """Everything that was found."""

    parents: tuple[str, str]
    questions: tuple[Asked, ...]
    answers: tuple[Answers, ...]
    """Of every variant, parents first; equal models have equal answers."""
    distance: float
    """|b - a| over the root mean square of |a| and |b|, all weights as one vector."""
    n_known: int
    """Models whose answers were kept from before."""
    merging_s: float
    """Seconds spent measuring the parents and merging them ..."""
    loading_s: float
    """... loading the model, and putting weights into it ..."""
    scoring_s: float
    """... and asking questions."""

    @property
    def results(self) -> Results:
        """Who got what right."""
        return Results(
            tuple(each.made.variant.name for each in self.answers),
            tuple(question.id for question in self.questions),
            np.array([each.right for each in self.answers], dtype=bool),
        )

    @property
    def n_models(self) -> int:
        """How many different models there are, the parents included."""
        return len({each.made.key for each in self.answers})

    def merges(self) -> list[Merge]:
        """Return every different model that is no parent, each once, under its first name."""
        keys = {each.made.key for each in self.answers if each.made.variant.way == "parent"}
        ways: dict[str, set[Way]] = {}
        for each in self.answers:
            ways.setdefault(each.made.key, set()).add(each.made.variant.way)
        found = []
        for made in (each.made for each in self.answers):
            if made.key not in keys:
                keys.add(made.key)
                traits = {}
                if len(ways[made.key]) == 1:  # a SLERP that is the LERP says nothing of either
                    traits["slerp"] = float(made.variant.way == "slerp")
                if made.variant.t is not None:
                    traits["t"] = made.variant.t
                found.append(Merge(made.variant.name, self.parents, self.distance, traits))
        return found

    def pairs(self) -> list[tuple[Made, Made]]:
        """Return every LERP with the SLERP at the same place, but for the ends."""
        by_place: dict[tuple[str, float | None], dict[Way, Made]] = {}
        for made in (each.made for each in self.answers):
            if made.variant.way != "parent" and made.variant.t not in {0.0, 1.0}:
                by_place.setdefault(made.variant.place, {})[made.variant.way] = made
        return [(ways["lerp"], ways["slerp"]) for ways in by_place.values() if len(ways) == 2]

    def twin(self, name: str) -> str:
        """Return the first variant that has the same weights; often the name itself."""
        keys = {each.made.variant.name: each.made.key for each in self.answers}
        return next(other for other, key in keys.items() if key == keys[name])


class Reading(NamedTuple):
    """What a sweep says, measured on the reporting half of the questions."""

    choice: Choice | None
    """None where there is no merge beside the parents."""
    controls: dict[str, Difference]
    """SLERP variant -> its gain over LERP at the same place; absent where they are one model."""
    arc: tuple[float, Interval] | None
    """Mean of these gains with its interval; None where there is none."""


def open_laboratory(
    matrix: Sequence[Variant],
    parents: Mapping[str, Parent],
    on_progress: Callable[[str], None] = lambda _: None,
) -> Laboratory:
    """Check that everything can be merged, then load both parents and measure their angles.

    Args:
        matrix: See `merging.variants.variants`; holds at least one merge.
        parents: By their names there, see `merging.build.open_parents`.
        on_progress: Is told, in a sentence, what is going on.

    Raises:
        UsageError: the parents do not fit together, or a profile is longer than they are deep;
            tells of every fault.
        ModelError: weights are damaged.
    """
    from merging.geometry import geometry_of
    from merging.stream import merge_into_memory
    from merging.tensors import LoadedWeights, open_weights

    recipes = {(v.way, v.profile): v.recipe for v in matrix if v.way != "parent"}
    findings = list(dict.fromkeys(f for r in recipes.values() for f in check(r, parents)))
    refuse_faults(findings)
    tensors, hashes = {}, {}
    for name, parent in parents.items():
        on_progress(f"loading {name}")
        steps = plan(alone(name), {name: parent})
        tensors[name] = merge_into_memory(steps, {name: open_weights(parent)})
        hashes[name] = hashes_of(parent)
    weights = {name: LoadedWeights(loaded) for name, loaded in tensors.items()}
    grams: Grams = {}
    merge = next(variant for variant in matrix if variant.way != "parent")
    steps = plan(merge.recipe, parents)
    begin = time.perf_counter()
    merge_into_memory(steps, weights, grams=grams)
    measuring_s = time.perf_counter() - begin
    if geometry_of(steps, grams).is_one_model:
        findings.append(one_model(parents))
    return Laboratory(
        tuple(matrix), dict(parents), findings, tensors, weights, hashes, grams, measuring_s
    )


class _Hashes(NamedTuple):
    weights: str
    manner: str
    """Of configuration and tokenizer."""


@dataclass(frozen=True)
class Laboratory:
    """Both parents in memory, and the inner products from which any merge follows at once."""

    matrix: tuple[Variant, ...]
    parents: dict[str, Parent]
    findings: list[Finding]
    """What was noted about the parents."""
    tensors: dict[str, dict[str, Any]] = field(repr=False)
    """Parent -> its weights, torch tensors by name."""
    weights: dict[str, LoadedWeights] = field(repr=False)
    """The same as the merge reads them."""
    hashes: dict[str, _Hashes] = field(repr=False)
    grams: Grams = field(repr=False)
    measuring_s: float
    """Seconds the inner products took."""
    is_sketch: bool = False
    """Whether only a sample of the tensors is here, see `merging.sketch`: what the others are
    made of is taken for a straight line."""

    def weights_of(self, made: Made) -> dict[str, Any]:
        """Return the weights of a variant, torch tensors by name; those of a parent are its own.

        Raises:
            ModelError: a weight is not finite.
        """
        from merging.stream import merge_into_memory

        if made.variant.way == "parent":
            return self.tensors[made.variant.name]
        return merge_into_memory(made.steps, self.weights, grams=self.grams)

    def made(self) -> list[Made]:
        """Return every variant with what its weights are made of."""
        found = []
        for variant in self.matrix:
            steps = plan(variant.recipe, self.parents)
            like = variant.recipe.inputs[0].model
            found.append(Made(variant, steps, like, self._key(steps, like)))
        return found

    def distance(self) -> float:
        """Return |b - a| over the root mean square of |a| and |b|."""
        a, b = (self.tensors[v.name] for v in self.matrix if v.way == "parent")
        # Not from the inner products: where a and b are close, little would be left of them.
        apart = sum(_square_apart(a[name], b[name]) for name in self.grams)
        lengths = sum(gram.diagonal().sum().item() for gram in self.grams.values())
        return math.sqrt(2 * apart / lengths) if lengths else 0.0

    def run(
        self,
        bench: Bench,
        *,
        kept: Path | None = None,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> Sweep:
        """Score every different model of the matrix once.

        Args:
            bench: Asks the questions.
            kept: Folder of answers: those in it are taken, new ones are written as they come,
                so that a sweep that was stopped continues.
            on_progress: Is told (questions done, questions in all), over the models that are
                not known yet.
            is_cancelled: Is asked before every model.

        Raises:
            ModelError: the bench cannot take a model's weights, or they give NaN for a score.
            OutputError: an answer cannot be written.
            Cancelled: `is_cancelled` said so; answers so far are kept.
        """
        made = self.made()
        different = {each.key: each for each in reversed(made)}  # the first of equal models stays
        different = {each.key: different[each.key] for each in made}
        found = {key: _kept(kept, key, bench) for key in different}
        waiting = [different[key] for key, scores in found.items() if scores is None]
        n_known, total = len(different) - len(waiting), len(waiting) * len(bench.questions)
        seconds = [self.measuring_s, 0.0, 0.0]
        for number, each in enumerate(waiting):
            if is_cancelled():
                raise Cancelled("the sweep was stopped; what was answered so far is kept")
            before = number * len(bench.questions)
            times = [time.perf_counter()]
            tensors = self.weights_of(each)
            times.append(time.perf_counter())
            bench.load(tensors, self.parents[each.like])
            times.append(time.perf_counter())
            scores = bench.ask(lambda n, before=before: on_progress(before + n, total))  # type: ignore[misc]
            times.append(time.perf_counter())
            check_scores(scores, each.variant.name)
            seconds = [
                s + end - begin
                for s, begin, end in zip(seconds, times[:-1], times[1:], strict=True)
            ]
            found[each.key] = scores
            if kept is not None:
                write_scores(_file(kept, each.key, bench), each.variant.name, scores)
        answers = [Answers(each, _right(found[each.key] or {}, bench)) for each in made]
        first, second = (variant.name for variant in self.matrix if variant.way == "parent")
        return Sweep(
            parents=(first, second),
            questions=tuple(bench.questions),
            answers=tuple(answers),
            distance=self.distance(),
            n_known=n_known,
            merging_s=seconds[0],
            loading_s=seconds[1],
            scoring_s=seconds[2],
        )

    def known(self, bench: Bench, kept: Path | None) -> int:
        """Return how many different models have been answered for already.

        A sketch does not know the arcs; each counts as known with the LERP, asked right after it.
        """
        made = self.made()
        keys = {each.key: each.key for each in made}
        if self.is_sketch:
            lines = {e.variant.place: e.key for e in made if e.variant.way == "lerp"}
            keys |= {e.key: lines[e.variant.place] for e in made if e.variant.way == "slerp"}
        return sum(_kept(kept, key, bench) is not None for key in keys.values())

    def _key(self, steps: Sequence[Step], like: str) -> str:
        """Return the hash of what every tensor is a sum of, and of how the model is used."""
        from merging.stream import weights_of

        lines = [self.hashes[like].manner]
        for step in steps:
            # A copy takes the first source; others hold the same, or the merge would refuse.
            shares: Sequence[float] = (1.0,) if step.way == "copy" else step.shares
            if step.name in self.grams:
                shares = weights_of(step, self.grams[step.name])
            # Twelve digits: 1 - 0.3 and 0.7 are the same weight.
            terms = [
                f"{share:.12g} {self.hashes[source.parent].weights} {source.tensor}"
                for source, share in zip(step.sources, shares, strict=step.way != "copy")
                if share
            ]
            lines.append(f"{step.name} {step.info.dtype} {step.rounded_to} {' '.join(terms)}")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def hashes_of(parent: Parent) -> _Hashes:
    """Return what a model is told by."""
    return _Hashes(weights_hash(parent), _manner_hash(parent))


def weights_hash(parent: Parent) -> str:
    """Return one hash of a model's weights, adapters included."""
    files = [*sorted(set(parent.files.values())), *(a.weights for a in parent.adapters)]
    settings = [f"{a.alpha} {a.rank_stabilised} {a.dora}" for a in parent.adapters]
    lines = [*map(sha256, files), *settings]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def read(sweep: Sweep, *, seed: int = 0) -> Reading:
    """Return the best merge, chosen on one half of the questions, and SLERP against LERP.

    Every number is of the reporting half, which the choice has not seen.

    Args:
        sweep: What was found.
        seed: Of the split into halves and of all intervals.

    Raises:
        UsageError: there are too few questions to split.
    """
    merges, results = sweep.merges(), sweep.results
    if not merges:
        return Reading(None, {}, None)
    choice = choose(results, merges, [q.stratum for q in sweep.questions], seed=seed)
    reported = results.take(choice.reporting)
    pairs = [
        (line.variant.name, arc.variant.name) for line, arc in sweep.pairs() if line.key != arc.key
    ]
    controls = {arc: compare(reported, line, arc, seed=seed) for line, arc in pairs}
    return Reading(choice, controls, mean_difference(reported, pairs, seed=seed) if pairs else None)


def _square_apart(a: Any, b: Any) -> float:
    """Return the squared distance of two tensors, summed chunk by chunk."""
    pairs = zip(a.reshape(-1).split(_CHUNK), b.reshape(-1).split(_CHUNK), strict=True)
    return float(sum((y.float() - x.float()).square().sum().item() for x, y in pairs))


def _manner_hash(parent: Parent) -> str:
    """Return the hash of everything beside the weights that decides what a model answers."""
    lines = [json.dumps(parent.config, sort_keys=True)]
    folder = parent.tokenizer_folder or parent.folder  # vocab.json alone is a tokenizer, too
    for pattern in ("token*.*", "special_tokens_map.json", "chat_template.*", "vocab.json"):
        files = sorted(folder.glob(pattern))
        lines += [f"{file.name} {sha256(file)}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def check_scores(scores: Scores, name: str) -> None:
    """Refuse NaN: the first option would count as the answer, right as often as by guessing.

    Raises:
        ModelError: the model called `name` gave NaN.
    """
    for question, options in scores.items():
        if any(math.isnan(value) for value in options):
            raise ModelError(
                f"wanted a score for every option of {question}, {name} gave NaN; its numbers "
                "overflow on the way, so leave this model out"
            )


def write_scores(path: Path, name: str, scores: Scores) -> None:
    """Keep how the model called `name` scores every option."""
    content = {"schema_version": _SCHEMA, "model": name, "scores": dict(scores)}
    write_text(path, json.dumps(content) + "\n")


def read_scores(path: Path, bench: Bench) -> Scores | None:
    """Return the scores of an earlier run; None if there are none that are whole."""
    try:
        scores = json.loads(path.read_bytes())["scores"]
        found = {q.id: [float(value) for value in scores[q.id]] for q in bench.questions}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    fits = all(q.answer < len(found[q.id]) for q in bench.questions)
    is_whole = not any(math.isnan(value) for options in found.values() for value in options)
    return found if fits and is_whole else None


def _right(scores: Scores, bench: Bench) -> tuple[bool, ...]:
    by_question = ((scores[question.id], question.answer) for question in bench.questions)
    return tuple(
        max(range(len(options)), key=options.__getitem__) == answer
        for options, answer in by_question
    )


# ---------------------------------------------------------------- answers that are kept


def _file(kept: Path, key: str, bench: Bench) -> Path:
    text = f"{_SCHEMA} {key} {bench.digest}"
    return kept / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def _kept(kept: Path | None, key: str, bench: Bench) -> Scores | None:
    return None if kept is None else read_scores(_file(kept, key, bench), bench)
