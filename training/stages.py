"""One training stage on TRL and PEFT; the only file that touches them.

CPT and SFT are handed token ids and labels (`training.tokens`), DPO and ORPO templated text,
so what is trained on is decided in this project and seen in the preview.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from datasets import disable_progress_bars as quiet_datasets
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
from transformers.utils import logging as transformers_logging

from orbweave.errors import ModelError, OutputError, UsageError, shown
from orbweave.files import write_text
from orbweave.product_caches import cap_product_caches
from orbweave.subnormals import without_subnormals
from training.head import use_compact_head
from training.machine import number_type
from training.recipe import LoraSettings, Stage
from training.rows import Row
from training.samples import Asked
from training.tokens import Encoded, pair_texts, prepare_tokenizer
from training.watch import Watch, held_out_loss, newest_checkpoint

__all__ = ["Save", "StageJob", "Write", "load_tokenizer", "run_stage"]

Write = Callable[[Path], None]
"""Writes the weights as bf16 and the tokenizer into a folder."""
Save = Callable[[Write, dict[str, Any], int | None], None]
"""Is given the model's `Write`, its figures, and the epoch that ended; None at the end."""

_TORCH_WRITER = ("inline_container", "PytorchStreamWriter", "iostream error")
"""In what torch says when the disk refuses; it has no error class of its own for that."""
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
    asked: Sequence[Asked] = ()
    """Held-out questions that are answered at each checkpoint."""
    on_step: Callable[[int, int], None] = lambda step, steps: None
    """Is told (step, steps) where training begins or goes on, and after each step."""


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


@without_subnormals()
def run_stage(job: StageJob, save: Save) -> dict[str, Any]:
    """Train one stage to its end, in one process or in several.

    Args:
        job: What to train.
        save: Called at the end, and after each epoch if the stage keeps its epochs; where
            several processes train, in the first of them alone.

    Returns:
        Figures: steps, seconds, train_loss, held_out_loss, tokens_per_s; None for what was not
        measured (TRL's ORPO counts no tokens).

    Raises:
        UsageError: no row is left to learn from.
        ModelError: the adapter does not fit the model.
        OutputError: the disk is full.
    """
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    cap_product_caches()
    quiet_datasets()
    quiet: Any = transformers_logging.disable_progress_bar
    quiet()
    torch.manual_seed(job.seed)
    tokenizer = job.tokenizer
    model = _load(job)
    share = job.stage.start_share
    begun = {
        k: w.detach().clone() for k, w in model.named_parameters() if w.requires_grad and share
    }
    job.work.mkdir(parents=True, exist_ok=True)

    def finish(figures: dict[str, Any], epoch: int | None) -> None:
        write = _writer(trainer, begun, share)
        if trainer.accelerator.is_main_process:
            save(write, figures, epoch)
        trainer.accelerator.wait_for_everyone()

    keep_epoch = finish if job.stage.keep_epochs else None
    watch = Watch(job.work, tokenizer, job.asked, keep_epoch, job.shows_progress, job.on_step)
    trainer = _trainer(job, model, tokenizer, [watch])
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        watch.asked = ()  # no process holds the whole model
    with trainer.accelerator.main_process_first():
        newest = newest_checkpoint(job.work)
    with warnings.catch_warnings(), _disk_faults(job.work):
        warnings.simplefilter("ignore")
        result = trainer.train(resume_from_checkpoint=newest)
        figures = {
            "steps": int(trainer.state.global_step),
            "train_loss": float(result.training_loss) if newest is None else _mean_loss(trainer),
            "seconds": round(watch.seconds, 3),
            "tokens_per_s": round(watch.tokens / watch.seconds) if watch.tokens else None,
            "held_out_loss": held_out_loss(trainer.state) if len(job.held_out) else None,
        }
        finish(figures, None)
    return figures


def _writer(trainer: Any, begun: Mapping[str, torch.Tensor], share: float) -> Write:
    """Return what writes the model as it is now; sharded weights are gathered by all processes.

    Args:
        trainer: TRL's.
        begun: Weights at the start of the stage, by the model's names.
        share: Of these in what is written.
    """
    sharded = trainer.deepspeed if trainer.is_deepspeed_enabled else trainer.model
    state = trainer.accelerator.get_state_dict(sharded)
    cast: dict[int, torch.Tensor] = {}  # by address, so that tied weights stay one

    def as_bf16(name: str, weight: torch.Tensor) -> torch.Tensor:
        if weight.data_ptr() not in cast:
            start = begun.get(name)
            mixed = weight if start is None else weight.lerp(start.to(weight), share)
            cast[weight.data_ptr()] = mixed.to(torch.bfloat16)
        return cast[weight.data_ptr()]

    def write(folder: Path) -> None:
        model = trainer.accelerator.unwrap_model(trainer.model)
        weights = {k: as_bf16(k, v) if v.is_floating_point() else v for k, v in state.items()}
        # DPO keeps what it started from as a second adapter, no part of what it made.
        only = {"selected_adapters": ["default"]} if isinstance(model, PeftModel) else {}
        model.save_pretrained(folder, state_dict=weights, **only)
        trainer.processing_class.save_pretrained(folder)
        config = folder / "config.json"
        if config.is_file():  # a whole model, which calls itself by what it was trained in
            settings = json.loads(config.read_text("utf-8")) | {"dtype": "bfloat16"}
            write_text(config, json.dumps(settings, indent=2, sort_keys=True) + "\n")

    return write


@contextmanager
def _disk_faults(work: Path) -> Iterator[None]:
    """Say in our words that the disk refused, whichever library was writing."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as err:
        if isinstance(err, RuntimeError) and not any(w in str(err) for w in _TORCH_WRITER):
            raise
        raise OutputError(
            f"wanted to write into {work}, the system said {shown(err, 120)}; free some space "
            "and run the same again: it goes on from the last whole checkpoint"
        ) from err


def _load(job: StageJob) -> Any:
    """Return the model, with its adapter if there is one.

    A frozen model may be bfloat16; weights that learn stay in float32, or small steps are lost.
    """
    load: Any = AutoModelForCausalLM.from_pretrained
    frozen = job.lora is not None
    model = load(
        job.model,
        local_files_only=True,
        dtype=number_type() if frozen else torch.float32,
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
        "bf16": number_type() is torch.bfloat16,
        "use_cpu": not on_gpu,
        # Rows of like length together: no padding, and attention over a row is quadratic.
        "train_sampling_strategy": "group_by_length" if grouped else "random",
        "dataloader_pin_memory": on_gpu,
        # All that learns is used in every step; searching would not see into TRL's outputs.
        "ddp_find_unused_parameters": False,
        "seed": job.seed,
        "data_seed": job.seed,
        "eval_strategy": "epoch" if len(job.held_out) else "no",
        "save_strategy": "epoch" if stage.keep_epochs else "no",
        "save_total_limit": 2,
        "logging_steps": _LOG_STEPS,
        "report_to": "none",
        "disable_tqdm": True,  # `Watch` draws one bar
    }


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


def _mean_loss(trainer: Any) -> float | None:
    """Return the mean of the logged losses: the trainer's own one forgets what a kill cut off."""
    rows = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return sum(rows) / len(rows) if rows else None
