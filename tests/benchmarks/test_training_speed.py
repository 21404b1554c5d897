"""The side-by-side throughput script on a tiny model: all kinds do the same work."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

import training.stages

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "training_speed.py"
RECIPE = """
name: tiny
model: {model}
adapter: {{rank: 2, alpha: 4}}
stages:
  - {{method: sft, data: {{{data}: 1.0}}, learning_rate: 1.0e-3, batch: 4, accumulate: 2,
     max_length: 256}}
"""


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("training_speed", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")  # TRL's own, which `training.stages` silences
def test_all_kinds_learn_the_same_from_the_same_rows(script, tmp_path, tiny_model, monkeypatch):
    data = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"Say {i}", "completion": f"{i} it is, {'and ' * i}"} for i in range(40)]
    data.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(model=tiny_model, data=data), "utf-8")
    for name in ("use_compact_head", "Watch"):
        # The script replaces them for a process that ends; this one goes on.
        monkeypatch.setattr(training.stages, name, getattr(training.stages, name))

    work = json.loads(json.dumps(script.workload(str(recipe), "sft", 2)))
    runs = {kind: [script.one_run(kind, work)] for kind in script.KINDS}

    assert len(work["rows"]) == 16
    assert work["tokens"] == sum(len(ids) for ids, _ in work["rows"])
    bare = runs["bare"][0]
    assert [run["steps"] for (run,) in runs.values()] == [2, 2, 2]
    for (run,) in runs.values():
        assert run["loss"] == pytest.approx(bare["loss"], rel=0.01)
        assert run["tokens_per_s"] == pytest.approx(work["tokens"] / run["seconds"])
        assert run["processor_s"] > 0


def test_the_summary_compares_medians(script):
    runs = {
        kind: [
            {"tokens_per_s": speed, "tokens_per_processor_s": speed / half, "loss": 2.0}
            for speed in speeds
        ]
        for kind, half, speeds in [("ours", 1, [90, 120, 300]), ("bare", 2, [50, 60, 70])]
    }
    document = script.summary(runs)
    ratios = {"tokens_per_s": 2.0, "tokens_per_processor_s": 4.0}
    assert document["times_the_bare_speed"] == {"ours": ratios}
    bare = document["kinds"]["bare"]
    assert (bare["tokens_per_s"], bare["low"], bare["high"]) == (60, 50, 70)
    lines = script.table(document | {"recipe": "r", "stage": "sft", "steps": 3}).splitlines()
    assert lines[-2:] == [
        "| ours | 120 (90 to 300) | 2.00 | 120 | 4.00 | 2.0000 |",
        "| bare | 60 (50 to 70) |  | 30 |  | 2.0000 |",
    ]
