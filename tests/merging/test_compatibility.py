"""What stands against a merge, told at once and before a weight is read."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from merging.build import merge, open_parents
from merging.compatibility import check, needs_mergekit
from merging.recipe import Input, Recipe
from orbweave.errors import UsageError
from tests.merging.conftest import WORDS, write_llama, write_tokenizer


def _slerp(a, b, **more) -> Recipe:
    content = {
        "merge_method": "slerp",
        "base_model": str(a),
        "models": (Input(model=str(a)), Input(model=str(b))),
        "parameters": {"t": 0.5},
    }
    return Recipe(**(content | more))


def _told(recipe: Recipe, *, partial: bool = False) -> list[tuple[str, str]]:
    findings = check(recipe, open_parents(recipe), partial=partial)
    return [(finding.level, finding.text) for finding in findings]


def _assert_told(recipe: Recipe, level: str, text: str) -> None:
    told = _told(recipe)
    assert any(lv == level and text in line for lv, line in told), told


def _change_config(folder, **values) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_nothing_stands_against_two_of_a_kind(pair):
    assert _told(_slerp(*pair)) == []


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (
            {"parameters": {"t": 1.5}},
            "t must be between 0 and 1, got [1.5]; 0 is the base, 1 the other",
        ),
        ({"parameters": {"t": [0, -0.1]}}, "t must be between 0 and 1, got [0.0, -0.1]"),
        ({"parameters": {"t": float("inf")}}, "t must be finite, got [inf]; write plain numbers"),
        ({"parameters": {"t": [0, 0.5, 1]}}, "t has 3 values for 2 layers, so some would never"),
        ({"parameters": {"t": "paper"}}, "t has 5 values for 2 layers"),
        ({"parameters": {}}, "the merge parameter t for every tensor"),
        ({"parameters": {"t": {"filter": "mlp", "value": 0.5}}}, "found none for model.embed"),
        ({"parameters": {"t": 0.5, "form": "papr"}}, "paper, got 'papr'; or leave it out"),
        ({"base_model": None}, "slerp needs base_model"),
    ],
)
def test_faults_of_the_recipe_are_found(pair, more, text):
    _assert_told(_slerp(*pair, **more), "fault", text)


def test_the_number_of_models_is_checked(pair, tmp_path):
    third = write_llama(tmp_path / "c", seed=3)
    models = tuple(Input(model=str(folder)) for folder in (*pair, third))
    told = "slerp takes 2 models, the recipe names 3; name 2"
    _assert_told(_slerp(*pair, models=models), "fault", told)
    _assert_told(_slerp(*pair, models=models[:1] * 2), "fault", "a model is named twice")


def test_a_range_of_layers_must_be_in_the_model(pair):
    sources = [{"model": str(folder), "layer_range": [0, 3]} for folder in pair]
    recipe = Recipe.model_validate(
        _slerp(*pair).model_dump() | {"models": None, "slices": [{"sources": sources}]}
    )
    _assert_told(recipe, "fault", "layer_range [0, 3] does not fit")


def test_the_same_weights_are_refused(pair, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(pair[0])
    _assert_told(_slerp(pair[0], link), "fault", "are the same weights")


def test_another_architecture_is_refused_with_the_reason(pair):
    _change_config(pair[1], architectures=["MistralForCausalLM"])
    _assert_told(_slerp(*pair), "mismatch", "is a LlamaForCausalLM, ")


def test_a_setting_that_changes_what_weights_mean_is_refused(pair):
    _change_config(pair[1], num_attention_heads=4, rope_theta=5e5)
    _change_config(pair[0], rope_theta=1e4)
    _assert_told(_slerp(*pair), "mismatch", "num_attention_heads is '2' in")
    _assert_told(_slerp(*pair), "note", "rope_theta is '10000.0' in")


@pytest.mark.parametrize("which", [0, 1])
def test_a_model_that_lacks_layers_it_promises_is_found(pair, which):
    _change_config(pair[which], num_hidden_layers=9)
    _assert_told(_slerp(*pair), "fault", "promises 9 layers, its weights hold 2")


def test_other_shapes_and_layers_are_all_told_at_once(pair, tmp_path):
    deeper = write_llama(tmp_path / "deep", n_layers=3)
    path = deeper / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"] = torch.ones(5)
    save_file(tensors, path)
    told = " | ".join(text for _, text in _told(_slerp(pair[0], deeper)))
    assert "the models bring 2 and 3 layers" in told
    assert "lacks model.layers.2.input_layernorm.weight (and 8 more)" in told
    assert "model.norm.weight has the shape (16,) in" in told


def test_a_head_of_its_own_and_a_tied_one_are_told_apart(pair):
    tensors = load_file(pair[1] / "model.safetensors")
    tensors["lm_head.weight"] = torch.ones(12, 16)
    save_file(tensors, pair[1] / "model.safetensors")
    _assert_told(_slerp(*pair), "mismatch", "has an output head of its own")


def _change_tensors(folder, **changes) -> None:
    """Replace tensors; None takes one out."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name, tensor in changes.items():
        tensors.pop(name) if tensor is None else tensors.update({name: tensor})
    save_file(tensors, path)


