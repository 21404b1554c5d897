"""The plan's arithmetic, and what it says of a machine that has other work."""

from __future__ import annotations

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
    return PreparedStage("Instruct-SFT", stage, learnt, [], {"qa": rows}, 0, tokens, "")


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
    seconds = 3_000 * 4 * 1_000 / (1e9 * 0.35)  # tokens x 4 operations x weights
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


def test_the_speed_of_this_machine_is_measured():
    speed = machine_speed()
    assert speed.flops > 1e9
    assert 0 < speed.share <= 1
