import json

import pytest

from training.items import Material
from training.mix import mix
from training.plan import plan_stages, plan_table
from training.preview import preview_stage
from training.recipe import LoraSettings, Recipe, Stage
from training.run import prepare

NOTHING = Material(forms={}, facts={}, fields={})


@pytest.fixture
def recipe(tmp_path, tiny_model):
    path = tmp_path / "d.jsonl"
    rows = [{"prompt": f"q{i}", "completion": "yes it is"} for i in range(30)]
    rows += [{"prompt": "q0", "completion": "yes it is"}]
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    stage = Stage(
        method="sft", data={str(path): 1.0}, learning_rate=1e-4, packing=False, batch=4,
        accumulate=2, epochs=3,
    )  # fmt: skip
    return Recipe(
        name="test", model=str(tiny_model), held_out=0.0, stages=(stage,),
        adapter=LoraSettings(rank=2, alpha=4),
    )  # fmt: skip


def test_the_preview_shows_what_counts_and_what_is_there_twice(recipe, tiny_tokenizer):
    rows = mix(recipe.stages[0], recipe, NOTHING)
    seen = preview_stage("Instruct-SFT", recipe.stages[0], rows, tiny_tokenizer)
    assert len(rows.learnt) == 31
    assert seen.duplicates == 1
    (sample,) = seen.samples
    assert sample.marked.endswith("<|im_start|>assistant\n⟦yes it is<|im_end|>⟧\n")
    assert sample.marked.count("⟦") == 1
    assert 0 < seen.counting_share < 0.5
    assert seen.length_quantiles["shortest"] <= seen.length_quantiles["longest"]


def test_the_plan_counts_steps_as_the_trainer_will(recipe, tiny_model, tiny_tokenizer):
    config = json.loads((tiny_model / "config.json").read_text("utf-8"))
    prepared = prepare(recipe, NOTHING, tiny_tokenizer)
    (plan,) = plan_stages(prepared, recipe, config, 30_000, 1e12)
    assert (plan.rows, plan.effective_batch) == (31, 8)
    assert plan.steps == 12  # ceil(31 / 8) steps an epoch, three epochs
    assert plan.tokens == 3 * prepared[0].tokens
    assert "effective batch 8 rows, 12 steps" in "\n".join(plan_table([plan]))
