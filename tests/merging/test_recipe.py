"""mergekit's YAML, read as mergekit reads it."""

from __future__ import annotations

import pytest
import yaml

from merging.parent import Parent
from merging.plan import plan, share_table
from merging.recipe import PROFILES, Recipe, load_recipe, value_at
from orbweave.errors import UsageError
from orbweave.weights import TensorInfo

# Worked by hand: place = layer / 31 * 4 on the anchors, straight lines between them.
BY_HAND = {
    0: {"self_attn": 0.0, "mlp": 1.0},
    8: {"self_attn": 0.5 - 0.2 * (32 / 31 - 1), "mlp": 0.5 + 0.2 * (32 / 31 - 1)},
    16: {"self_attn": 0.3 + 0.4 * (64 / 31 - 2), "mlp": 0.7 - 0.4 * (64 / 31 - 2)},
    24: {"self_attn": 0.7 + 0.3 * (96 / 31 - 3), "mlp": 0.3 - 0.3 * (96 / 31 - 3)},
    31: {"self_attn": 1.0, "mlp": 0.0},
}


def _parent(name: str, n_layers: int, tmp_path) -> Parent:
    info = TensorInfo("BF16", (4, 4))
    parts = ("self_attn.q_proj", "mlp.up_proj", "input_layernorm")
    names = [f"model.layers.{i}.{part}.weight" for i in range(n_layers) for part in parts]
    tensors = {n: info for n in ("model.embed_tokens.weight", *names, "model.norm.weight")}
    return Parent(name, tmp_path / name, (), {}, tensors, {})


def _slerp(**more: object) -> Recipe:
    content = {
        "merge_method": "slerp",
        "base_model": "a",
        "models": [{"model": "b"}],
        "dtype": "bfloat16",
    }
    return Recipe.model_validate(content | more)


def _t(recipe: Recipe, n_layers: int, tmp_path) -> dict[str, float]:
    parents = {name: _parent(name, n_layers, tmp_path) for name in ("a", "b")}
    return {step.name: step.shares[1] for step in plan(recipe, parents)}


def test_the_papers_profile_is_as_worked_by_hand(tmp_path):
    t = _t(_slerp(parameters={"t": "paper"}), 32, tmp_path)
    for layer, wanted in BY_HAND.items():
        prefix = f"model.layers.{layer}."
        assert t[f"{prefix}self_attn.q_proj.weight"] == pytest.approx(wanted["self_attn"])
        assert t[f"{prefix}mlp.up_proj.weight"] == pytest.approx(wanted["mlp"])
        assert t[f"{prefix}input_layernorm.weight"] == 0.5
    assert t["model.embed_tokens.weight"] == t["model.norm.weight"] == 0.5


