"""What is looked at around a merge that mergekit makes: faults, NaN, the parents' geometry."""

from __future__ import annotations

import json
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from merging import mergekit_adapter
from merging.build import merge, open_parents
from merging.compatibility import check
from merging.mergekit_merge import merge_by_mergekit
from merging.methods import METHODS
from merging.recipe import Recipe
from orbweave.errors import ModelError, UsageError
from tests.merging.conftest import write_llama

W = "model.safetensors"
UP = "model.layers.1.mlp.up_proj.weight"


def _change(folder, **changes) -> None:
    """Replace tensors; None takes one out."""
    tensors = load_file(folder / W)
    for name, tensor in changes.items():
        tensors.pop(name) if tensor is None else tensors.update({name: tensor})
    save_file(tensors, folder / W, metadata={"format": "pt"})


def _task(method, base, *children, **more) -> dict:
    models = [{"model": str(child), "parameters": {"weight": 0.5}} for child in children]
    return {"merge_method": method, "base_model": str(base), "models": models, **more}


def _stack(*slices) -> dict:
    runs = [{"sources": [{"model": str(m), "layer_range": [i, j]}]} for m, i, j in slices]
    return {"merge_method": "passthrough", "slices": runs, "dtype": "float32"}


def _merged(content, out):
    recipe = out.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump(content))
    return merge(str(recipe), out)


@pytest.fixture
def no_mergekit(monkeypatch):
    """Where nothing is to be left for mergekit to find."""
    monkeypatch.setattr(mergekit_adapter, "_COMMAND", ("false",))


