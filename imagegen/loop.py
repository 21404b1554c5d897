"""The loop both trainings share: rate, step, average, metrics, checkpoints, resume."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imagegen.checkpoint import load_checkpoint, save_checkpoint
from orbweave.files import write_bytes
from orbweave.subnormals import without_subnormals

__all__ = ["METRICS", "drop_rows_after", "fit"]

log = logging.getLogger(__name__)

CHECKPOINT_S = 300.0
"""Seconds between two checkpoints."""
TELL_STEPS = 50
"""Steps between two rows of `METRICS`."""
METRICS = "metrics.jsonl"


@without_subnormals()
def fit(
    out: Path,
    model: nn.Module,
    losses: Callable[[int], Callable[[], tuple[Tensor, dict[str, float]]]],
    *,
    rate: Callable[[int], float],
    steps: int,
    ema_decay: float,
    weight_decay: float,
) -> None:
    """Train `model` in place until `steps` steps in all are done.

    Args:
        out: Run folder; the newest checkpoint there is continued, and so is `metrics.jsonl` from
            that step on.
        model: What learns.
        losses: Called once with the first step's number; returns a function that draws a
            batch and returns its loss and figures to log.
        rate: Learning rate of a step.
        steps: Steps in all, those of earlier runs included.
        ema_decay: Of the moving average of the weights, which is what gets exported.
        weight_decay: Of AdamW.
    """
    out.mkdir(parents=True, exist_ok=True)
    swa: Any = torch.optim.swa_utils
    ema = swa.AveragedModel(model, multi_avg_fn=swa.get_ema_multi_avg_fn(ema_decay))
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=rate(0), betas=(0.9, 0.98), weight_decay=weight_decay, foreach=True
    )
    parts = {"model": model, "ema": ema, "optimiser": optimiser}
    start = load_checkpoint(out, parts)
    drop_rows_after(start, out / METRICS)
    next_loss = losses(start)
    saved = told = time.monotonic()
    told_at = start  # of a run that goes on, no multiple of TELL_STEPS
    mean: float | None = None
    with (out / METRICS).open("a") as metrics:
        for step in range(start, steps):
            for group in optimiser.param_groups:
                group["lr"] = rate(step)
            loss, figures = next_loss()
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            ema.update_parameters(model)
            mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
            now = time.monotonic()
            if step % TELL_STEPS == TELL_STEPS - 1:
                s_per_step = (now - told) / (step + 1 - told_at)
                row = {"step": step + 1, "loss": mean, "s_per_step": s_per_step}
                row = {k: round(v, 4) for k, v in (row | figures).items()}
                metrics.write(json.dumps(row) + "\n")
                metrics.flush()
                log.info("%s", row)
                told, told_at = now, step + 1
            if now - saved > CHECKPOINT_S or step + 1 == steps:
                save_checkpoint(out, step + 1, parts)
                saved = now


def drop_rows_after(step: int, path: Path) -> None:
    """Cut from a run's metrics the rows of steps after `step`, which are taken again.

    What is no row, for a crash tore it, goes too; all others stay, in their order.

    Raises:
        OutputError: the disk refused; the file is as it was.
    """
    if not path.is_file():
        return
    before = path.read_bytes()
    rows = b"".join(row + b"\n" for row in before.splitlines() if _step_of(row) <= step)
    if rows != before:
        write_bytes(path, rows)


def _step_of(row: bytes) -> float:
    """The step a row tells of; of what is no row, infinity."""
    try:
        return float(json.loads(row)["step"])
    except (ValueError, TypeError, KeyError):
        return math.inf