NORM, HEAD = "model.norm.weight", "lm_head.weight"
UPS = [f"model.layers.{i}.mlp.up_proj.weight" for i in (0, 1)]


def _sliced(a, b, first: int) -> Recipe:
    """Merge layer 0 of a with layer `first` of b."""
    ranges = {a: [0, 1], b: [first, first + 1]}
    sources = [{"model": str(folder), "layer_range": r} for folder, r in ranges.items()]
    content = _slerp(a, b).model_dump() | {"models": None, "slices": [{"sources": sources}]}
    return Recipe.model_validate(content)


@pytest.mark.parametrize(
    ("name", "tensor", "text"),
    [
        (NORM, torch.ones(24), "model.norm.weight has the shape (16,) in {a} and (24,) in {b}; "),
        (NORM, torch.ones(8), "model.norm.weight has the shape (16,) in {a} and (8,) in {b}; "),
        (UPS[1], torch.ones(16, 24), f"{UPS[0]} has the shape (24, 16) in {{a}} and (16, 24) in"),
        (UPS[1], torch.ones(48, 16), f"and (48, 16) in {UPS[1]} of {{b}}; merge models of one"),
        (UPS[1], None, f"{{b}} lacks {UPS[1]}, which {{a}} has; merge models of one shape"),
        (HEAD, torch.ones(12, 16), "{b} has an output head of its own, {a} ties it to the"),
    ],
)
def test_slices_are_compared_tensor_by_tensor(pair, tmp_path, name, tensor, text):
    a, b = pair
    _change_tensors(b, **{name: tensor})
    recipe = _sliced(a, b, first=1)
    _assert_told(recipe, "mismatch", text.format(a=a, b=b))
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml())
    with pytest.raises(UsageError, match="found 1 reason against it"):
        merge(str(path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_layers_outside_a_slice_may_be_of_any_shape(pair):
    _change_tensors(pair[1], **{UPS[0]: None})
    assert _told(_sliced(*pair, first=1)) == []
    _assert_told(_sliced(*pair, first=0), "mismatch", f"lacks {UPS[0]}, which")


def test_rows_must_agree_where_vocabularies_need_not_be_joined(pair):
    _change_tensors(pair[1], **{"model.embed_tokens.weight": torch.ones(14, 16)})
    told = "has the shape (12, 16) in"
    _assert_told(_slerp(*pair), "mismatch", told)
    _assert_told(_slerp(*pair, tokenizer_source="base"), "mismatch", told)


def test_where_vocabularies_are_joined_only_rows_of_tokens_may_differ(pair):
    write_tokenizer(pair[1], [*WORDS, "x"])
    _change_tensors(pair[1], **{"model.embed_tokens.weight": torch.ones(13, 16)})
    assert _told(_slerp(*pair, tokenizer_source="union")) == []
    _change_tensors(pair[1], **{UPS[0]: torch.ones(48, 16)})
    ((level, text),) = _told(_slerp(*pair, tokenizer_source="union"))
    assert level == "mismatch" and text.startswith(f"{UPS[0]} has the shape (24, 16) in")


def test_quantised_models_are_refused(pair):
    _change_config(pair[1], quantization_config={"bits": 4})
    _assert_told(_slerp(*pair), "fault", "is quantised")


def test_vocabularies_that_differ_are_refused_until_a_tokenizer_is_chosen(pair):
    write_tokenizer(pair[1], [*WORDS[:10], "x", "y"])
    recipe = _slerp(*pair)
    _assert_told(recipe, "fault", "differ in 4 entries, so one row stands for different tokens")
    chosen = recipe.model_copy(update={"tokenizer_source": "union"})
    assert _told(chosen) == [] and needs_mergekit(chosen, open_parents(chosen))


def test_a_chosen_tokenizer_of_the_same_words_needs_no_mergekit(pair):
    recipe = _slerp(*pair, tokenizer_source="base")
    assert not needs_mergekit(recipe, open_parents(recipe))


def test_differences_that_do_not_stop_are_noted(pair):
    (pair[1] / "chat_template.jinja").write_text("other")
    _change_config(pair[1], eos_token_id=3)
    told = _told(_slerp(*pair, parameters={"t": 0.5, "density": 1}))
    assert {level for level, _ in told} == {"note"}
    text = " | ".join(text for _, text in told)
    for part in ("chat templates differ", "eos_token_id is '0'", "density is not used by slerp"):
        assert part in text


def test_other_special_tokens_are_noted(pair):
    path = pair[1] / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"eos_token": {"content": "a"}, "pad_token": None}
    path.write_text(json.dumps(settings))
    _assert_told(_slerp(*pair), "note", "eos_token is '<|end|>' in the tokenizer of ")
    _assert_told(_slerp(*pair), "note", "pad_token is '<|pad|>' in the tokenizer of ")
    assert _told(_slerp(*pair, tokenizer_source="base")) == []


def test_other_dtypes_are_noted(pair, tmp_path):
    half = write_llama(tmp_path / "half", seed=5, dtype=torch.bfloat16)
    _assert_told(_slerp(pair[0], half), "note", "is stored as F32, ")


def test_all_faults_stand_in_one_message(pair, write_recipe, tmp_path):
    _change_config(pair[1], architectures=["MistralForCausalLM"], head_dim=4)
    _change_config(pair[0], head_dim=8)
    a, b = map(str, pair)
    models = [{"model": a}, {"model": b}]
    recipe = write_recipe(
        merge_method="slerp", base_model=a, models=models, parameters={"t": [2, 0, 0]}
    )
    with pytest.raises(UsageError, match="found 4 reasons against it: ") as told:
        merge(str(recipe), tmp_path / "out")
    assert all(part in str(told.value) for part in ("Mistral", "head_dim", "3 values", "between 0"))
    assert not (tmp_path / "out").exists()


def test_a_partial_merge_takes_from_the_base_what_does_not_fit(pair, write_recipe, tmp_path):
    tensors = load_file(pair[1] / "model.safetensors")
    tensors["model.norm.weight"] = torch.ones(5)
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, pair[1] / "model.safetensors")
    a, b = map(str, pair)
    recipe = write_recipe(
        merge_method="slerp",
        base_model=a,
        models=[{"model": a}, {"model": b}],
        parameters={"t": 1.0},
    )
    with pytest.raises(UsageError, match="2 reasons against it"):
        merge(str(recipe), tmp_path / "out")
    findings = merge(str(recipe), tmp_path / "out", partial=True)
    assert {finding.level for finding in findings} == {"note"}
    norm, up = "model.norm.weight", "model.layers.0.mlp.up_proj.weight"
    assert [finding.text for finding in findings] == [
        f"{b} lacks {up}, which {a} has",
        f"{norm} has the shape (16,) in {a} and (5,) in {b}",
        f"merged from {a} and {b}: the 18 tensors that have one name and one shape in them",
        f"copied from {a} as they are: {up} (and 1 more)",
        f"left out of {b}: {norm}",
    ]
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"| `{a}` alone | 2 | `{up}`, `{norm}` |" in card
    base, merged = (
        load_file(pair[0] / "model.safetensors"),
        load_file(tmp_path / "out" / "model.safetensors"),
    )
    for name, tensor in merged.items():
        fits = name not in {"model.norm.weight", "model.layers.0.mlp.up_proj.weight"}
        assert torch.equal(tensor, tensors[name] if fits else base[name])


