"""The ablation's parts by hand; the whole of it on a tiny model is in tests/ui."""

from __future__ import annotations

import json

import numpy as np
import pytest

from orbweave.errors import UsageError
from orbweave.statistics import paired_bootstrap
from training.ablation import _arms, crossed_bootstrap, shortened, spoilt_texts, text_quality
from training.items import Material
from training.recipe import LoraSettings, Recipe, Stage
from training.rows import split
from training.run import prepare

NOTHING = Material(forms={}, facts={}, fields={})
SENTENCE = "The thread of number {} is stiff, and it carries the whole weight of the spider."


@pytest.fixture
def recipe(tiny_model, tmp_path):
    path = tmp_path / "text.jsonl"
    rows = [{"id": f"r{i}", "text": SENTENCE.format(i)} for i in range(40)]
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    stage = Stage(
        method="cpt", data={str(path): 1.0}, learning_rate=1e-3, epochs=5, packing=False,
        batch=4, max_length=128,
    )  # fmt: skip
    return Recipe(
        name="tiny", model=str(tiny_model), stages=(stage,), held_out=0.2,
        adapter=LoraSettings(rank=2),
    )  # fmt: skip


def test_only_what_is_learnt_is_spoilt(recipe):
    ((source, texts),) = spoilt_texts(recipe, NOTHING, 0.5).items()
    assert [text.clean for text in texts] == [SENTENCE.format(i) for i in range(40)]
    (mixed,) = prepare(recipe, NOTHING, _tokenizer(recipe))
    held = [text.id for text in texts if text.clean == text.noised]
    assert len(held) == len(mixed.held_out) > 0
    assert held == [text.id for text in texts if text.is_held_out]
    assert source in recipe.stages[0].data


def _tokenizer(recipe):
    from training.run import first_model

    return first_model(recipe)[1]


def test_the_split_is_the_one_that_training_makes(recipe):
    from training.mix import mix

    ((_, texts),) = spoilt_texts(recipe, NOTHING, 0.5).items()
    rows = mix(recipe.stages[0], recipe, NOTHING)
    changed = {text.id for text in texts if text.clean != text.noised}
    assert changed == {row.id for row in split(rows.learnt, recipe.held_out)[0]}


def test_each_seed_has_its_own_noise_and_gives_it_again(recipe):
    other = recipe.model_copy(update={"seed": 43})
    assert spoilt_texts(recipe, NOTHING, 0.3) == spoilt_texts(recipe, NOTHING, 0.3)
    assert spoilt_texts(recipe, NOTHING, 0.3) != spoilt_texts(other, NOTHING, 0.3)


def test_a_recipe_without_plain_text_cannot_be_spoilt(recipe):
    stage = recipe.stages[0].model_copy(update={"method": "sft"})
    with pytest.raises(UsageError, match="wanted a recipe with a cpt stage, tiny has sft"):
        spoilt_texts(recipe.model_copy(update={"stages": (stage,)}), NOTHING, 0.3)


def test_every_stage_on_plain_text_reads_the_noise(recipe, tmp_path):
    half = recipe.stages[0].model_copy(update={"data": dict.fromkeys(recipe.stages[0].data, 0.5)})
    twice = recipe.model_copy(update={"stages": (recipe.stages[0], half)})
    clean, noised = _arms(twice, spoilt_texts(twice, NOTHING, 0.3), tmp_path)
    assert [stage.data for stage in clean.stages] == [
        {str(tmp_path / "1-clean.jsonl"): fraction} for fraction in (1.0, 0.5)
    ]
    assert [stage.data for stage in noised.stages] == [
        {str(tmp_path / "1-noised.jsonl"): fraction} for fraction in (1.0, 0.5)
    ]


@pytest.mark.parametrize("noise", [0.0, -1.0, 2.0])
def test_noise_must_be_above_zero(recipe, noise):
    with pytest.raises(UsageError, match="wanted a noise level above 0"):
        spoilt_texts(recipe, NOTHING, noise)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 11, 39])
def test_a_shortened_recipe_takes_exactly_so_many_steps(recipe, tiny_tokenizer, steps):
    from training.plan import plan_stages

    config = {"hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 8}
    config |= {"num_attention_heads": 1}
    prepared = prepare(recipe, NOTHING, tiny_tokenizer)
    short = shortened(recipe, prepared, steps)
    again = prepare(short, NOTHING, tiny_tokenizer)
    (plan,) = plan_stages(again, short, config, 1_000, 1e12)
    assert plan.steps == steps


def test_a_recipe_that_is_short_enough_stays_as_it_is(recipe, tiny_tokenizer):
    prepared = prepare(recipe, NOTHING, tiny_tokenizer)
    assert shortened(recipe, prepared, 1_000) == recipe


def test_text_quality_is_the_mean_of_the_scores():
    clean, broken = SENTENCE.format(1), "\ufffd" * 20 + " the"
    found = text_quality([clean, broken])
    assert found.n == 2
    assert found.passing == 0.5
    assert found.score == pytest.approx(text_quality([clean]).score / 2, abs=1e-3)


def test_with_one_seed_the_crossed_bootstrap_is_the_paired_one():
    rng = np.random.default_rng(3)
    gains = rng.choice([-1, 0, 1], size=200, p=[0.3, 0.5, 0.2])
    crossed = crossed_bootstrap(gains[None])
    paired = paired_bootstrap([gains.tolist()], seed=1)
    assert crossed.low == pytest.approx(paired.low, abs=0.01)
    assert crossed.high == pytest.approx(paired.high, abs=0.01)


def test_seeds_that_answer_alike_do_not_narrow_the_interval():
    """Three copies of one run hold no more than one; drawn apart they would seem to."""
    rng = np.random.default_rng(4)
    gains = rng.choice([-1, 0, 1], size=200, p=[0.3, 0.5, 0.2])
    one, three = crossed_bootstrap(gains[None]), crossed_bootstrap(np.stack([gains] * 3))
    assert three.high - three.low == pytest.approx(one.high - one.low, rel=0.03)


def test_seeds_that_differ_widen_the_interval():
    still = np.array([[0, 0, 0, 0, 1, -1] * 20] * 3)
    apart = still + np.array([[-1], [0], [1]])
    narrow, wide = crossed_bootstrap(still), crossed_bootstrap(apart)
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)
