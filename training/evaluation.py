"""Several models on several benchmarks: what each answered, and the tables that follow from it.

An `Evaluation` keeps every answer, so that every table, interval and chart can be made again
from its JSON alone. Sets other than `general` count in the two overall accuracies, named
`pooled` and `mean of sets`; `general` and plain text measure what was forgotten.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from orbweave.errors import ModelError, UsageError
from orbweave.records import Record
from orbweave.statistics import (
    mcnemar,
    mean_of_sets,
    mean_of_sets_interval,
    paired_bootstrap,
    pooled,
    relative_gain,
    wilson,
)
from orbweave.weights import hash_weights
from training.benchmark import GENERAL, GENERAL_TEXT, Benchmark, Question, Text
from training.reply import read_reply

__all__ = [
    "MEAN",
    "POOLED",
    "SCORINGS",
    "Accuracy",
    "Answered",
    "Asked",
    "Comparison",
    "Evaluation",
    "ModelResult",
    "Retention",
    "Scoring",
    "TextResult",
    "accuracies",
    "comparisons",
    "document",
    "evaluate",
    "retention",
]

Scoring = Literal["loglik", "reply"]
SCORINGS: tuple[Scoring, ...] = ("loglik", "reply")
Group = Literal["overall", "set", "domain", "type", "category"]
POOLED = "pooled"
"""Name of the overall accuracy over all questions of all sets but `general`."""
MEAN = "mean of sets"
"""Name of the overall accuracy that is the mean of those sets' accuracies."""
_SEED = 0
"""Of the bootstrap: the same answers give the same intervals."""


class Asked(Record):
    """One benchmark as it was asked."""

    name: str
    n: int
    sha256: str
    """Of its questions, so that two evaluations can be known to have asked the same."""


class Answered(Record):
    """What a model made of one question."""

    benchmark: str
    id: str
    domain: str
    type: str
    category: str
    answer: int
    """Index of the right option."""
    loglik: tuple[float, ...] | None = None
    """Log-probability of each option in nats per character; None if not scored so."""
    reply: str | None = None
    """The reply as it came; None if not scored so."""
    replied: int | None = None
    """The option it means; None where it is unparsable."""

    def chosen(self, scoring: Scoring) -> int | None:
        """Return the option that counts as the model's answer; None if unparsable."""
        if scoring == "reply":
            return self.replied
        assert self.loglik is not None
        return max(range(len(self.loglik)), key=self.loglik.__getitem__)

    def is_right(self, scoring: Scoring) -> bool:
        """Whether that option is the right one."""
        return self.chosen(scoring) == self.answer


class TextResult(Record):
    """Perplexity on one set of texts."""

    name: str
    per_token: float
    per_char: float
    n_tokens: int
    n_chars: int


class ModelResult(Record):
    """Everything one model did; answers in the order of the benchmarks."""

    model: str
    weights_sha256: str
    answers: tuple[Answered, ...]
    texts: tuple[TextResult, ...] = ()


class Evaluation(Record):
    """Everything several models did; `evaluation.json` holds this."""

    schema_version: Literal[1] = 1
    scorings: tuple[Scoring, ...]
    benchmarks: tuple[Asked, ...]
    models: tuple[ModelResult, ...]
    """The first is what the others are compared with."""


class Accuracy(Record):
    """One cell of the table: a model on a group of questions."""

    model: str
    scoring: Scoring
    group: Group
    name: str
    n: int
    accuracy: float
    """Share of right answers, in [0, 1]; an unparsable reply is not right."""
    low: float
    high: float
    """95 % interval: Wilson, for `mean of sets` put together from the sets'."""
    unparsable: int


class Comparison(Record):
    """A model against the first one on a group of questions."""

    model: str
    baseline: str
    scoring: Scoring
    group: Group
    name: str
    gain: float
    """Difference of the accuracies, in [-1, 1]."""
    low: float
    high: float
    """95 % interval of the gain: paired bootstrap."""
    relative_gain: float | None
    """Gain over the first model's accuracy; None where that is 0."""
    only_first: int
    only_second: int
    """Questions that only one of the two got right."""
    p_value: float
    """McNemar's exact test on these two counts."""


class Retention(Record):
    """What a model kept of its general abilities, against the first one."""

    model: str
    scoring: Scoring
    accuracy: float
    """On the set `general`."""
    gain: float
    """Negative where something was forgotten."""
    low: float
    high: float
    perplexity_change: float | None
    """Relative change of the per-character perplexity on `general-text`; positive is worse."""


