"""`orbweave evaluate` on a tiny real model, from the command line."""

from __future__ import annotations

import json
import shutil

import pytest

from orbweave.paths import CACHE_VARIABLE
from training.evaluation import Evaluation
from ui.cli import run

ROWS = [
    {
        "id": f"q{i}",
        "domain": "letters",
        "type": "mc",
        "category": "order",
        "question": f"What follows {x}?",
        "options": [f"{x}{x}", "none", "all of them"],
        "answer": i % 3,
    }
    for i, x in enumerate("abcdef")
]
TEXT = {"id": "t", "domain": "letters", "text": "a comes before b."}


@pytest.fixture
def place(tmp_path, tiny_model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, ROWS)), "utf-8")
    (tmp_path / "letters.jsonl").write_text(json.dumps(TEXT), "utf-8")
    shutil.copytree(tiny_model, tmp_path / "one")
    shutil.copytree(tiny_model, tmp_path / "two")
    return tmp_path


ASKED = ["evaluate", "./one", "./two", "--benchmark", "own.jsonl", "--no-retention"]


def test_two_models_are_compared_and_the_result_is_kept(place, capsys):
    asked = [*ASKED, "--scoring", "both", "--text", "letters.jsonl", "--out", "result"]
    assert run(asked) == 0
    said = capsys.readouterr().out
    assert "| overall: pooled" in said
    assert "## Gain by reply" in said
    assert "| ./two | letters" in said
    assert said.strip().splitlines()[-1] == "written to result"
    names = {file.name for file in (place / "result").iterdir()}
    assert names == {"evaluation.json", "report.md", "accuracy.png", "accuracy.svg"}
    kept = Evaluation.model_validate_json((place / "result" / "evaluation.json").read_bytes())
    assert [m.model for m in kept.models] == ["./one", "./two"]
    assert len(kept.models[0].answers) == 6


def test_json_is_one_document_with_every_table_and_answer(place, capsys):
    assert run([*ASKED, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {"written", "accuracies", "comparisons", "retention", "evaluation"}
    overall = [r for r in told["accuracies"] if r["name"] == "pooled"]
    assert [r["model"] for r in overall] == ["./one", "./two"]
    assert told["comparisons"][0]["gain"] == 0.0
    assert Evaluation.model_validate(told["evaluation"]).benchmarks[0].n == 6


def test_a_folder_of_an_adapter_is_its_model_with_it_laid_over(place, capsys, monkeypatch):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    monkeypatch.setenv(CACHE_VARIABLE, str(place / "cache"))
    settings = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained("./one"), settings)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.5, generator=torch.Generator().manual_seed(0))
    model.save_pretrained("adapter")
    asked = ["evaluate", "./one", "./adapter", "-b", "own.jsonl", "--no-retention", "--json"]
    assert run(asked) == 0
    base, tuned = json.loads(capsys.readouterr().out)["evaluation"]["models"]
    assert tuned["model"] == "./adapter"
    assert base["answers"][0]["loglik"] != tuned["answers"][0]["loglik"]


def test_retention_adds_the_general_set_and_texts(place, capsys):
    asked = ["evaluate", "./one", "./two", "-b", "own.jsonl", "--dry-run", "--json"]
    assert run(asked) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["benchmarks"] == {"own": 6, "general": 100}
    assert plan["texts"].pop("general-text") == 60
    ((name, n),) = plan["texts"].items()
    assert name == "domain-text" and 10 < n < 60  # about two in a hundred facts


def test_without_a_name_the_shipped_domain_sets_are_asked(place, capsys):
    assert run(["evaluate", "./one", "--no-retention", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["benchmarks"] == {"leaf-biocomposite": 120, "silk-collagen": 120}
    assert plan["texts"] == {}


def test_the_benchmarks_are_exported_without_a_model(place, capsys):
    assert run(["evaluate", "-b", "own.jsonl", "--no-retention", "--tasks-out", "tasks"]) == 0
    assert (place / "tasks" / "orbweave_own.yaml").is_file()
    assert capsys.readouterr().out.strip() == "written to tasks"


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (["evaluate"], 2, "wanted a model to evaluate, got none"),
        (["evaluate", "--out", "x"], 2, "wanted a model to evaluate, got none"),
        ([*ASKED, "--scoring", "guess"], 2, "wanted --scoring as one of loglik, reply, both"),
        ([*ASKED, "--benchmark", "nowhere.jsonl"], 2, "found no name or file 'nowhere.jsonl'"),
        ([*ASKED, "./three"], 1, "wanted the model folder './three', found none"),
        ([*ASKED, "./one"], 2, "wanted every model once, got ./one twice"),
        ([*ASKED, "--out", "one"], 1, "exists already"),
        ([*ASKED, "--out", "one", "--force"], 1, "--force replaces results of this command only"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_loaded(
    place, capsys, change, code, message
):
    assert run(change) == code
    assert message in capsys.readouterr().err


def test_a_result_is_replaced_only_with_force(place):
    asked = [*ASKED, "--out", "result", "--quiet"]
    assert run(asked) == 0
    assert run(asked) == 1
    assert run([*asked, "--force"]) == 0
