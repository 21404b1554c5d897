"""The plan's arithmetic, and what it says of a machine that has other work."""

from __future__ import annotations

import dataclasses

import pytest

from training.machine import machine_speed
from training.plan import StagePlan, plan_stages, plan_table, steps_per_epoch
from training.recipe import LoraSettings, Recipe, Stage
from training.run import PreparedStage
from training.tokens import Encoded

CONFIG = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "intermediate_size": 16,
    "num_attention_heads": 2,
}


def prepared(rows: int, tokens: int, **settings) -> PreparedStage:
    stage = Stage(method="sft", data={"qa": 1.0}, learning_rate=1e-4, **settings)
    learnt = [Encoded([1] * (tokens // rows), [1] * (tokens // rows))] * rows
    longest = tokens // rows
    return PreparedStage("Instruct-SFT", stage, learnt, [], {"qa": rows}, 0, tokens, longest, "")


def planned(stage: PreparedStage, **more) -> StagePlan:
    recipe = Recipe(name="a", model="base", stages=(stage.stage,), adapter=LoraSettings(rank=2))
    (plan,) = plan_stages([stage], recipe, CONFIG, 1_000, 1e9, **more)
    return plan


@pytest.mark.parametrize(("processes", "steps"), [(1, 13), (2, 7), (4, 4)])
def test_an_epoch_has_as_many_steps_as_effective_batches(processes, steps):
    stage = prepared(100, 1_000, batch=4, accumulate=2, packing=False)
    assert steps_per_epoch(stage, processes) == steps  # ceil(100 / (8 x processes))


def test_packed_rows_are_counted_by_their_tokens():
    stage = prepared(100, 1_000, batch=4, max_length=50, packing=True)
    assert steps_per_epoch(stage) == 5  # 1,000 tokens in rows of 50, four at a time


def test_time_is_that_of_the_operations_and_does_not_depend_on_the_processes():
    stage = prepared(100, 1_000, epochs=3, packing=False)
    seconds = 3_000 * 4 * 1_000 / (1e9 * 0.8)  # tokens x 4 operations x weights
    assert planned(stage).hours * 3600 == pytest.approx(seconds)
    assert planned(stage, processes=2).hours == planned(stage).hours


def test_a_busy_machine_is_said_to_be_one():
    plan = planned(prepared(10_000, 10_000_000, epochs=10, packing=False))
    hours = plan.hours
    quiet, busy = plan_table([plan]), plan_table([plan], share=0.25)
    assert quiet == busy[:-1]
    assert quiet[-1] == f"in all about {hours * 60:.0f} min on this machine if it does nothing else"
    told = f"other work leaves 25% of it now: about {hours * 4 * 60:.0f} min like this"
    assert busy[-1] == told


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A tiny Llama, as wide for its hidden units as SmolLM2-135M is."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("llama")
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3}
    config = LlamaConfig(
        hidden_size=144, intermediate_size=384, num_hidden_layers=2, vocab_size=64, **heads
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def kept_bytes(model, n: int, *, bf16: bool) -> int:
    """Bytes of all tensors autograd keeps in one pass over n tokens."""
    import torch

    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    arithmetic = torch.autocast("cpu", torch.bfloat16, enabled=bf16)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), arithmetic:
        model.get_decoder()(input_ids=torch.ones(1, n, dtype=torch.long), use_cache=False)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("lora", [LoraSettings(rank=2), None])
def test_a_token_takes_the_memory_that_training_keeps_of_it(llama, lora, bf16, monkeypatch):
    import torch

    from training.stages import StageJob, _load

    chosen = torch.bfloat16 if bf16 else torch.float32
    monkeypatch.setattr("training.stages.number_type", lambda: chosen)
    stage = Stage(method="sft", data={"qa": 1.0}, learning_rate=1e-4, batch=1, packing=False)
    model = _load(StageJob(llama, None, lora, stage, [], [], None, llama, seed=0)).train()
    model = model.get_base_model() if lora else model
    counted = kept_bytes(model, 200, bf16=bf16) - kept_bytes(model, 100, bf16=bf16)
    recipe = Recipe(name="a", model="base", stages=(stage,), adapter=lora)
    config = model.config.to_dict()
    rows = (prepared(1, n, batch=1, packing=False) for n in (100, 200))
    shorter, longer = plan_stages(list(rows), recipe, config, 1_000, 1e9, bf16=bf16)
    assert (longer.memory_gb - shorter.memory_gb) * 1e9 == pytest.approx(counted, rel=0.1)


def test_the_longest_row_decides_on_the_memory_and_checkpointing_saves_most_of_it():
    stage = prepared(10, 5_000, batch=8, max_length=2_000, packing=False)
    wide = dataclasses.replace(stage, longest=1_900)
    assert planned(wide).memory_gb > planned(stage).memory_gb
    assert planned(dataclasses.replace(stage, longest=9_000)) == planned(
        dataclasses.replace(stage, longest=2_000)
    )
    recipe = Recipe(name="a", model="base", stages=(stage.stage,), gradient_checkpointing=True)
    big = CONFIG | {"num_hidden_layers": 32, "hidden_size": 4_096, "intermediate_size": 14_336}
    (thrifty,) = plan_stages([wide], recipe, big, 1_000, 1e9)
    plain = recipe.model_copy(update={"gradient_checkpointing": False})
    assert plan_stages([wide], plain, big, 1_000, 1e9)[0].memory_gb > 8 * thrifty.memory_gb


def test_the_speed_of_this_machine_is_measured(llama):
    speed = machine_speed(llama, LoraSettings(rank=2))
    assert speed.flops > 1e7  # a tiny layer is mostly overhead
    assert 0 < speed.share <= 1
