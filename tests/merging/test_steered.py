"""From a concept's scores to weights, and from weights to one model."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from merging.build import recipe_of, resolve_model
from merging.kernel import karcher, slerp
from merging.steered import GRID, weights_of
from orbweave.errors import UsageError
from orbweave.models import ModelRef, lineage
from tests.merging.conftest import write_llama

SCORES = st.dictionaries(
    st.sampled_from(["silk", "collagen", "leaf", "biocomposite", "wood"]),
    st.floats(-1, 1).map(lambda score: round(score, 4)),
    min_size=1,
)
TEMPERATURES = st.floats(0.01, 2)


def _weights(folder):
    return load_file(folder / "model.safetensors")


def test_the_example_of_the_module_by_hand():
    # exp(-0.07 / 0.1) = 0.4966: 20 / 1.4966 = 13.36 and 6.64 steps, so 13 and 7.
    found = weights_of({"silk": 0.62, "leaf": 0.55, "collagen": 0.31}, temperature=0.1, floor=0.4)
    assert found == {"leaf": 0.35, "silk": 0.65}


def test_the_extremes_of_temperature_give_one_winner_or_equal_parts():
    scores = {"a": 0.5, "b": 0.4, "c": 0.3, "d": 0.2}
    assert weights_of(scores, temperature=1e-4, floor=0) == {"a": 1.0}
    assert weights_of(scores, temperature=1e6, floor=0) == dict.fromkeys("abcd", 0.25)


def test_what_is_below_the_floor_is_dropped_and_changes_nothing():
    scores = {"silk": 0.6, "leaf": 0.5}
    wanted = weights_of(scores, temperature=0.1, floor=0.5)
    assert weights_of(scores | {"wood": 0.4999}, temperature=0.1, floor=0.5) == wanted
    assert set(wanted) == {"silk", "leaf"}
    assert weights_of(scores, temperature=0.1, floor=0.7) == {}
    assert weights_of({}, temperature=0.1, floor=0) == {}


@settings(deadline=None)
@given(SCORES, TEMPERATURES, st.floats(-1, 1))
def test_weights_sum_to_one_lie_on_the_grid_and_follow_the_scores(scores, temperature, floor):
    found = weights_of(scores, temperature=temperature, floor=floor)
    kept = {name: score for name, score in scores.items() if score >= floor}
    assert found.keys() <= kept.keys()
    assert bool(found) == bool(kept)
    if found:
        assert math.isclose(sum(found.values()), 1, abs_tol=1e-9)
    for weight in found.values():
        assert math.isclose(weight / GRID, round(weight / GRID), abs_tol=1e-9)
    for better, high in kept.items():
        for worse, low in kept.items():
            if high > low:
                assert found.get(better, 0) >= found.get(worse, 0)


@settings(deadline=None)
@given(SCORES, TEMPERATURES, st.floats(0, 0.5))
def test_a_higher_score_never_lowers_a_weight(scores, temperature, more):
    name = next(iter(scores))
    before = weights_of(scores, temperature=temperature, floor=-1)
    after = weights_of(scores | {name: scores[name] + more}, temperature=temperature, floor=-1)
    assert after.get(name, 0) >= before.get(name, 0)


def test_the_order_of_the_scores_does_not_make_another_model():
    one = weights_of({"b": 0.5, "a": 0.5, "c": 0.5}, temperature=0.1, floor=0)
    other = weights_of({"c": 0.5, "a": 0.5, "b": 0.5}, temperature=0.1, floor=0)
    assert list(one.items()) == list(other.items()) == [("a", 0.35), ("b", 0.35), ("c", 0.3)]


@pytest.mark.parametrize("temperature", [0, -1, math.nan, math.inf])
def test_a_strange_temperature_is_refused(temperature):
    with pytest.raises(UsageError, match="wanted a temperature above 0"):
        weights_of({"a": 1}, temperature=temperature, floor=0)


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(UsageError, match="wanted finite scores, got nan for b"):
        weights_of({"a": 1, "b": math.nan}, temperature=1, floor=0)


# ---------------------------------------------------------------- the reference


def test_a_steered_reference_is_read_and_written_as_typed(pair):
    a, b = pair
    text = f"steered({a}=0.5, slerp({a}, {b}, t=0.4)=0.3, {b}=0.20)"
    ref = ModelRef.parse(text)
    assert (ref.kind, ref.name, str(ref)) == ("merge", "steered", text)
    assert ModelRef.parse(str(ref)) == ref
    assert lineage(text) == [text, str(a), f"slerp({a}, {b}, t=0.4)", str(b)]
    assert ModelRef.parse(f"steered({a}=1)") == ModelRef.parse(str(a))


def test_of_two_models_it_is_their_slerp_at_the_second_weight(pair):
    a, b = pair
    folder = resolve_model(f"steered({a}=0.75, {b}=0.25)")
    assert folder == resolve_model(f"slerp({a}, {b}, t=0.25)")
    for name, tensor in _weights(folder).items():
        torch.testing.assert_close(tensor, slerp(_weights(a)[name], _weights(b)[name], 0.25))


def test_of_three_models_it_is_their_spherical_mean(pair, tmp_path):
    folders = [*pair, write_llama(tmp_path / "c", seed=3)]
    weights = (0.5, 0.3, 0.2)
    parts = ", ".join(f"{f}={w}" for f, w in zip(folders, weights, strict=True))
    made = _weights(resolve_model(f"steered({parts})"))
    sources = [_weights(folder) for folder in folders]
    for name, tensor in made.items():
        wanted = karcher([source[name] for source in sources], weights, form="mergekit")
        torch.testing.assert_close(tensor, wanted)


def test_only_proportions_count_so_equal_ones_share_a_folder(pair, tmp_path):
    a, b = pair
    c = write_llama(tmp_path / "c", seed=3)
    folder = resolve_model(f"steered({a}=0.5, {b}=0.25, {c}=0.25)")
    assert resolve_model(f"steered({a}=2,{b}=1,{c}=1)") == folder
    assert resolve_model(f"steered({a}=0.4, {b}=0.35, {c}=0.25)") != folder
    parts = recipe_of(f"steered({a}=3, {b}=3, {c}=1)").models
    assert abs(sum(part.parameters["weight"] for part in parts) - 1) < 1e-6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steered({a}, {b})", "wanted models with weights above 0"),
        ("steered({a}=0.5, {b})", "wanted models with weights above 0"),
        ("steered({a}=0.5, {b}=0)", "leave out a model that shall have none"),
        ("steered({a}=0.5, {b}=-1)", "wanted models with weights above 0"),
        ("steered({a}=0.5, {b}=nan)", "wanted models with weights above 0"),
        ("steered({a}=0.5, =0.5)", "wanted models with weights above 0"),
        ("steered()", "wanted models with weights above 0"),
        ("steered({a}=0.5, {a}=0.5)", "twice"),
        ("steered({a}=0.5, http://h/v1#m=0.5)", "wanted models on disk"),
    ],
)
def test_other_forms_are_refused(pair, text, message):
    with pytest.raises(UsageError, match=message):
        ModelRef.parse(text.format(a=pair[0], b=pair[1]))
