"""What goes on beside the training steps: checkpoints by the clock, samples, rows of metrics."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch.distributed as dist
from tqdm.auto import tqdm
from transformers import TrainerCallback

from orbweave.files import write_text
from orbweave.memory import give_back
from training.samples import Asked, complete

__all__ = ["CHECKPOINT_S", "METRICS", "SAMPLES", "Watch", "held_out_loss", "newest_checkpoint"]

log = logging.getLogger(__name__)

CHECKPOINT_S = 300.0
"""Seconds between two checkpoints."""
_TIDY_S = 60.0
"""Seconds between two returns of free memory; each takes milliseconds."""
METRICS, SAMPLES = "metrics.jsonl", "samples.jsonl"
"""Files of a work folder: losses and rates by step; completions of held-out questions."""
_COMPLETE = "complete.json"
"""Written last into a checkpoint; a folder without it is the rest of a crash."""


def newest_checkpoint(work: Path) -> str | None:
    """Return the newest whole checkpoint; the rests of a crash are removed."""
    whole: list[tuple[int, Path]] = []
    for folder in work.glob("checkpoint-*"):
        if (folder / _COMPLETE).is_file():
            whole.append((int(folder.name.rpartition("-")[2]), folder))
        else:
            log.info("removing the unfinished checkpoint %s", folder)
            shutil.rmtree(folder)
    return str(max(whole)[1]) if whole else None


def held_out_loss(state: Any) -> float | None:
    """Return the last loss on held-out rows in a trainer's state."""
    for row in reversed(state.log_history):
        if "eval_loss" in row:
            return round(float(row["eval_loss"]), 4)
    return None


class Watch(TrainerCallback):
    """Checkpoints by the clock, a mark on whole ones, samples, metrics as rows."""

    def __init__(
        self,
        work: Path,
        tokenizer: Any,
        asked: Sequence[Asked],
        keep_epoch: Callable[[dict[str, Any], int], None] | None,
        shows_progress: bool,
        on_step: Callable[[int, int], None] = lambda step, steps: None,
    ) -> None:
        """Watch over one training.

        Args:
            work: Folder of checkpoints, metrics and samples.
            tokenizer: Of the model, for its samples.
            asked: What it is asked at each checkpoint; empty asks nothing.
            keep_epoch: Is given figures and number of each finished epoch, in all processes.
            shows_progress: Draw a bar on stderr.
            on_step: Is told (step, steps) where training begins or goes on, and after each step.
        """
        self.work = work
        self.tokenizer = tokenizer
        self.asked = asked
        self.keep_epoch = keep_epoch
        self.shows_progress = shows_progress
        self.on_step = on_step
        self.bar: Any = None
        self.seconds = 0.0
        self.tokens = 0.0
        self._started = self._saved = self._tidied = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin the bar, and the rows where a resumed training begins."""
        self._started = self._saved = time.monotonic()
        if state.is_world_process_zero:
            for name in (METRICS, SAMPLES):
                _forget_after(self.work / name, state.global_step)
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc=self.work.name.removeprefix(".work-").rpartition("-")[0],
            unit="step",
            disable=None if self.shows_progress and state.is_world_process_zero else True,
        )
        self.on_step(state.global_step, state.max_steps)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the bar."""
        self.bar.close()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for a checkpoint and return free memory when it is time."""
        now = time.monotonic()
        self.seconds = now - self._started
        self.bar.update(state.global_step - self.bar.n)
        self.on_step(state.global_step, state.max_steps)
        is_due = _as_the_first_says(now - self._saved > CHECKPOINT_S)
        is_saved_anyway = self.keep_epoch is not None and _ends_an_epoch(state)
        if is_due and state.global_step < state.max_steps and not is_saved_anyway:
            control.should_save = True
            self._saved = now
        if now - self._tidied > _TIDY_S:
            give_back()
            self._tidied = now

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Ask the model, keep the epoch, and only then call the checkpoint whole."""
        _wait_for_all()  # each process writes a part of the checkpoint
        if self.asked and state.is_world_process_zero:
            replies = complete(model, self.tokenizer, self.asked)
            for one, reply in zip(self.asked, replies, strict=True):
                row = {"step": state.global_step, "prompt": one.prompt, "wanted": one.wanted}
                _append(self.work / SAMPLES, row | {"reply": reply})
        if self.keep_epoch is not None and _ends_an_epoch(state):
            figures = {"steps": state.global_step, "held_out_loss": held_out_loss(state)}
            self.keep_epoch(figures, round(state.epoch))
        if state.is_world_process_zero:
            folder = self.work / f"checkpoint-{state.global_step}"
            sizes = {f.name: f.stat().st_size for f in sorted(folder.iterdir()) if f.is_file()}
            write_text(folder / _COMPLETE, json.dumps(sizes) + "\n")

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Write a row of metrics."""
        if not logs or not state.is_world_process_zero:
            return
        self.tokens = float(logs.get("num_tokens", self.tokens))
        logs = {name: value for name, value in logs.items() if "entropy" not in name}
        if "loss" in logs:
            self.bar.set_postfix(loss=f"{float(logs['loss']):.3f}")
        row = {"step": state.global_step, "seconds": round(time.monotonic() - self._started, 1)}
        _append(self.work / METRICS, row | logs)


def _ends_an_epoch(state: Any) -> bool:
    return float(state.epoch).is_integer()


def _as_the_first_says(flag: bool) -> bool:
    """Return what the first process thinks: clocks differ, but all must save at one step."""
    if not (dist.is_available() and dist.is_initialized()):
        return flag
    said = [flag]
    dist.broadcast_object_list(said)
    return said[0]


def _wait_for_all() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.barrier()


def _append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as rows:
        rows.write(json.dumps(row, ensure_ascii=False) + "\n")


def _forget_after(path: Path, step: int) -> None:
    """Leave out the rows of steps that a resumed run does again, and one torn by a crash."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text("utf-8", errors="replace").split("\n")[:-1]:
        with suppress(ValueError):
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
    write_text(path, "".join(kept))