# ---------------------------------------------------------------- weights that are not numbers


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 1e37])  # or a flipped bit
@pytest.mark.parametrize("method", ["ties", "dare_linear", "model_stock"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_parents_nan_is_named_before_mergekit_starts(tmp_path, no_mergekit, method, value, dtype):
    folders = [write_llama(tmp_path / name, seed=i, dtype=dtype) for i, name in enumerate("abc")]
    damaged = load_file(folders[2] / W)[UP]
    damaged[-1, -1] = value
    _change(folders[2], **{UP: damaged})
    with pytest.raises(ModelError, match=f"finite weights in {UP} of {folders[2]}, found NaN"):
        _merged(_task(method, *folders), tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


@pytest.mark.slow
@pytest.mark.timeout(400)  # a process of its own loads mergekit
def test_what_mergekit_makes_infinite_is_refused(pair, tmp_path):
    """A weight that float16 cannot hold."""
    _change(pair[1], **{UP: torch.full((24, 16), 1e6)})
    with pytest.raises(ModelError, match=f"finite weights in {UP} of the merged model, ties made"):
        _merged(_task("ties", *pair, dtype="float16"), tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


# ---------------------------------------------------------------- how the parents lie


@pytest.mark.slow
@pytest.mark.timeout(400)  # a process of its own loads mergekit
def test_the_parents_of_a_stack_are_compared(pair, tmp_path):
    a, b = pair
    _merged(_stack((a, 0, 2), (b, 1, 2)), tmp_path / "out")
    found = json.loads((tmp_path / "out" / "geometry.json").read_text())
    assert found["parents"] == [str(a), str(b)] and len(found["tensors"]) == 20
    assert {row["path"] for row in found["tensors"]} == {"copied"}
    assert "median angle between the parents" in (tmp_path / "out" / "README.md").read_text()
    weights = load_file(tmp_path / "out" / W)
    assert torch.equal(weights["model.layers.2.mlp.up_proj.weight"], load_file(b / W)[UP])


@pytest.fixture
def copies(monkeypatch):
    """mergekit's place is taken by a copy of the first model: here it is not its work we test."""
    script = """
import shutil, sys, yaml
recipe = yaml.safe_load(open(sys.argv[1]))
first = recipe.get("base_model") or recipe["slices"][0]["sources"][0]["model"]
shutil.copytree(first, sys.argv[2], dirs_exist_ok=True)
"""
    monkeypatch.setattr(mergekit_adapter, "_COMMAND", (sys.executable, "-c", script))


def test_a_stack_of_one_model_says_that_there_is_nothing_to_compare(pair, tmp_path, copies):
    _merged(_stack((pair[0], 0, 2), (pair[0], 0, 2)), tmp_path / "out")
    assert not (tmp_path / "out" / "geometry.json").exists()
    card = (tmp_path / "out" / "README.md").read_text()
    told = f"No geometry: every tensor comes from {pair[0]}, so there are no two models to compare."
    assert told in card


def test_children_are_compared_with_each_other_and_their_base(tmp_path, copies):
    base = write_llama(tmp_path / "base")
    folders = [write_llama(tmp_path / name) for name in "abc"]
    for i, folder in enumerate(folders, 1):
        noise = torch.Generator().manual_seed(i)
        weights = load_file(folder / W)
        moved = {
            n: w + 0.01 * i * torch.randn(w.shape, generator=noise) for n, w in weights.items()
        }
        save_file(moved, folder / W)
    _merged(_task("ties", base, *folders), tmp_path / "out")
    found = json.loads((tmp_path / "out" / "geometry.json").read_text())
    assert (found["parents"], found["base"]) == (list(map(str, folders)), str(base))
    row = next(row for row in found["tensors"] if row["name"] == UP)
    a, b, c = (load_file(folder / W)[UP].double().flatten() for folder in folders)
    angles = [torch.rad2deg(torch.arccos(torch.cosine_similarity(a, o, dim=0))) for o in (b, c)]
    assert row["angle_deg"] == pytest.approx(max(angles).item(), rel=1e-6)
    assert row["path"] == "mergekit" and abs(row["task_cosine"]) < 0.3
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"learnt beyond `{base}`: " in card


# ---------------------------------------------------------------- faults, before mergekit starts


def test_the_methods_are_those_of_mergekit():
    from mergekit.merge_methods.base import MISSING
    from mergekit.merge_methods.registry import registered_methods

    assert sorted(METHODS) == list(METHODS)
    assert sorted(METHODS) == sorted(method.spec.name for method in registered_methods())
    for spec in (method.spec for method in registered_methods()):
        known, contract = METHODS[spec.name], spec.contract
        assert known.base == contract.base.value, spec.name
        assert known.parameters == {p.name for p in spec.parameters}, spec.name
        required = {p.name for p in spec.parameters if p.default is MISSING}
        assert {*known.shared, *known.own} == required, spec.name
        assert {p.name for p in spec.parameters if p.scope.value == "shared"} >= {*known.shared}
        if known.children is None:
            assert (known.fewest, known.most) == (contract.min_inputs, contract.max_inputs)
        else:
            assert known.children == contract.min_non_base == contract.max_non_base


def test_every_fault_is_told_at_once_and_before_a_weight_is_read(pair, tmp_path, no_mergekit):
    a, b = pair
    _change(b, **{UP: None, "model.norm.weight": torch.full((8,), float("nan"))})
    content = _task("tis", a, b, parameters={"density": 0, "lambda": "x"})
    with pytest.raises(UsageError) as told:
        _merged(content, tmp_path / "out")
    for part in (
        "found 5 reasons against it",
        "no merge method is called 'tis'; did you mean ties; there are arcee_fusion, ",
        "sce, slerp, task_arithmetic and ties",
        "density must be above 0 and at most 1, got [0.0]",
        "lambda: wanted a number as a merge parameter, got 'x'",
        f"{b} lacks {UP}, which {a} has",
        f"model.norm.weight has the shape (16,) in {a} and (8,) in {b}",
    ):
        assert part in str(told.value)
    assert not (tmp_path / "out").exists()


def test_what_a_method_asks_for_is_told(pair, tmp_path, no_mergekit):
    a, b = map(str, pair)
    models = [{"model": a}, {"model": b}]
    several = [
        ({"merge_method": "ties", "models": models}, "ties needs base_model"),
        (
            {"merge_method": "ties", "base_model": a, "models": models},
            f"wanted the merge parameter weight of {b} for every tensor, found none for model.emb",
        ),
        (
            {"merge_method": "model_stock", "base_model": a, "models": models},
            "model_stock takes at least 3 models, the base included, the recipe names 2",
        ),
        (
            {"merge_method": "nuslerp", "base_model": a, **{"models": models}},
            "nuslerp takes 2 models beside the base, the recipe names 1",
        ),
        (_stack((a, 0, 2), (b, 1, 3)), f"layer_range [1, 3] does not fit {b}, which has 2 layers"),
        (
            {"merge_method": "linear", "modules": {"default": {}}, "base_model": a},
            "modules.default needs either models or slices",
        ),
    ]
    for content, told in several:
        with pytest.raises(UsageError) as caught:
            _merged(content, tmp_path / "out")
        assert told in str(caught.value)


def test_how_far_nearswap_goes_is_no_share(pair):
    content = _task("nearswap", *pair, parameters={"t": 2.5})
    recipe = Recipe.model_validate(content)
    assert "t must be" not in str(check(recipe, open_parents(recipe)))


def test_a_stack_must_be_of_one_width(pair, tmp_path, no_mergekit):
    a, b = pair
    _change(b, **{UP: torch.ones(48, 16)})
    with pytest.raises(
        UsageError, match=f"{UP} has the shape \\(24, 16\\) in {a} and \\(48, 16\\)"
    ):
        _merged(_stack((a, 0, 2), (b, 1, 2)), tmp_path / "out")
    with pytest.raises(ModelError, match="by mergekit"):  # layer 0 is as it should be
        _merged(_stack((a, 0, 2), (b, 0, 1)), tmp_path / "out")


def test_a_run_in_the_middle_needs_its_layers_alone(tmp_path):
    a, b = (write_llama(tmp_path / name, n_layers=4, seed=i) for i, name in enumerate("ab"))
    runs = [
        {"sources": [{"model": str(m), "layer_range": r} for m in (a, b)]}
        for r in ([0, 2], [1, 3], [2, 4])
    ]
    recipe = Recipe.model_validate(
        {"merge_method": "linear", "slices": runs, "parameters": {"weight": 1}}
    )
    assert check(recipe, open_parents(recipe)) == []
    _change(b, **{UP: None})
    (found,) = check(recipe, open_parents(recipe))
    assert found.level == "mismatch" and f"{b} lacks {UP}, which {a} has" in found.text


def test_a_partial_merge_by_mergekit_is_of_whole_models(pair, tmp_path, no_mergekit):
    _change(pair[1], **{UP: None})
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(_task("ties", *pair)))
    with pytest.raises(UsageError, match=f"lacks {UP}, which"):
        merge(str(recipe), tmp_path / "out", partial=True)


def test_a_gradient_outside_the_filters_leaves_none_out(pair, tmp_path, no_mergekit):
    recipe = _task("ties", *pair)
    recipe["models"][0]["parameters"]["weight"] = [{"filter": "mlp", "value": 0.5}]
    with pytest.raises(UsageError, match="found none for model.embed_tokens.weight; add a last"):
        _merged(recipe, tmp_path / "out")
    recipe["parameters"] = {"weight": 0.1}
    with pytest.raises(ModelError, match="by mergekit"):
        _merged(recipe, tmp_path / "out")


def test_models_without_a_weight_in_common_are_not_compared(tmp_path, copies):
    a, b = (write_llama(tmp_path / name) for name in "ab")
    renamed = {f"other.{name}": w for name, w in load_file(b / W).items()}
    save_file(renamed, b / W, metadata={"format": "pt"})
    recipe = Recipe.model_validate(_task("ties", a, b))
    out = tmp_path / "out"
    found = merge_by_mergekit(recipe, {str(a): a, str(b): b}, out)
    assert found == "the parents have no weights of one name and one shape to compare"