def _by_recipe(write_recipe, a, b, out, **more):
    """Merge two models as far as they go together."""
    models = [{"model": str(a)}, {"model": str(b)}]
    content = {"merge_method": "slerp", "base_model": str(a), "models": models}
    recipe = write_recipe(**content, parameters={"t": 1.0}, **more)
    return [f.text for f in merge(str(recipe), out, partial=True)]


def test_other_architectures_are_merged_by_name_and_shape_and_the_note_says_so(
    pair, write_recipe, tmp_path
):
    a, b = pair
    _change_config(b, architectures=["MistralForCausalLM"])
    told = _by_recipe(write_recipe, a, b, tmp_path / "out")
    assert told == [
        f"{a} is a LlamaForCausalLM, {b} a MistralForCausalLM: tensors of one name do different "
        "work in them",
        f"merged from {a} and {b}: the 20 tensors that have one name and one shape in them",
    ]
    merged, theirs = (load_file(f / "model.safetensors") for f in (tmp_path / "out", b))
    assert all(torch.equal(merged[name], tensor) for name, tensor in theirs.items())


@pytest.mark.parametrize("base_is_deeper", [True, False])
def test_unlike_depths_are_merged_as_far_as_both_go(write_recipe, tmp_path, base_is_deeper):
    shallow = write_llama(tmp_path / "shallow", n_layers=2, seed=1)
    deep = write_llama(tmp_path / "deep", n_layers=3, seed=2)
    a, b = (deep, shallow) if base_is_deeper else (shallow, deep)
    recipe = _slerp(a, b)
    levels = {level for level, text in _told(recipe) if "layers" in text}
    assert levels == {"mismatch"}
    told = _by_recipe(write_recipe, a, b, tmp_path / "out")
    merged = load_file(tmp_path / "out" / "model.safetensors")
    ours, theirs = (load_file(f / "model.safetensors") for f in (a, b))
    assert merged.keys() == ours.keys()
    for name, tensor in merged.items():
        assert torch.equal(tensor, theirs.get(name, ours[name]))
    third = "model.layers.2.input_layernorm.weight (and 8 more)"
    if base_is_deeper:
        assert f"copied from {a} as they are: {third}" in told
    else:
        assert f"left out of {b}: {third}" in told
    assert f"merged from {a} and {b}: the 20 tensors that have one name and one shape in " in str(
        told
    )


def test_a_partial_merge_of_nothing_is_refused(pair, write_recipe, tmp_path):
    """It would be a copy of the base."""
    a, b = pair
    twice = {n: torch.cat([t, t]) for n, t in load_file(b / "model.safetensors").items()}
    save_file(twice, b / "model.safetensors")
    with pytest.raises(UsageError, match=f"one shape in {a} and {b}, so there is nothing to merge"):
        _by_recipe(write_recipe, a, b, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_range_that_does_not_fit_another_is_refused_even_of_a_partial_merge(pair):
    sources = [{"model": str(f), "layer_range": [0, n]} for f, n in zip(pair, (1, 2), strict=True)]
    content = _slerp(*pair).model_dump() | {"models": None, "slices": [{"sources": sources}]}
    told = _told(Recipe.model_validate(content), partial=True)
    assert ("fault", "the models bring 1 and 2 layers; choose layer_range alike") in told
