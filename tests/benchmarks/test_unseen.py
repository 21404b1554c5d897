"""The questions that were written after the models were trained."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from agents.knowledge import read_facts
from training.benchmark import load_benchmark, shipped_benchmarks

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "benchmarks").glob("unseen-*.jsonl"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_questions_rest_on_facts_that_are_not_doubted(path):
    facts = {fact.id for fact in read_facts()}
    questions = load_benchmark(path).questions
    assert {fact for question in questions for fact in question.fact_ids} <= facts
    assert all(len(question.fact_ids) == 1 for question in questions)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_neither_place_nor_length_gives_the_answer_away(path):
    questions = load_benchmark(path).questions
    choices = [question for question in questions if question.type == "mc"]
    assert {len(question.options) for question in choices} == {4}
    assert len(choices) / len(questions) == pytest.approx(0.7, abs=0.01)
    places = Counter(question.answer for question in choices)
    assert max(places.values()) < 0.32 * len(choices)
    longest = [q for q in choices if len(q.options[q.answer]) > max(map(len, _wrong(q)))]
    assert len(longest) < 0.32 * len(choices)
    claims = Counter(question.answer for question in questions if question.type == "tf")
    assert max(claims.values()) < 0.6 * claims.total()


def test_no_question_is_one_that_models_are_trained_on_or_compared_by():
    asked = [q.question for path in FILES for q in load_benchmark(path).questions]
    assert len(asked) == len(set(asked))
    known = {q.question for name in shipped_benchmarks() for q in load_benchmark(name).questions}
    for path in (ROOT / "training" / "items").glob("*.jsonl"):
        for line in path.read_text("utf-8").splitlines():
            item = json.loads(line)
            known |= {str(item.get(key)) for key in ("question", "prompt", "true", "false")}
    assert not known.intersection(asked)


def _wrong(question):
    return [option for i, option in enumerate(question.options) if i != question.answer]
