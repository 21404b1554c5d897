"""`orbweave train` on a tiny real model, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ui.cli import run

ROWS = [{"prompt": f"What follows {x}?", "completion": f"{x}{x} follows."} for x in "abcdefghij"]
RECIPE = """
name: tiny
model: {model}
adapter: {{rank: 2, alpha: 4}}
held_out: 0.0
stages:
  - {{method: sft, data: {{{data}: 2.0}}, learning_rate: 1.0e-3, batch: 4, max_length: 256,
     packing: false}}
"""


@pytest.fixture
def recipe(tmp_path, tiny_model):
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, ROWS)), "utf-8")
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(model=tiny_model, data=data), "utf-8")
    return path


def test_training_writes_a_model_and_says_where(recipe, tmp_path, capsys):
    assert run(["train", str(recipe), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    *_, origin, last = said.out.strip().splitlines()
    assert origin.startswith("made from: tiny/Instruct-SFT <- /")
    assert last.endswith(str(tmp_path / "out" / "Instruct-SFT"))
    assert (tmp_path / "out" / "Instruct-SFT" / "adapter_model.safetensors").is_file()
    assert "effective batch 4 rows, 5 steps" in said.err  # told before it began
    assert run(["train", str(recipe), "--out", str(tmp_path / "out"), "--json"]) == 0
    said = capsys.readouterr()
    (stage,) = json.loads(said.out)
    assert stage["kept"] is True
    assert stage["lineage"][0]["name"] == "Instruct-SFT"
    assert "effective batch" not in said.err  # nothing is left to cost anything


def test_the_plan_is_one_json_document_and_trains_nothing(recipe, tmp_path, capsys):
    assert run(["train", str(recipe), "--plan", "--json", "--out", str(tmp_path / "out")]) == 0
    (stage,) = json.loads(capsys.readouterr().out)
    assert (stage["rows"], stage["steps"], stage["effective_batch"]) == (20, 5, 4)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_preview_marks_what_is_learnt(recipe, capsys):
    assert run(["train", str(recipe), "--preview"]) == 0
    assert "⟦aa follows.<|im_end|>⟧" in capsys.readouterr().out


def test_a_faulty_recipe_exits_2_with_every_fault_in_one_line(recipe, capsys):
    recipe.write_text(recipe.read_text().replace("batch: 4", "batch: 0, speed: 9"), "utf-8")
    assert run(["train", str(recipe)]) == 2
    told = capsys.readouterr().err.strip()
    assert "\n" not in told
    assert "stages.0.batch" in told
    assert "speed: no such key" in told


def test_a_launch_configuration_that_is_missing_is_told(recipe, tmp_path, capsys):
    assert run(["train", str(recipe), "--launch", str(tmp_path / "none.yaml")]) == 2
    assert "accelerate configuration" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["generalist", "silk", "collagen", "leaf", "biocomposite"])
def test_a_shipped_expert_shows_every_stage_it_came_by(name, capsys):
    assert run(["models", "show", name, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    folder = Path(shown["folder"])
    parents = json.loads((folder / "provenance.json").read_text("utf-8"))["parents"]
    stages = [f"{one['recipe']}/{one['name']}" for one in parents[:-1]]
    assert shown["lineage"][0] == name
    assert shown["lineage"][2 : 2 + len(stages)] == stages
    assert shown["lineage"][-2:] == ["base", "HuggingFaceTB/SmolLM2-135M-Instruct"]
    assert shown["size_bytes"] == (folder / "adapter_model.safetensors").stat().st_size
