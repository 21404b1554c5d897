"""Exported tasks: what they say, and, where the harness is installed, that it loads them."""

from __future__ import annotations

import importlib.util
import json

import pytest
import yaml

from orbweave.errors import OutputError, UsageError
from training.benchmark import load_benchmark
from training.lm_eval_tasks import export_tasks, is_export

GENERAL = load_benchmark("general")
SILK = load_benchmark("silk-collagen")


@pytest.fixture
def exported(tmp_path):
    return export_tasks([SILK, GENERAL], tmp_path / "tasks")


def test_each_benchmark_is_a_task_and_its_data(exported):
    assert {file.name for file in exported.iterdir()} == {
        "README.md",
        "orbweave_silk_collagen.yaml",
        "silk-collagen.jsonl",
        "orbweave_general.yaml",
        "general.jsonl",
    }
    assert is_export(exported)


def test_a_task_names_columns_that_its_data_holds(exported):
    task = yaml.safe_load((exported / "orbweave_silk_collagen.yaml").read_text("utf-8"))
    lines = (exported / "silk-collagen.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert task["dataset_kwargs"]["data_files"]["test"] == str(exported / "silk-collagen.jsonl")
    assert task["output_type"] == "multiple_choice"
    assert len(rows) == 120
    first = rows[0]
    assert first[task["doc_to_text"]] == SILK.questions[0].question
    assert tuple(first[task["doc_to_choice"]]) == SILK.questions[0].options
    assert first[task["doc_to_target"]] == SILK.questions[0].answer


def test_an_export_is_not_overwritten_unasked(exported):
    with pytest.raises(OutputError, match="exists already"):
        export_tasks([GENERAL], exported)
    export_tasks([GENERAL], exported, force=True)
    assert not (exported / "silk-collagen.jsonl").exists()


def test_two_benchmarks_of_one_name_are_refused(tmp_path):
    with pytest.raises(UsageError, match="different names, got general, general"):
        export_tasks([GENERAL, GENERAL], tmp_path / "tasks")


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm_eval is not installed")
@pytest.mark.filterwarnings("default")
def test_the_harness_loads_the_tasks_and_asks_the_same(exported, tmp_path, monkeypatch):
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    manager = TaskManager(include_path=str(exported), include_defaults=False)
    (task,) = manager.load("orbweave_silk_collagen")["tasks"].values()
    asked = list(task.eval_docs)
    assert [doc["id"] for doc in asked] == [q.id for q in SILK.questions]
    assert task.doc_to_text(asked[0]) == SILK.questions[0].question
    assert tuple(task.doc_to_choice(asked[0])) == SILK.questions[0].options
    assert task.doc_to_target(asked[0]) == SILK.questions[0].answer
