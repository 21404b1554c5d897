"""One training stage on TRL and PEFT; the only file that touches them.

CPT and SFT are handed token ids and labels (`training.tokens`), DPO and ORPO templated text,
so what is trained on is decided in this project and seen in the preview.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from datasets import disable_progress_bars as quiet_datasets
from peft import LoraConfig, PeftModel, get_peft_model
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
from transformers.utils import logging as transformers_logging

from orbweave.errors import ModelError, UsageError
from orbweave.files import write_text
from training.head import use_compact_head
from training.recipe import LoraSettings, Stage
from training.rows import Row
from training.tokens import Encoded, pair_texts, prepare_tokenizer

__all__ = ["CHECKPOINT_S", "StageJob", "load_tokenizer", "machine_flops", "run_stage"]

log = logging.getLogger(__name__)

CHECKPOINT_S = 300.0
"""Seconds between two checkpoints."""
_COMPLETE = "complete.json"
"""Written last into a checkpoint; a folder without it is the rest of a crash."""
_LOG_STEPS = 10


@dataclass(frozen=True)
class StageJob:
    """Everything one stage needs."""

    model: Path
    """Folder of the model that learns."""
    adapter: Path | None
    """Folder of the adapter to go on from; None starts a new one, if there is one."""
    lora: LoraSettings | None
    stage: Stage
    learnt: Sequence[Encoded] | Sequence[Row]
    """Token rows for CPT and SFT, preferences for DPO and ORPO."""
    held_out: Sequence[Encoded] | Sequence[Row]
    tokenizer: Any
    """As `load_tokenizer` gives it."""
    work: Path
    """Folder of checkpoints and metrics; an interrupted stage goes on from there."""
    seed: int
    gradient_checkpointing: bool = False
    shows_progress: bool = True


def load_tokenizer(model: Path, template: Path | None = None) -> Any:
    """Return a model's tokenizer ready for training, with another's chat template if given.

    Raises:
        UsageError: see `prepare_tokenizer`.
    """
    load: Any = AutoTokenizer.from_pretrained
    tokenizer = prepare_tokenizer(load(model, local_files_only=True))
    if template is not None:
        tokenizer.chat_template = load(template, local_files_only=True).chat_template
    return tokenizer


def run_stage(job: StageJob, save: Callable[[Any, Any], None]) -> dict[str, Any]:
    """Train one stage to its end and hand (model, tokenizer) to `save`.

    Returns:
        Figures: steps, seconds, train_loss, held_out_loss, tokens_per_s.

    Raises:
        UsageError: no row is left to learn from.
        ModelError: the adapter does not fit the model.
    """
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    torch.set_flush_denormal(True)
    quiet_datasets()
    quiet: Any = transformers_logging.disable_progress_bar
    quiet()
    torch.manual_seed(job.seed)
    tokenizer = job.tokenizer
    model = _load(job)
    job.work.mkdir(parents=True, exist_ok=True)
    watch = _Watch(job.work, job.shows_progress)
    trainer = _trainer(job, model, tokenizer, [watch])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = trainer.train(resume_from_checkpoint=_newest_checkpoint(job.work))
        figures = {
            "steps": int(trainer.state.global_step),
            "train_loss": float(result.training_loss),
            "seconds": round(watch.seconds, 1),
            "tokens_per_s": round(watch.tokens / watch.seconds) if watch.seconds else None,
            "held_out_loss": _held_out_loss(trainer) if len(job.held_out) else None,
        }
    trained = trainer.accelerator.unwrap_model(trainer.model)
    if trainer.accelerator.is_main_process:
        save(trained, tokenizer)
    return figures


def _load(job: StageJob) -> Any:
    """Return the model, with its adapter if there is one.

    A frozen model may be bf16; weights that learn stay in float32, or small steps are lost.
    """
    load: Any = AutoModelForCausalLM.from_pretrained
    frozen = job.lora is not None
    model = load(
        job.model,
        local_files_only=True,
        dtype=torch.bfloat16 if frozen else torch.float32,
        attn_implementation="sdpa",
    )
    model.config.use_cache = False
    if job.lora is None:
        return model
    if job.adapter is not None:
        try:
            return PeftModel.from_pretrained(model, str(job.adapter), is_trainable=True)
        except (ValueError, RuntimeError, OSError) as err:
            raise ModelError(
                f"wanted an adapter of {job.model.name} in {job.adapter}, it does not fit: {err}"
            ) from err
    settings = LoraConfig(
        r=job.lora.rank,
        lora_alpha=job.lora.alpha,  # type: ignore[arg-type]  # scaled by a quotient, so any number
        lora_dropout=job.lora.dropout,
        use_dora=job.lora.dora,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, settings)


def _trainer(job: StageJob, model: Any, tokenizer: Any, callbacks: list[Any]) -> Any:
    """Return TRL's trainer of the stage's method."""
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    stage = job.stage
    common = _settings(job)
    if stage.method in {"cpt", "sft"}:
        learnt, held = _token_set(job.learnt), _token_set(job.held_out)
        strategy = "bfd_split" if stage.method == "cpt" else "bfd"
        args: Any = SFTConfig(**common, packing=stage.packing, packing_strategy=strategy)
        trainer: Any = SFTTrainer
    else:
        learnt, held = _pair_set(tokenizer, job.learnt), _pair_set(tokenizer, job.held_out)
        if stage.method == "dpo":
            args, trainer = DPOConfig(**common, beta=stage.beta), DPOTrainer
        else:
            # Its collator needs every column.
            args = ORPOConfig(**common, beta=stage.beta, remove_unused_columns=False)
            trainer = ORPOTrainer
    if not len(learnt):
        raise UsageError(f"wanted rows to learn from in the stage {stage.method}, found none")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = trainer(
            model=model,
            args=args,
            train_dataset=learnt,
            eval_dataset=held if len(held) else None,
            processing_class=tokenizer,
            callbacks=callbacks,
        )
    made.remove_callback(PrinterCallback)
    if not torch.cuda.is_available() and stage.method != "orpo":
        use_compact_head(model.get_base_model() if job.lora else model)
    return made


def _settings(job: StageJob) -> dict[str, Any]:
    """Return the arguments every trainer takes; the processor decides on bf16."""
    stage = job.stage
    on_gpu = torch.cuda.is_available()
    packs = stage.packing and stage.method in {"cpt", "sft"}
    grouped = not packs and stage.method != "dpo"  # whose trainer drops the lengths
    return {
        "output_dir": str(job.work),
        "per_device_train_batch_size": stage.batch,
        "per_device_eval_batch_size": stage.batch,
        "gradient_accumulation_steps": stage.accumulate,
        "learning_rate": stage.learning_rate,
        "lr_scheduler_type": stage.schedule,
        "warmup_steps": stage.warmup if stage.warmup < 1 else int(stage.warmup),
        "num_train_epochs": stage.epochs,
        "max_length": stage.max_length,
        "max_grad_norm": stage.max_grad_norm,
        "weight_decay": stage.weight_decay,
        "gradient_checkpointing": job.gradient_checkpointing,
        "bf16": torch.cuda.is_bf16_supported() if on_gpu else _has_fast_bf16(),
        "use_cpu": not on_gpu,
        # Rows of like length together: no padding, and attention over a row is quadratic.
        "train_sampling_strategy": "group_by_length" if grouped else "random",
        "dataloader_pin_memory": on_gpu,
        "seed": job.seed,
        "data_seed": job.seed,
        "eval_strategy": "epoch" if len(job.held_out) else "no",
        "save_strategy": "epoch" if stage.keep_epochs else "no",
        "save_total_limit": None if stage.keep_epochs else 2,
        "logging_steps": _LOG_STEPS,
        "report_to": "none",
        "disable_tqdm": True,  # `_Watch` draws one bar
    }


def _has_fast_bf16() -> bool:
    """Whether the processor multiplies bf16 natively; elsewhere it is slower than float32."""
    check: Any = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(check and check())


def _token_set(rows: Sequence[Any]) -> Any:
    return Dataset.from_dict(
        {
            "input_ids": [row.input_ids for row in rows],
            "labels": [row.labels for row in rows],
            "length": [len(row.input_ids) for row in rows],
        }
    )


def _pair_set(tokenizer: Any, rows: Sequence[Any]) -> Any:
    pairs = [pair_texts(tokenizer, row) for row in rows]
    columns = {name: [pair[name] for pair in pairs] for name in ("prompt", "chosen", "rejected")}
    # Characters stand for tokens: only their order matters.
    lengths = [len(p["prompt"]) + max(len(p["chosen"]), len(p["rejected"])) for p in pairs]
    return Dataset.from_dict(columns | {"length": lengths})


def _held_out_loss(trainer: Any) -> float | None:
    for row in reversed(trainer.state.log_history):
        if "eval_loss" in row:
            return round(float(row["eval_loss"]), 4)
    return None


def _newest_checkpoint(work: Path) -> str | None:
    """Return the newest whole checkpoint; the rests of a crash are removed."""
    whole: list[tuple[int, Path]] = []
    for folder in work.glob("checkpoint-*"):
        if (folder / _COMPLETE).is_file():
            whole.append((int(folder.name.rpartition("-")[2]), folder))
        else:
            log.info("removing the unfinished checkpoint %s", folder)
            shutil.rmtree(folder)
    return str(max(whole)[1]) if whole else None


class _Watch(TrainerCallback):
    """Checkpoints by the clock, a mark on whole ones, metrics as rows."""

    def __init__(self, work: Path, shows_progress: bool) -> None:
        self.work = work
        self.bar: Any = None
        self.shows_progress = shows_progress
        self.seconds = 0.0
        self.tokens = 0.0
        self._started = self._saved = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._started = self._saved = time.monotonic()
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc=self.work.name.removeprefix(".work-").rpartition("-")[0],
            unit="step",
            disable=None if self.shows_progress and state.is_world_process_zero else True,
        )

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.close()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        now = time.monotonic()
        self.seconds = now - self._started
        self.bar.update(state.global_step - self.bar.n)
        if now - self._saved > CHECKPOINT_S and state.global_step < state.max_steps:
            control.should_save = True
            self._saved = now

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = self.work / f"checkpoint-{state.global_step}"
        sizes = {f.name: f.stat().st_size for f in sorted(folder.iterdir()) if f.is_file()}
        write_text(folder / _COMPLETE, json.dumps(sizes) + "\n")

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        if not logs or not state.is_world_process_zero:
            return
        self.tokens = float(logs.get("num_tokens", self.tokens))
        logs = {name: value for name, value in logs.items() if "entropy" not in name}
        if "loss" in logs:
            self.bar.set_postfix(loss=f"{float(logs['loss']):.3f}")
        row = {"step": state.global_step, "seconds": round(time.monotonic() - self._started, 1)}
        with (self.work / "metrics.jsonl").open("a") as metrics:
            metrics.write(json.dumps(row | logs) + "\n")


def machine_flops() -> float:
    """Return the operations a second of a large matrix product here, in the type trained in."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    fast = device == "cuda" or _has_fast_bf16()
    a = torch.ones(2048, 2048, dtype=torch.bfloat16 if fast else torch.float32, device=device)
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        # Reading a value waits for the device.
        float((a @ a)[0, 0])
        best = min(best, time.perf_counter() - started)
    return float(2 * 2048**3 / best)
