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
    assert load_recipe(write(tmp_path, GOOD)).checkpoints == [
        "Instruct-CPT",
        "Instruct-CPT-SFT",
        "Instruct-CPT-SFT-DPO",
        "Instruct-CPT-SFT-ORPO",
    ]


def test_a_method_may_come_again_and_each_time_has_a_name_of_its_own(tmp_path):
    sft, dpo = "  - {method: sft, data: {qa: 1.0}, learning_rate: 1.0e-4}\n", "  - {method: dpo"
    assert sft in GOOD
    assert load_recipe(write(tmp_path, GOOD.replace(dpo, sft + dpo))).checkpoints == [
        "Instruct-CPT",
        "Instruct-CPT-SFT",
        "Instruct-CPT-SFT-SFT",
        "Instruct-CPT-SFT-SFT-DPO",
        "Instruct-CPT-SFT-SFT-ORPO",
    ]


@pytest.mark.parametrize(
    ("last", "n"),
    [(None, 4), ("cpt", 1), ("sft", 2), ("Instruct-CPT-SFT", 2), ("Instruct-CPT-SFT-DPO", 3)],
)
def test_the_last_stage_is_named_by_its_method_or_its_checkpoint(tmp_path, last, n):
    assert load_recipe(write(tmp_path, GOOD)).n_stages(last) == n


def test_of_a_method_that_comes_again_the_last_stage_is_meant(tmp_path):
    text = GOOD.replace("method: cpt", "method: sft")
    recipe = load_recipe(write(tmp_path, text))
    assert (recipe.n_stages("sft"), recipe.n_stages("Instruct-SFT")) == (2, 1)


def test_an_unknown_stage_is_told_with_those_there_are(tmp_path):
    with pytest.raises(UsageError, match=r"'rl', this recipe has cpt \(Instruct-CPT\), sft \("):
        load_recipe(write(tmp_path, GOOD)).n_stages("rl")


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


def test_what_a_faulty_recipe_names_and_is_not_there_is_in_the_same_list(tmp_path):
    text = GOOD.replace("model: base", f"model: base\nspeed: 3\nparent: {tmp_path}/none")
    text = text.replace("{qa: 1.0}", f"{{{tmp_path}/rows.jsonl: 1.0}}")
    with pytest.raises(UsageError) as caught:
        load_recipe(write(tmp_path, text))
    for part in ("no such key", f"no file {tmp_path}/rows.jsonl", f"no folder {tmp_path}/none"):
        assert part in str(caught.value)


def test_stages_that_have_faults_are_not_called_missing(tmp_path):
    text = "name: few\nmodel: base\nstages: [{method: sft, data: {qa: 1.0}}]"
    with pytest.raises(UsageError, match="found 1 faults: stages.0.learning_rate: is missing$"):
        load_recipe(write(tmp_path, text))
    with pytest.raises(UsageError, match="found 1 faults: stages.0.data: Dictionary should have"):
        load_recipe(write(tmp_path, text.replace("{qa: 1.0}", "{}, learning_rate: 1.0e-4")))
    with pytest.raises(UsageError, match="stages: Tuple should have at least 1 item"):
        load_recipe(write(tmp_path, "name: few\nmodel: base\nstages: []"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("method: orpo", "method: dpo"), "dpo and orpo come once each"),
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


def test_every_shipped_recipe_for_the_embedded_model_finds_its_rows():
    from training.run import check
    from ui.material import team_material

    material = team_material()
    recipes = [load_recipe(name) for name in shipped_recipes()]
    embedded = [recipe for recipe in recipes if recipe.model == "base"]
    assert len(embedded) >= 7
    assert all(rows.learnt for recipe in embedded for rows in check(recipe, material))


def test_the_experts_name_the_folder_in_which_the_generalist_ends():
    last = load_recipe("smollm2-135m-generalist").checkpoints[-1]
    experts = [p for p in shipped_recipes().values() if "\nparent: generalist\n" in p.read_text()]
    assert len(experts) == 4
    assert all(f"runs/smollm2-135m-generalist/{last}." in path.read_text() for path in experts)


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
