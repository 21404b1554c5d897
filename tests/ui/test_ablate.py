"""`orbweave ablate` on a tiny real model, from the command line."""

from __future__ import annotations

import json
import random
from string import ascii_lowercase

import pytest

from training.ablation import Ablation, crossed_bootstrap
from ui.cli import run

SENTENCE = "The thread of number {} is stiff, and it carries the whole weight of the spider."
LETTERS = random.Random(0)
# Options that are all alike to the model, so that what it learnt decides on some.
QUESTIONS = [
    {
        "id": f"q{i}",
        "domain": "silk",
        "type": "mc",
        "category": "order",
        "question": f"What is thread {i}?",
        "options": ["".join(LETTERS.choices(ascii_lowercase, k=6)) for _ in range(3)],
        "answer": i % 3,
    }
    for i in range(40)
]
RECIPE = """
name: tiny
model: {model}
adapter: {{rank: 2, alpha: 4}}
held_out: 0.2
stages:
  - {{method: cpt, data: {{{data}: 1.0}}, learning_rate: 0.1, batch: 4, max_length: 128,
     packing: false, epochs: 9}}
"""


@pytest.fixture
def place(tmp_path, tiny_model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"r{i}", "text": SENTENCE.format(i)} for i in range(24)]
    (tmp_path / "text.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, QUESTIONS)), "utf-8")
    recipe = RECIPE.format(model=tiny_model, data="./text.jsonl")
    (tmp_path / "recipe.yaml").write_text(recipe, "utf-8")
    return tmp_path


ASKED = ["ablate", "recipe.yaml", "--benchmark", "own.jsonl", "--noise", "0.3", "--seeds", "2"]
ASKED += ["--steps", "3", "--out", "out"]


def test_an_ablation_trains_both_kinds_for_every_seed_and_compares_them(place, capsys):
    assert run([*ASKED, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    found = Ablation.model_validate_json((place / "out" / "ablation.json").read_text("utf-8"))
    assert document == found.model_dump(mode="json")
    assert [one.seed for one in found.seeds] == [42, 43]
    assert found.benchmarks == {"own": 40}
    assert found.noised_text.score < found.clean_text.score
    for one in found.seeds:
        assert one.difference.gain == pytest.approx(one.noised.accuracy - one.clean.accuracy)
        assert one.difference.low <= one.difference.gain <= one.difference.high
        harm = one.noised.text_loss - one.clean.text_loss
        assert one.text_difference.gain == pytest.approx(harm) and harm != 0
        for arm in (one.clean, one.noised):
            known = json.loads((place / arm.folder / "provenance.json").read_text("utf-8"))
            assert known["figures"]["steps"] == 3
            assert arm.held_out_loss == {"Instruct-CPT": known["figures"]["held_out_loss"]}
    assert found.held_out_texts == 24 - _learnt(place)
    harm = sum(one.text_difference.gain for one in found.seeds) / 2
    assert found.text_together.gain == pytest.approx(harm)
    assert found.text_together.low < harm < found.text_together.high
    mean = sum(one.difference.gain for one in found.seeds) / 2
    assert found.together.gain == pytest.approx(mean)
    assert _from_the_answers(place, found) == pytest.approx(
        (found.together.low, found.together.high)
    )
    assert any(one.difference.gain for one in found.seeds)  # or nothing above was tested
    assert not list((place / "out").glob("seed-*/.models-*"))


def _learnt(place):
    (known,) = (place / "out" / "seed-42" / "clean").glob("*/provenance.json")
    return sum(json.loads(known.read_text("utf-8"))["counts"].values())


def _from_the_answers(place, found):
    import numpy as np

    gains = []
    for one in found.seeds:
        path = place / "out" / f"seed-{one.seed}" / "evaluation.json"
        clean, noised = json.loads(path.read_text("utf-8"))["evaluation"]["models"]
        right = [
            [max(range(3), key=a["loglik"].__getitem__) == a["answer"] for a in model["answers"]]
            for model in (clean, noised)
        ]
        gains.append(np.subtract(np.array(right[1], int), np.array(right[0], int)))
    return crossed_bootstrap(np.stack(gains))


def test_an_ablation_that_is_there_is_not_made_again(place, capsys):
    assert run(ASKED) == 0
    told = capsys.readouterr().out
    made = {p: p.stat().st_mtime_ns for p in (place / "out").rglob("*.safetensors")}
    made |= {p: p.stat().st_mtime_ns for p in (place / "out").rglob("evaluation.json")}
    assert len(made) == 6
    assert run(ASKED) == 0
    assert capsys.readouterr().out == told
    assert all(path.stat().st_mtime_ns == then for path, then in made.items())
    assert "| clean | 1.000 | 100% |" in told
    assert told.count("| together |") == 2
    assert "clean texts that neither training read" in told
    assert told.strip().splitlines()[-1] == "ablation written to out/ablation.json"


def test_the_plan_shows_the_noise_and_trains_nothing(place, capsys):
    assert run([*ASKED, "--plan", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["trainings"] == 4
    assert document["stages"][0]["steps"] == 3
    assert document["noised_text"]["score"] < document["clean_text"]["score"]
    assert not (place / "out").exists()


def test_a_folder_of_something_else_is_left_alone(place, capsys):
    (place / "out").mkdir()
    (place / "out" / "letter.txt").write_text("mine", "utf-8")
    assert run(ASKED) == 1
    assert "found something else" in capsys.readouterr().err


def test_noise_outside_its_range_is_told_before_training(place, capsys):
    asked = ["0" if word == "0.3" else word for word in ASKED]
    assert run(asked) == 2
    assert "wanted a noise level above 0" in capsys.readouterr().err
    assert not (place / "out").exists()
