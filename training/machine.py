"""What this machine can do: GPUs, which numbers, how fast a model learns, what is left of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from orbweave.processor import multiplies_bfloat16
from training.plan import STEP_FLOPS
from training.recipe import LoraSettings

__all__ = ["Speed", "gpu_count", "machine_speed", "number_type"]

_ROWS, _LENGTH = 8, 128
"""Of the batch that is measured; shorter than most, so that attention is a small part of it."""


class Speed(NamedTuple):
    """How fast this machine is."""

    flops: float
    """Operations a second, as `training.plan` counts them, of a layer that learns, if nothing
    else runs."""
    share: float
    """Of the processor, what other work leaves now, in (0, 1]; 1 on a GPU."""
    bf16: bool
    """Whether it trains in bf16; else in float32."""


def number_type() -> torch.dtype:
    """Return bfloat16 where the GPU or the processor multiplies it natively, else float32."""
    on_gpu = torch.cuda.is_available()
    native = torch.cuda.is_bf16_supported() if on_gpu else multiplies_bfloat16()
    return torch.bfloat16 if native else torch.float32


def gpu_count() -> int:
    """Return how many GPUs torch sees."""
    return torch.cuda.device_count()


def machine_speed(model: Path, lora: LoraSettings | None, processes: int = 1) -> Speed:
    """Measure forward and backward through one layer of a model; takes some seconds.

    A matrix product alone would promise too much: where it is fast, what lies between the
    products takes most of the time. Of a processor one core is measured, by the time it had, not
    by the time that passed: other work would halve the figure, and threads that wait for each
    other make far worse of it. Several processes share a machine's cores, but have a GPU each.

    Args:
        model: Folder of the model; its configuration is read, not its weights.
        lora: The adapter that learns; None lets all weights learn.
        processes: How many share the work.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    fast = number_type() is torch.bfloat16
    layer, weights = _one_layer(model, lora)
    layer = layer.to(device)
    states = torch.full(
        (_ROWS, _LENGTH, layer.config.hidden_size),
        0.01, dtype=layer.dtype, device=device, requires_grad=True,
    )  # fmt: skip

    def learn() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=fast):
            out = layer(inputs_embeds=states, use_cache=False).last_hidden_state
        out.float().sum().backward()
        assert states.grad is not None
        float(states.grad[0, 0, 0])  # reading a value waits for the device

    n_threads = torch.get_num_threads()
    with _one_thread():
        learn()  # the first one sets things up
        started, had, n = time.perf_counter(), time.process_time(), 0
        while n < 4 or time.perf_counter() - started < 1.0:
            learn()
            n += 1
        passed, had = time.perf_counter() - started, time.process_time() - had
    flops = n * _ROWS * _LENGTH * weights * STEP_FLOPS["lora" if lora else "full"]
    if device == "cuda":
        return Speed(flops / passed * processes, 1.0, fast)
    used, n_cores = min(passed, had), min(os.cpu_count() or 1, n_threads * processes)
    return Speed(flops / used * n_cores, used / passed, fast)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _one_layer(folder: Path, lora: LoraSettings | None) -> tuple[Any, int]:
    """Return a decoder of one layer of the model's form, random weights, and their number."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    config: Any = AutoConfig.from_pretrained(folder, local_files_only=True)
    config.num_hidden_layers, config.vocab_size, config.pad_token_id = 1, 8, None
    make: Any = AutoModelForCausalLM.from_config
    model = make(config, attn_implementation="sdpa").to(number_type() if lora else torch.float32)
    named = model.get_decoder().named_parameters()
    weights = sum(w.numel() for name, w in named if w.ndim == 2 and "embed" not in name)
    if lora is not None:
        settings = LoraConfig(r=lora.rank, use_dora=lora.dora, target_modules="all-linear")
        model = get_peft_model(model, settings).get_base_model()
    return model.get_decoder().train(), weights
