from pathlib import Path

import pytest

from orbweave.errors import UsageError
from training.recipe import load_recipe, shipped_recipes

GOOD = """
name: small
model: base
stages:
  - {method: cpt, data: {facts: 1.0}, learning_rate: 1.0e-4}
  - {method: sft, data: {qa: 1.0}, learning_rate: 1.0e-4}
  - {method: dpo, data: {preference: 1.0}, learning_rate: 1.0e-5}
  - {method: orpo, data: {preference: 1.0}, learning_rate: 1.0e-5}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, "utf-8")
    return path


def test_a_recipe_names_its_checkpoints_as_the_paper_does(tmp_path):
    recipe = load_recipe(write(tmp_path, GOOD))
    assert [recipe.checkpoint_name(stage) for stage in recipe.stages] == [
        "Instruct-CPT",
        "Instruct-CPT-SFT",
        "Instruct-CPT-SFT-DPO",
        "Instruct-CPT-SFT-ORPO",
    ]


def test_dpo_and_orpo_both_branch_off_sft(tmp_path):
    recipe = load_recipe(write(tmp_path, GOOD))
    assert [s.method for s in recipe.path(recipe.stages[3])] == ["cpt", "sft", "orpo"]


def test_a_repeated_source_is_an_error_although_yaml_would_drop_it(tmp_path):
    text = GOOD.replace("{facts: 1.0}", "{facts: 1.0, facts: 2.0}")
    with pytest.raises(UsageError, match="facts .*given twice"):
        load_recipe(write(tmp_path, text))


def test_all_faults_of_a_recipe_are_told_at_once(tmp_path):
    text = GOOD.replace("name: small", "name: Not Fit\nspeed: 3").replace(
        "{qa: 1.0}, learning_rate: 1.0e-4", "{qa: -1.0}"
    )
    with pytest.raises(UsageError) as caught:
        load_recipe(write(tmp_path, text))
    message = str(caught.value)
    for part in ("name", "speed: no such key", "stages.1.data", "learning_rate: is missing"):
        assert part in message
    assert "found 4 faults" in message


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("method: sft", "method: cpt"), "each stage comes once"),
        (("method: cpt", "method: xpt"), "'cpt', 'sft', 'dpo' or 'orpo'"),
        (("model: base", "model: base\nparent: runs/x"), "needs an adapter"),
    ],
)
def test_what_cannot_be_run_is_refused(tmp_path, change, told):
    with pytest.raises(UsageError, match=told):
        load_recipe(write(tmp_path, GOOD.replace(*change)))


def test_stages_out_of_order_are_refused(tmp_path):
    text = GOOD.replace("method: cpt", "method: X").replace("method: sft", "method: cpt")
    with pytest.raises(UsageError, match="the order of stages"):
        load_recipe(write(tmp_path, text.replace("method: X", "method: sft")))


def test_an_unknown_recipe_names_the_shipped_ones():
    with pytest.raises(UsageError, match="smollm2-135m-generalist"):
        load_recipe("nothing-like-it")


def test_every_shipped_recipe_loads():
    recipes = [load_recipe(name) for name in shipped_recipes()]
    assert len(recipes) == len(shipped_recipes()) >= 6
    assert all(recipe.name == name for recipe, name in zip(recipes, shipped_recipes(), strict=True))


@pytest.mark.parametrize(
    ("name", "batches", "rates", "epochs"),
    [
        ("llama-3.1-8b-base", [96, 96, 32, 24], [2e-5, 2e-5, 5e-7, 3e-6], [5, 1, 1, 1]),
        ("llama-3.1-8b-instruct", [96, 96, 32, 24], [2e-5, 2e-5, 5e-7, 3e-6], [5, 1, 1, 1]),
        ("mistral-7b-v0.3-base", [384, 384, 64, 320], [2e-5, 2e-5, 5e-7, 5e-6], [5, 1, 1, 1]),
        ("mistral-7b-v0.3-instruct", [192, 192, 64, 64], [2e-5, 2e-5, 5e-7, 3e-6], [5, 1, 1, 3]),
    ],
)
def test_presets_hold_the_published_hyper_parameters(name, batches, rates, epochs):
    stages = load_recipe(name).stages
    assert [s.batch * s.accumulate * 8 for s in stages] == batches
    assert [s.learning_rate for s in stages] == rates
    assert [s.epochs for s in stages] == epochs


def test_the_small_paper_model_keeps_its_constant_rate():
    cpt, sft, dpo = load_recipe("smollm2-1.7b-base").stages
    assert (cpt.schedule, cpt.learning_rate, cpt.epochs) == ("constant", 5e-5, 2)
    assert (sft.epochs, dpo.beta, dpo.batch * dpo.accumulate) == (5, 0.05, 4)
