"""Advice in words, for geometries made up to call for it."""

from __future__ import annotations

import math

import pytest

from merging.geometry import Geometry, TensorGeometry
from merging.geometry_advice import advice


def _geometry(*rows: TensorGeometry, base: str | None = None, **fields: object) -> Geometry:
    return Geometry(("ada", "bob"), base, rows, **fields)


def _row(angle: float = 5.0, path: str = "slerp", **fields: object) -> TensorGeometry:
    row = TensorGeometry("x", 0, "mlp", 100, path, 1.0, 1.0, angle, 1.0, 0.1)
    return row._replace(**fields)


def _tasks(cosine: float | None, norm_b: float = 1.0, **fields: object) -> TensorGeometry:
    return _row(**{"task_norm_a": 1.0, "task_norm_b": norm_b, "task_cosine": cosine, **fields})


def test_ordinary_models_need_no_advice():
    assert advice(_geometry(_row())) == []


def test_identical_models_are_told_and_nothing_else():
    rows = [_row(0.0, "identical"), _row(0.0, "identical")]
    assert advice(_geometry(*rows, base="cem")) == [
        "ada and bob hold the same weights: a merge changes nothing; name another model"
    ]


@pytest.mark.parametrize(
    ("base", "remedy"),
    [
        (None, r"compare task vectors instead \(--base MODEL\), or merge adapters"),
        ("cem", r"turn the task vectors instead \(merge_method nuslerp with base_model cem\)"),
    ],
)
def test_straight_lines_for_most_weights_are_told_with_a_remedy(base, remedy):
    (text,) = advice(_geometry(_row(0.4, "linear", numel=4980), _row(numel=20), base=base))[:1]
    assert text.startswith("99.6 % of the weights lie so close (median angle 0.4°)")
    assert f": {remedy}".replace("\\", "") in text


def test_the_gap_between_arc_and_line_is_as_told():
    """Never more than the 0.02 % of the text, for any t and lengths, up to the threshold."""
    angle = math.acos(0.9995)
    (text,) = advice(_geometry(_row(0.4, "linear")))
    assert "by 0.02 % at most, far less than one bfloat16 step (0.4 %)" in text
    for t in (0.01, 0.3, 0.5, 0.9):
        for length in (0.1, 1.0, 10.0):
            arc = math.sin((1 - t) * angle) + length * math.sin(t * angle)
            line = 1 - t + t * length
            assert 0 < arc / math.sin(angle) / line - 1 < 0.0002


def test_rounding_never_makes_it_all_of_the_weights():
    text = advice(_geometry(_row(0.4, "linear", numel=99_999), _row(numel=1)))[0]
    assert text.startswith("99.9 % ")


def test_unrelated_models_are_told():
    assert "little in common (median angle 88°)" in advice(_geometry(_row(88.0)))[0]


@pytest.mark.parametrize(
    ("ratio", "longer", "shorter"), [(1.5, "bob", "ada"), (1 / 1.5, "ada", "bob")]
)
def test_models_of_different_length_are_told(ratio, longer, shorter):
    (text,) = advice(_geometry(_row(norm_ratio=ratio)))
    assert f"the weights of {longer} are 1.50 times as long as those of {shorter}" in text
    assert "form: paper" in text


@pytest.mark.parametrize(
    ("cosine", "words"),
    [
        (0.05, "unrelated things that hardly disturb each other"),
        (-0.05, "unrelated things"),
        (-0.5, "opposite things, which an average cancels"),
        (0.5, "partly the same"),
        (0.95, "nearly the same"),
    ],
)
def test_task_vectors_are_read_with_their_sign(cosine, words):
    (text,) = advice(_geometry(_tasks(cosine), base="cem"))
    assert words in text and f"(cosine of the task vectors {cosine:+.3f})" in text


def test_agreement_and_opposition_in_different_places_are_told_apart():
    rows = [_tasks(0.8), _tasks(-0.8, layer=7, part="attention")]
    (text,) = advice(_geometry(*rows, base="cem"))
    assert "+0.80 in mlp of layer 0" in text and "-0.80 in attention of layer 7" in text


def test_task_vectors_of_different_length_are_told():
    text = advice(_geometry(_tasks(0.5, norm_b=4.0), base="cem"))[0]
    assert text.startswith("bob went 4.0 times as far from the base as ada")


def test_a_model_that_is_the_base_is_told():
    (text,) = advice(_geometry(_tasks(None, norm_b=0.0), base="cem"))
    assert text.startswith("bob does not differ from the base cem: there is only one task vector")


def test_both_models_are_the_base():
    rows = [_tasks(None, norm_b=0.0)._replace(task_norm_a=0.0)]
    (text,) = advice(_geometry(*rows, base="cem"))
    assert text.startswith("ada does not differ from the base cem")


def test_tensors_left_out_are_named():
    (text,) = advice(_geometry(_row(), unmatched=("lm_head.weight", "y", "z")))
    assert text.startswith("left out, not in every model or of different shapes: lm_head.weight")
    assert "and 2 more" in text


def test_task_vectors_that_share_no_tensor_are_crosswise():
    """One adapter on the attention, one on the MLP: both changed, nowhere both."""
    on_attention = _tasks(None, 0.0, name="x", part="attention")
    on_mlp = _tasks(None, name="y", task_norm_a=0.0)
    texts = advice(_geometry(on_attention, on_mlp, base="cem"))
    assert texts == [
        "the two learnt unrelated things that hardly disturb each other: their sum keeps more of "
        "both (merge_method task_arithmetic) than an average, which weakens either (cosine of the "
        "task vectors +0.000)"
    ]