def test_profiles_follow_the_depth_of_the_model(tmp_path):
    for n_layers in (5, 30, 32):
        t = _t(_slerp(parameters={"t": "linear"}), n_layers, tmp_path)
        attention = [t[f"model.layers.{i}.self_attn.q_proj.weight"] for i in range(n_layers)]
        assert attention == sorted(attention) and (attention[0], attention[-1]) == (0, 1)
        assert t[f"model.layers.{n_layers // 2}.mlp.up_proj.weight"] == pytest.approx(
            1 - attention[n_layers // 2]
        )


@pytest.mark.parametrize(
    ("setting", "depth", "wanted"),
    [
        (0.4, 0.7, 0.4),
        ("1e-1", 0.7, 0.1),
        ([0, 1], 0.25, 0.25),
        ([0.2], 0.9, 0.2),
        ([], 0.9, None),
        ([{"filter": "self_attn", "value": 0.1}, {"value": [0, 1]}], 0.5, 0.5),
        ([{"filter": "mlp", "value": 0.1}, {"value": 0.9}], 0.5, 0.1),
        ([{"filter": "*", "value": 0.3}, {"filter": "mlp", "value": 0.1}], 0.5, 0.3),
        ({"filter": "self_attn", "value": 0.1}, 0.5, None),
        ({"value": [1, 0]}, 1.0, 0.0),
    ],
)
def test_settings_are_evaluated(setting, depth, wanted):
    assert value_at(setting, "model.layers.3.mlp.up_proj.weight", depth) == pytest.approx(wanted)


@pytest.mark.parametrize("setting", [None, {"filter": "x"}, ["a"], [{"value": "q"}], [[0, 1]]])
def test_settings_that_are_no_numbers_are_refused(setting):
    with pytest.raises(UsageError, match="wanted a"):
        value_at(setting, "mlp", 0.5)


def test_a_slice_merges_its_layers_and_numbers_them_anew(tmp_path):
    sources = [{"model": "a", "layer_range": [2, 5]}, {"model": "b", "layer_range": [3, 6]}]
    recipe = _slerp(
        models=None,
        slices=[{"sources": sources, "parameters": {"t": [0.1, 0.9]}}],
        parameters={"t": 0.5},
    )
    parents = {name: _parent(name, 8, tmp_path) for name in ("a", "b")}
    steps = {step.name: step for step in plan(recipe, parents)}
    middle = steps["model.layers.1.mlp.up_proj.weight"]
    assert [source.tensor for source in middle.sources] == [
        "model.layers.3.mlp.up_proj.weight",
        "model.layers.4.mlp.up_proj.weight",
    ]
    assert middle.shares[1] == pytest.approx(0.5)
    assert steps["model.layers.2.mlp.up_proj.weight"].shares[1] == pytest.approx(0.9)
    assert steps["model.embed_tokens.weight"].shares[1] == pytest.approx(0.1)
    assert len(steps) == 2 + 3 * 3


def test_the_base_comes_first_wherever_it_stands(tmp_path):
    recipe = _slerp(models=[{"model": "b"}, {"model": "a"}], parameters={"t": 0.2})
    parents = {name: _parent(name, 2, tmp_path) for name in ("b", "a")}
    assert [s.parent for s in plan(recipe, parents)[0].sources] == ["a", "b"]


def test_weights_of_an_average_come_from_each_model_and_sum_to_one(tmp_path):
    models = [
        {"model": "a", "parameters": {"weight": 1}},
        {"model": "b", "parameters": {"weight": [{"filter": "mlp", "value": 3}, {"value": 1}]}},
    ]
    recipe = Recipe.model_validate({"merge_method": "linear", "models": models})
    parents = {name: _parent(name, 2, tmp_path) for name in ("a", "b")}
    shares = {step.name: step.shares for step in plan(recipe, parents)}
    assert shares["model.layers.0.mlp.up_proj.weight"] == (0.25, 0.75)
    assert shares["model.norm.weight"] == (0.5, 0.5)
    raw = recipe.model_copy(update={"parameters": {"normalize": False}})
    shares = {step.name: step.shares for step in plan(raw, parents)}
    assert shares["model.layers.0.mlp.up_proj.weight"] == (1, 3)


def test_the_table_of_shares_names_each_kind_once(tmp_path):
    parents = {name: _parent(name, 2, tmp_path) for name in ("a", "b")}
    cells = share_table(plan(_slerp(parameters={"t": [0, 1]}), parents))
    assert [(c.layer, c.part, c.shares[1]) for c in cells if c.layer == 1] == [
        (1, "self_attn", 1.0),
        (1, "mlp", 1.0),
        (1, "input_layernorm", 1.0),
    ]
    assert [c.part for c in cells if c.layer is None] == ["embed_tokens", "norm"]


def test_a_profile_is_written_out_so_that_mergekit_can_read_it():
    text = _slerp(parameters={"t": "paper"}).to_yaml()
    assert yaml.safe_load(text)["parameters"] == {"t": PROFILES["paper"]}


@pytest.mark.parametrize(
    ("more", "is_ours"),
    [
        ({}, True),
        ({"merge_method": "ties"}, False),
        ({"tokenizer": {"source": "union"}}, False),
        ({"chat_template": "chatml"}, False),
        ({"models": None, "modules": {"text": {}}}, False),
        ({"merge_method": "passthrough", "parameters": {"scale": 2}}, False),
    ],
)
def test_what_is_not_ours_goes_to_mergekit(more, is_ours):
    assert _slerp(**more).is_ours is is_ours


def test_a_slice_takes_a_profile_by_name():
    sources = [{"model": name, "layer_range": [0, 2]} for name in "ab"]
    recipe = _slerp(
        models=None, parameters={}, slices=[{"sources": sources, "parameters": {"t": "paper"}}]
    )
    assert recipe.settings("t") == [PROFILES["paper"]]


def test_what_nobody_looks_at_is_named():
    recipe = _slerp(parameters={"t": 0.5, "density": 0.3}, int8_mask=True)
    assert recipe.unused() == ["density", "int8_mask"]


def test_models_are_named_once_the_base_first():
    recipe = _slerp(models=[{"model": "b"}, {"model": "a"}], tokenizer_source="c")
    assert recipe.model_names() == ["a", "b", "c"]
    assert recipe.renamed({"a": "x", "c": "y"}).model_names() == ["x", "b", "y"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[1, 2", "it is not YAML"),
        ("just a text", "found: 'just a text'; it begins with merge_method"),
        ("# nothing yet", "found: nothing; it begins with merge_method"),
        ("merge_method: ties\nmodules: {default: {}}", "no model is named; give every module"),
        ("merge_method: slerp", "exactly one of models, slices and modules"),
        ("models: [{model: a}]", "merge_method is missing"),
        ("merge_method: slerp\nmodels: [{}]", r"models\.0\.model is missing"),
        ("merge_method: slerp\nmodels: [{model: a}]\ndtype: int4", "dtype: .*got 'int4'"),
        (
            "merge_method: slerp\nmodels: [{model: a}]\nparameters: {t: papr}",
            "paper, linear, const",
        ),
        ("merge_method: slerp\nslices: [{sources: [{model: a}]}]", "needs a layer_range"),
        (
            "merge_method: slerp\nslices: [{sources: [{model: a}], parameters: {t: papr}}]",
            r"slices\.0\.parameters: t is a number, a list or one of paper",
        ),
    ],
)
def test_faults_of_a_file_are_told(tmp_path, text, told):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=f"(?s)wanted a .*recipe.*{told}"):
        load_recipe(path)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(UsageError, match="cannot read .*nowhere.yaml; check the path"):
        load_recipe(tmp_path / "nowhere.yaml")