def evaluate(
    models: Sequence[tuple[str, Path]],
    benchmarks: Sequence[Benchmark],
    texts: Mapping[str, Sequence[Text]],
    *,
    scorings: Sequence[Scoring] = ("loglik",),
    batch: int = 16,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Ask every model every question and let it read every text; one model in memory at a time.

    Args:
        models: Name and plain Hugging Face folder of each; the first is the baseline.
        benchmarks: What to ask; each is scored by itself, so that its numbers do not depend
            on which others are asked.
        texts: Sets of plain text by name, for perplexity.
        scorings: By likelihood, by reply, or both.
        batch: Questions at a time.
        on_progress: Is told (items done, items in all), over all models.

    Raises:
        UsageError: nothing to evaluate, or a name occurs twice.
        ModelError: a model cannot be loaded, or gives NaN for a score.
    """
    _check_names("model", [name for name, _ in models])
    _check_names("benchmark", [benchmark.name for benchmark in benchmarks])
    if not scorings:
        raise UsageError(f"wanted at least one scoring of {', '.join(SCORINGS)}, got none")
    per_model = sum(len(b.questions) for b in benchmarks) * len(scorings)
    per_model += sum(len(rows) for rows in texts.values())
    results = []
    for number, (name, folder) in enumerate(models):
        before = number * per_model

        def on_item(done: int, before: int = before) -> None:
            on_progress(before + done, len(models) * per_model)

        results.append(_one_model(name, folder, benchmarks, texts, scorings, batch, on_item))
    return Evaluation(
        scorings=tuple(scorings),
        benchmarks=tuple(
            Asked(name=b.name, n=len(b.questions), sha256=_digest(b.questions)) for b in benchmarks
        ),
        models=tuple(results),
    )


def _one_model(
    name: str,
    folder: Path,
    benchmarks: Sequence[Benchmark],
    texts: Mapping[str, Sequence[Text]],
    scorings: Sequence[Scoring],
    batch: int,
    on_item: Callable[[int], None],
) -> ModelResult:
    from training.scoring import load_model, loglik_scores, perplexity, replies

    model, tokenizer = load_model(folder)
    done = 0
    answers: list[Answered] = []
    for benchmark in benchmarks:
        questions = benchmark.questions
        columns: dict[str, list[Any]] = {}
        for scoring in scorings:
            score: Callable[..., Any] = loglik_scores if scoring == "loglik" else replies
            columns[scoring] = score(
                model, tokenizer, questions, batch, lambda n, _, before=done: on_item(before + n)
            )
            done += len(questions)
        for i, question in enumerate(questions):
            scored = {k: v[i] for k, v in columns.items()}
            if any(math.isnan(value) for value in scored.get("loglik", ())):
                raise ModelError(
                    f"wanted a score for every option of {question.id}, {name} gave NaN; its "
                    "weights are damaged or overflow on the way, so leave this model out"
                )
            answers.append(_answered(benchmark.name, question, scored))
    read = []
    for text_name, rows in texts.items():
        found = perplexity(model, tokenizer, [row.text for row in rows])
        done += len(rows)
        on_item(done)
        read.append(TextResult(name=text_name, **found._asdict()))
    return ModelResult(
        model=name,
        weights_sha256=hash_weights(folder),
        answers=tuple(answers),
        texts=tuple(read),
    )


def _answered(benchmark: str, question: Question, found: Mapping[str, Any]) -> Answered:
    reply = found.get("reply")
    loglik = found.get("loglik")
    return Answered(
        benchmark=benchmark,
        **question.model_dump(include={"id", "domain", "type", "category", "answer"}),
        loglik=None if loglik is None else tuple(round(value, 6) for value in loglik),
        reply=reply,
        replied=None if reply is None else read_reply(reply, question),
    )


def accuracies(evaluation: Evaluation) -> list[Accuracy]:
    """Return the whole table: every model, scoring and group, in the order they are read."""
    rows = []
    for scoring in evaluation.scorings:
        for part in _parts(evaluation):
            for result in evaluation.models:
                sets = [[result.answers[i] for i in places] for places in part.sets]
                counts = [(sum(a.is_right(scoring) for a in of), len(of)) for of in sets]
                if part.name == MEAN and part.group == "overall":
                    value, bounds = mean_of_sets(counts), mean_of_sets_interval(counts)
                else:
                    right, n = (sum(column) for column in zip(*counts, strict=True))
                    value, bounds = pooled(counts), wilson(right, n)
                rows.append(
                    Accuracy(
                        model=result.model,
                        scoring=scoring,
                        group=part.group,
                        name=part.name,
                        n=sum(n for _, n in counts),
                        accuracy=value,
                        low=bounds.low,
                        high=bounds.high,
                        unparsable=sum(a.chosen(scoring) is None for of in sets for a in of),
                    )
                )
    return rows


def comparisons(evaluation: Evaluation) -> list[Comparison]:
    """Return every model but the first against the first, for every scoring and group."""
    found = {(a.model, a.scoring, a.group, a.name): a.accuracy for a in accuracies(evaluation)}
    first, *others = evaluation.models
    rows = []
    for scoring in evaluation.scorings:
        for part in _parts(evaluation):
            for other in others:
                gains = [
                    [
                        other.answers[i].is_right(scoring) - first.answers[i].is_right(scoring)
                        for i in places
                    ]
                    for places in part.sets
                ]
                lost, won = (sum(of.count(value) for of in gains) for value in (-1, 1))
                bounds = paired_bootstrap(gains, seed=_SEED)
                before = found[first.model, scoring, part.group, part.name]
                after = found[other.model, scoring, part.group, part.name]
                rows.append(
                    Comparison(
                        model=other.model,
                        baseline=first.model,
                        scoring=scoring,
                        group=part.group,
                        name=part.name,
                        gain=after - before,
                        low=bounds.low,
                        high=bounds.high,
                        relative_gain=relative_gain(before, after),
                        only_first=lost,
                        only_second=won,
                        p_value=mcnemar(lost, won),
                    )
                )
    return rows


def retention(evaluation: Evaluation) -> list[Retention]:
    """Return what each model but the first kept; empty where `general` was not asked."""
    table = {(a.model, a.scoring, a.group, a.name): a.accuracy for a in accuracies(evaluation)}
    read = {
        result.model: text.per_char
        for result in evaluation.models
        for text in result.texts
        if text.name == GENERAL_TEXT
    }
    return [
        Retention(
            model=c.model,
            scoring=c.scoring,
            accuracy=table[c.model, c.scoring, "set", GENERAL],
            gain=c.gain,
            low=c.low,
            high=c.high,
            perplexity_change=read[c.model] / read[c.baseline] - 1 if read else None,
        )
        for c in comparisons(evaluation)
        if (c.group, c.name) == ("set", GENERAL)
    ]


def document(evaluation: Evaluation) -> dict[str, Any]:
    """Return the evaluation and all its tables as JSON values."""
    tables: dict[str, Sequence[Record]] = {
        "accuracies": accuracies(evaluation),
        "comparisons": comparisons(evaluation),
        "retention": retention(evaluation),
    }
    return {
        **{name: [row.model_dump(mode="json") for row in rows] for name, rows in tables.items()},
        "evaluation": evaluation.model_dump(mode="json"),
    }


class _Part(NamedTuple):
    """A group of questions, by their places in a model's answers."""

    group: Group
    name: str
    sets: list[list[int]]
    """One, or for the mean of sets one each."""


def _parts(evaluation: Evaluation) -> Iterator[_Part]:
    """Yield the groups in the order of the table: overall, sets, then what they are made of."""
    answers = evaluation.models[0].answers
    asked = [i for i, answer in enumerate(answers) if answer.benchmark != GENERAL]
    by_set = _grouped(answers, "benchmark", range(len(answers)))
    if asked:
        yield _Part("overall", POOLED, [asked])
        yield _Part("overall", MEAN, [of for name, of in by_set.items() if name != GENERAL])
    for name, places in by_set.items():
        yield _Part("set", name, [places])
    groups: tuple[Group, ...] = ("domain", "type", "category")
    for group in groups:
        for name, places in _grouped(answers, group, asked).items():
            yield _Part(group, name, [places])


def _grouped(answers: Sequence[Answered], key: str, places: Sequence[int]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for i in places:
        groups.setdefault(getattr(answers[i], key), []).append(i)
    return groups


def _check_names(what: str, names: Sequence[str]) -> None:
    if not names:
        raise UsageError(f"wanted at least one {what}, got none")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"wanted every {what} once, got {twice} twice; leave one out")


def _digest(questions: Sequence[Question]) -> str:
    lines = "\n".join(question.model_dump_json() for question in questions)
    return hashlib.sha256(lines.encode()).hexdigest()
