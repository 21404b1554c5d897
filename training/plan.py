"""What a recipe will cost, said before it starts: tokens, steps, time, memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from training.recipe import Recipe

if TYPE_CHECKING:
    from training.run import PreparedStage

__all__ = [
    "STEP_FLOPS",
    "StagePlan",
    "plan_stages",
    "plan_table",
    "steps_of",
    "steps_per_epoch",
]

STEP_FLOPS = {"full": 6.0, "lora": 4.0}
"""Per weight and token: forward 2, backward to the inputs 2, to the weights 2 (Kaplan et al.
2001.08361); beside LoRA the frozen weights need no gradient of their own."""
_REFERENCE_SHARE = {"cpt": 0.0, "sft": 0.0, "dpo": 2.0, "orpo": 0.0}
"""DPO runs the reference forward as well."""
_EFFICIENCY = 0.8
"""Share of the speed of one layer, on one core and times their number, that a training reaches.
SmolLM2-135M on a core of its own reached 0.97 (250 tokens a second); threads wait for others."""
_QUIET_SHARE = 0.9
"""What a machine that does nothing else still gives to its system."""
_ADAM_BYTES = 16
"""Per learning weight: float32 weight, gradient and two moments."""
_KEPT_BYTES = {
    ("lora", True): (26, 8), ("lora", False): (39, 10),
    ("full", True): (32, 8), ("full", False): (35, 16),
}  # fmt: skip
"""(adapter or all weights, in bf16 or not) -> what a layer keeps of a token for the way back, for
each hidden and each intermediate unit; counted in SmolLM2-135M by hooks on saved tensors."""
_LAYER_INPUT_BYTES = 4
"""Per token, layer and hidden unit: all that is kept with gradient checkpointing."""
_PROCESS_BYTES = 0.65e9
"""Of a process with torch and the trainer in it, before there is a model."""


@dataclass(frozen=True)
class StagePlan:
    """The arithmetic of one stage."""

    name: str
    method: str
    rows: int
    held_out: int
    too_long: int
    tokens_per_epoch: int
    epochs: float
    tokens: int
    """In all, repeats included."""
    effective_batch: int
    """Rows an optimiser step sees, over all processes."""
    steps: int
    hours: float
    """On a machine that does nothing else."""
    memory_gb: float


def plan_stages(
    prepared: Sequence[PreparedStage],
    recipe: Recipe,
    config: Mapping[str, Any],
    weights: int,
    flops: float,
    processes: int = 1,
    *,
    bf16: bool = True,
) -> list[StagePlan]:
    """Return the arithmetic of every stage.

    Args:
        prepared: The stages' rows.
        recipe: Where they come from.
        config: The model's configuration: hidden_size, num_hidden_layers, intermediate_size.
        weights: Of the model, their number.
        flops: Operations a second of a layer that learns, of everything that works: one
            machine's processors, or all GPUs together.
        processes: How many share the work.
        bf16: Whether they multiply in bf16, or in float32.
    """
    kind = "lora" if recipe.adapter else "full"
    frozen = (2 if bf16 else 4) if recipe.adapter else 0
    learning = _lora_weights(recipe.adapter.rank, config) if recipe.adapter else weights
    held = _PROCESS_BYTES + weights * frozen + learning * _ADAM_BYTES
    a_token = _bytes_per_token(config, kind, bf16=bf16, thrifty=recipe.gradient_checkpointing)
    return [
        StagePlan(
            name=stage.name,
            method=stage.stage.method,
            rows=len(stage.learnt),
            held_out=len(stage.held_out),
            too_long=stage.too_long,
            tokens_per_epoch=stage.tokens,
            epochs=stage.stage.epochs,
            tokens=round(stage.tokens * stage.stage.epochs),
            effective_batch=stage.stage.batch * stage.stage.accumulate * processes,
            steps=steps_of(stage, processes),
            hours=_seconds(stage, weights, kind, flops) / 3600,
            memory_gb=(held + _widest_batch(stage) * a_token) / 1e9,
        )
        for stage in prepared
    ]


def steps_per_epoch(stage: PreparedStage, processes: int = 1) -> int:
    """Return the optimiser steps of an epoch; of packed rows their number is a good guess."""
    settings = stage.stage
    rows = len(stage.learnt)
    if settings.packing and settings.method in {"cpt", "sft"}:
        rows = math.ceil(stage.tokens / settings.max_length)
    return math.ceil(rows / (settings.batch * settings.accumulate * processes))


def steps_of(stage: PreparedStage, processes: int = 1) -> int:
    """Return the optimiser steps of a stage; of packed rows their number is a good guess."""
    return math.ceil(steps_per_epoch(stage, processes) * stage.stage.epochs)


def plan_table(plans: Sequence[StagePlan], share: float = 1.0) -> list[str]:
    """Return the plan as lines for reading.

    Args:
        plans: The stages.
        share: Of the processor, what other work leaves at the moment, in (0, 1].
    """
    lines = []
    for plan in plans:
        lines += [
            f"{plan.name}",
            f"  rows            {plan.rows:,} learnt, {plan.held_out:,} held out"
            + (f", {plan.too_long:,} left out as too long" if plan.too_long else ""),
            f"  tokens          {plan.tokens_per_epoch:,} x {plan.epochs:g} epochs = "
            f"{plan.tokens:,}",
            f"  effective batch {plan.effective_batch} rows, {plan.steps:,} steps",
            f"  about           {_time(plan.hours)}, {plan.memory_gb:.1f} GB of memory",
        ]
    total = sum(plan.hours for plan in plans)
    lines.append(f"in all about {_time(total)} on this machine if it does nothing else")
    if share < _QUIET_SHARE:
        lines.append(
            f"other work leaves {share:.0%} of it now: about {_time(total / share)} like this"
        )
    return lines


def _seconds(stage: PreparedStage, weights: int, kind: str, flops: float) -> float:
    """Return the time of the multiplications."""
    per_token = weights * (STEP_FLOPS[kind] + _REFERENCE_SHARE[stage.stage.method])
    tokens = round(stage.tokens * stage.stage.epochs)
    return tokens * per_token / (flops * _EFFICIENCY)


def _widest_batch(stage: PreparedStage) -> int:
    """Return the tokens of the batch that decides on the memory: all rows as long as the longest.

    Rows of like length go together, so there is one.
    """
    packed = stage.stage.packing and stage.stage.method in {"cpt", "sft"}
    longest = stage.stage.max_length if packed else min(stage.longest, stage.stage.max_length)
    return stage.stage.batch * longest


def _bytes_per_token(config: Mapping[str, Any], kind: str, *, bf16: bool, thrifty: bool) -> float:
    """Return what is kept of a token for the way back; if thrifty, one whole layer at a time."""
    hidden, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
    per_hidden, per_middle = _KEPT_BYTES[kind, bf16]
    layer = per_hidden * hidden + per_middle * int(config["intermediate_size"])
    return layer + _LAYER_INPUT_BYTES * hidden * layers if thrifty else layer * layers


def _lora_weights(rank: int, config: Mapping[str, Any]) -> int:
    """Return the weights of adapters on all seven linear layers of a Llama block."""
    hidden, middle = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    kv = hidden * config.get("num_key_value_heads", heads) // heads
    sides = 2 * (hidden + hidden) + 2 * (hidden + kv) + 3 * (hidden + middle)
    return int(rank * sides * config["num_hidden_layers"])


def _time(hours: float) -> str:
    minutes = round(hours * 60)
    return f"{minutes} min" if minutes < 120 else f"{hours:.1f} h"
