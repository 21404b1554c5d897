"""Tables of an evaluation against numbers worked out by hand, and a run on a tiny model."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from orbweave.errors import ModelError, UsageError
from orbweave.statistics import mean_of_sets_interval, wilson
from training.benchmark import Benchmark, Question, Text
from training.evaluation import (
    Answered,
    Asked,
    Evaluation,
    ModelResult,
    TextResult,
    accuracies,
    comparisons,
    document,
    evaluate,
    retention,
)

# Benchmark, domain, type, category and which of two models is right.
ANSWERS = [
    ("silk", "spider-silk", "mc", "numerical", "no", "yes"),
    ("silk", "spider-silk", "mc", "numerical", "no", "yes"),
    ("silk", "collagen", "mc", "conceptual", "yes", "no"),
    ("silk", "collagen", "tf", "conceptual", "yes", "yes"),
    ("leaf", "leaf", "mc", "numerical", "no", "yes"),
    ("leaf", "leaf", "tf", "conceptual", "no", "no"),
    ("general", "general", "mc", "history", "yes", "no"),
    ("general", "general", "tf", "history", "yes", "yes"),
]


def answered(i: int, right: str, reply: str | None = None) -> Answered:
    benchmark, domain, kind, category, *_ = ANSWERS[i]
    return Answered(
        benchmark=benchmark,
        id=f"q{i}",
        domain=domain,
        type=kind,
        category=category,
        answer=1,
        loglik=(-1.0, -0.5) if right == "yes" else (-0.5, -1.0),
        reply=reply,
        replied={"yes": 1, "no": 0, None: None}[None if reply == "" else right],
    )


def result(model: str, column: int, replies: bool = False) -> ModelResult:
    answers = []
    for i, row in enumerate(ANSWERS):
        reply = ("" if i == 0 else row[column]) if replies else None
        answers.append(answered(i, row[column], reply))
    text = TextResult(
        name="general-text", per_token=10.0, per_char=2.0 + 0.1 * column, n_tokens=9, n_chars=40
    )
    return ModelResult(model=model, weights_sha256="0", answers=tuple(answers), texts=(text,))


def evaluation(*scorings: str) -> Evaluation:
    replies = "reply" in scorings
    return Evaluation(
        scorings=scorings,
        benchmarks=tuple(
            Asked(name=name, n=n, sha256="0") for name, n in [("silk", 4), ("leaf", 2)]
        ),
        models=(result("base", 4, replies), result("tuned", 5, replies)),
    )


def test_accuracies_are_by_overall_set_domain_type_and_category():
    table = {
        (r.model, r.group, r.name): (r.accuracy, r.n) for r in accuracies(evaluation("loglik"))
    }
    assert table["base", "overall", "pooled"] == (pytest.approx(2 / 6), 6)
    assert table["base", "overall", "mean of sets"] == (pytest.approx((2 / 4 + 0 / 2) / 2), 6)
    assert table["tuned", "overall", "pooled"] == (pytest.approx(4 / 6), 6)
    assert table["tuned", "overall", "mean of sets"] == (pytest.approx((3 / 4 + 1 / 2) / 2), 6)
    assert table["tuned", "set", "silk"] == (0.75, 4)
    assert table["tuned", "set", "general"] == (0.5, 2)
    assert table["tuned", "domain", "spider-silk"] == (1.0, 2)
    assert table["base", "type", "tf"] == (0.5, 2)
    assert table["base", "category", "numerical"] == (0.0, 3)


def test_the_general_set_counts_in_no_overall_domain_type_or_category():
    names = {(r.group, r.name) for r in accuracies(evaluation("loglik"))}
    assert ("set", "general") in names
    assert not names & {("domain", "general"), ("category", "history")}


def test_intervals_are_wilsons_and_for_the_mean_of_sets_put_together():
    table = {(r.model, r.name): (r.low, r.high) for r in accuracies(evaluation("loglik"))}
    assert table["tuned", "pooled"] == wilson(4, 6)
    assert table["tuned", "mean of sets"] == mean_of_sets_interval([(3, 4), (1, 2)])


def test_comparisons_are_with_the_first_model_and_pair_the_questions():
    table = {(c.group, c.name): c for c in comparisons(evaluation("loglik"))}
    overall = table["overall", "pooled"]
    assert (overall.model, overall.baseline) == ("tuned", "base")
    assert overall.gain == pytest.approx(2 / 6)
    assert overall.relative_gain == pytest.approx(1.0)
    assert (overall.only_first, overall.only_second) == (1, 3)
    assert overall.p_value == pytest.approx(2 * (1 + 4) / 2**4)
    assert overall.low <= overall.gain <= overall.high
    assert table["overall", "mean of sets"].gain == pytest.approx(0.625 - 0.25)
    assert table["set", "leaf"].relative_gain is None
    assert table["set", "general"].gain == pytest.approx(-0.5)


def test_retention_is_the_general_set_and_the_general_text():
    (kept,) = retention(evaluation("loglik"))
    assert (kept.model, kept.accuracy, kept.gain) == ("tuned", 0.5, pytest.approx(-0.5))
    assert kept.perplexity_change == pytest.approx(2.5 / 2.4 - 1)


def test_unparsable_replies_are_not_right_and_counted_apart():
    table = {(r.scoring, r.model, r.name): r for r in accuracies(evaluation("loglik", "reply"))}
    by_reply, by_loglik = (table[s, "tuned", "spider-silk"] for s in ("reply", "loglik"))
    assert (by_loglik.accuracy, by_loglik.unparsable) == (1.0, 0)
    assert (by_reply.accuracy, by_reply.unparsable) == (0.5, 1)


def test_an_evaluation_comes_back_from_its_json_with_the_same_tables():
    made = evaluation("loglik", "reply")
    again = Evaluation.model_validate_json(made.model_dump_json())
    assert again == made
    assert document(again) == document(made)
    assert json.loads(json.dumps(document(made))) == document(made)


def test_a_single_model_has_accuracies_and_no_comparison():
    made = evaluation("loglik")
    alone = made.model_copy(update={"models": made.models[:1]})
    assert {r.model for r in accuracies(alone)} == {"base"}
    assert comparisons(alone) == retention(alone) == []


def test_the_general_set_alone_has_no_overall():
    made = evaluation("loglik")
    kept = [result.model_copy(update={"answers": result.answers[6:]}) for result in made.models]
    alone = made.model_copy(update={"models": tuple(kept)})
    assert {(r.group, r.name) for r in accuracies(alone)} == {("set", "general")}


def mc(i: int, text: str, *options: str) -> Question:
    return Question(
        id=f"q{i}",
        domain="d",
        type="mc",
        category="c",
        question=text,
        options=options,
        answer=i % 2,
    )


SETS = [
    Benchmark("first", (mc(0, "Why?", "so", "for this"), mc(1, "Who?", "we", "they all"))),
    Benchmark("general", (mc(2, "When?", "now", "much later"),)),
]
TEXTS = {"general-text": [Text(id="t", domain="general", text="It rained.")]}


@pytest.fixture(scope="module")
def ran(tiny_model):
    told: list[tuple[int, int]] = []
    made = evaluate(
        [("one", tiny_model), ("two", tiny_model)],
        SETS,
        TEXTS,
        scorings=("loglik", "reply"),
        on_progress=lambda done, total: told.append((done, total)),
    )
    return made, told


def test_every_model_answers_every_question_in_order(ran):
    made, _ = ran
    assert [m.model for m in made.models] == ["one", "two"]
    for model in made.models:
        assert [(a.benchmark, a.id) for a in model.answers] == [
            ("first", "q0"), ("first", "q1"), ("general", "q2"),
        ]  # fmt: skip
        assert all(a.loglik and len(a.loglik) == 2 and a.reply is not None for a in model.answers)
        assert [text.name for text in model.texts] == ["general-text"]
    assert [(b.name, b.n) for b in made.benchmarks] == [("first", 2), ("general", 1)]


def test_the_same_weights_answer_the_same_and_gain_nothing(ran):
    made, _ = ran
    one, two = made.models
    assert one.answers == two.answers
    assert one.texts == two.texts
    assert one.weights_sha256 == two.weights_sha256
    assert {(c.gain, c.p_value) for c in comparisons(made)} == {(0.0, 1.0)}
    assert {k.perplexity_change for k in retention(made)} == {0.0}


def test_progress_rises_over_all_models_to_the_whole(ran):
    _, told = ran
    assert told == sorted(told)
    assert told[-1] == (14, 14)  # two models, three questions scored twice, one text


def test_names_that_occur_twice_and_nothing_to_do_are_refused(tiny_model):
    with pytest.raises(UsageError, match="every model once, got one twice"):
        evaluate([("one", tiny_model), ("one", tiny_model)], SETS, {})
    with pytest.raises(UsageError, match="every benchmark once, got first twice"):
        evaluate([("one", tiny_model)], [SETS[0], SETS[0]], {})
    with pytest.raises(UsageError, match="at least one model"):
        evaluate([], SETS, {})
    with pytest.raises(UsageError, match="at least one scoring of loglik, reply"):
        evaluate([("one", tiny_model)], SETS, {}, scorings=())


def test_a_model_that_gives_nan_is_named_and_no_answer_of_it_counts(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "spoilt")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="spoilt gave NaN; its weights are damaged"):
        evaluate([("spoilt", folder)], SETS, {})
