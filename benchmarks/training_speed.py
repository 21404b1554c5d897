"""Training throughput of `training.stages` beside a bare TRL and PEFT script, on the same rows.

    python benchmarks/training_speed.py --recipe smollm2-135m-generalist --stage sft --steps 24

Both get the same token ids and labels, batch, accumulation, order of lengths, optimiser, schedule
and dtype (frozen bf16 model, float32 adapter, bf16 autocast where the processor is fast in it).
The bare script is what TRL's and PEFT's documentation show: SFTTrainer with a LoraConfig. Runs
are fresh processes that take turns, so that a machine that slows down slows all of them. Tokens
count without padding; a run's time goes from the start of training to the end of its last step,
loading left out, the slow first step included. Tokens for a second of the processor's time are
shown too: they hardly change when other work runs beside.

A third kind, `plain-head`, is ours without its own output head (`training/head.py`): what is
left is what our callbacks and checkpoints cost.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

KINDS = ("ours", "bare", "plain-head")


def main() -> None:
    """Run the kinds in turn and print the table, or one run if this is a child."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="smollm2-135m-generalist", help="name or file")
    parser.add_argument("--stage", choices=("cpt", "sft"), default="sft")
    parser.add_argument("--steps", type=int, default=24, help="optimiser steps of a run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kinds", default="ours,bare", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--child", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    kinds = args.kinds.split(",")
    if not set(kinds) <= set(KINDS):
        parser.error(f"--kinds takes {', '.join(KINDS)}, got {args.kinds}")
    if args.child:
        print(json.dumps(one_run(args.child, json.loads(args.rows.read_text("utf-8")))))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.json"
        rows.write_text(json.dumps(workload(args.recipe, args.stage, args.steps)), "utf-8")
        runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
        for number in range(args.repeats):
            # Every other round backwards, so that no kind always follows the same one.
            for kind in kinds if number % 2 == 0 else reversed(kinds):
                runs[kind].append(in_child(kind, rows))
                told = runs[kind][-1]
                print(f"{kind}: {told['tokens_per_s']:.0f} tokens/s", file=sys.stderr, flush=True)
    document = summary(runs) | {"recipe": args.recipe, "stage": args.stage, "steps": args.steps}
    if args.json:
        print(json.dumps(document, indent=2))
    else:
        print(table(document))


def workload(name: str, method: str, steps: int) -> dict[str, Any]:
    """Return the rows of so many steps as token ids, and the settings both sides get."""
    from training.recipe import load_recipe
    from training.run import first_model, prepare
    from ui.material import team_material

    recipe = load_recipe(name)
    stage = next(stage for stage in recipe.stages if stage.method == method)
    recipe = recipe.model_copy(update={"stages": (stage,)})
    model, tokenizer = first_model(recipe)
    (prepared,) = prepare(recipe, team_material(), tokenizer)
    n = steps * stage.batch * stage.accumulate
    rows: list[Any] = list(prepared.learnt[:n])
    assert recipe.adapter is not None, "the bare script trains a LoRA adapter"
    one = stage.model_copy(update={"packing": False, "epochs": 1.0, "keep_epochs": False})
    return {
        "model": str(model),
        "lora": recipe.adapter.model_dump(),
        "stage": one.model_dump(),
        "seed": recipe.seed,
        "rows": rows,
        "tokens": sum(len(row.input_ids) for row in rows),
    }


def in_child(kind: str, rows: Path) -> dict[str, Any]:
    """Return what a fresh process measured."""
    command = [sys.executable, __file__, "--child", kind, "--rows", str(rows)]
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": root}, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit(f"the run of {kind} failed; its message is above")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def one_run(kind: str, work: dict[str, Any]) -> dict[str, Any]:
    """Train once and return the speeds, the times they follow from, the loss and the steps."""
    clock = Clock()
    loss, steps = bare(work, clock) if kind == "bare" else ours(work, kind, clock)
    return {
        "tokens_per_s": work["tokens"] / clock.seconds,
        "tokens_per_processor_s": work["tokens"] / clock.processor_s,
        "seconds": clock.seconds,
        "processor_s": clock.processor_s,
        "loss": loss,
        "steps": steps,
    }


class Clock:
    """The time that passed, and the time the processor gave, all threads together."""

    seconds = processor_s = 0.0

    def begin(self) -> None:
        """Start."""
        self._begun = time.monotonic(), time.process_time()

    def lap(self) -> None:
        """Note the time since the start."""
        self.seconds = time.monotonic() - self._begun[0]
        self.processor_s = time.process_time() - self._begun[1]


def ours(work: dict[str, Any], kind: str, clock: Clock) -> tuple[float, int]:
    """Train by `training.stages`."""
    from training import stages
    from training.recipe import LoraSettings, Stage
    from training.tokens import Encoded

    class TimedWatch(stages.Watch):  # type: ignore[name-defined,misc]
        def on_train_begin(self, *args: Any, **more: Any) -> None:
            super().on_train_begin(*args, **more)
            clock.begin()

        def on_step_end(self, *args: Any, **more: Any) -> None:
            super().on_step_end(*args, **more)
            clock.lap()

    module: Any = stages
    module.Watch = TimedWatch
    if kind == "plain-head":
        module.use_compact_head = lambda model: None
    with tempfile.TemporaryDirectory() as folder:
        job = stages.StageJob(
            model=Path(work["model"]),
            adapter=None,
            lora=LoraSettings(**work["lora"]),
            stage=Stage(**work["stage"]),
            learnt=[Encoded(*row) for row in work["rows"]],
            held_out=[],
            tokenizer=stages.load_tokenizer(Path(work["model"])),
            work=Path(folder) / "work",
            seed=work["seed"],
            shows_progress=False,
        )
        figures = stages.run_stage(job, lambda write, figures, epoch: None)
    return figures["train_loss"], figures["steps"]


def bare(work: dict[str, Any], clock: Clock) -> tuple[float, int]:
    """Train as the documentation of TRL and PEFT shows, on the same ids in the same order."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, TrainerCallback
    from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

    from training.stages import load_tokenizer

    stage, lora = work["stage"], work["lora"]
    fast_bf16 = bool(torch.cpu._is_avx512_bf16_supported())
    on_gpu = torch.cuda.is_available()

    class Timer(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            clock.begin()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.lap()

    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(work["model"], dtype=torch.bfloat16),
            args=SFTConfig(
                output_dir=folder,
                per_device_train_batch_size=stage["batch"],
                gradient_accumulation_steps=stage["accumulate"],
                num_train_epochs=1,
                learning_rate=stage["learning_rate"],
                lr_scheduler_type=stage["schedule"],
                warmup_steps=stage["warmup"],
                max_length=stage["max_length"],
                max_grad_norm=stage["max_grad_norm"],
                gradient_checkpointing=False,
                bf16=on_gpu or fast_bf16,
                use_cpu=not on_gpu,
                train_sampling_strategy="group_by_length",
                dataloader_pin_memory=on_gpu,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                seed=work["seed"],
                data_seed=work["seed"],
            ),
            train_dataset=Dataset.from_dict(
                {
                    "input_ids": [row[0] for row in work["rows"]],
                    "labels": [row[1] for row in work["rows"]],
                    "length": [len(row[0]) for row in work["rows"]],
                }
            ),
            processing_class=load_tokenizer(Path(work["model"])),
            peft_config=LoraConfig(
                r=lora["rank"],
                lora_alpha=lora["alpha"],
                lora_dropout=lora["dropout"],
                use_dora=lora["dora"],
                target_modules="all-linear",
                task_type="CAUSAL_LM",
            ),
            callbacks=[Timer()],
        )
        result = trainer.train()
    return result.training_loss, trainer.state.global_step


def summary(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return medians, spreads, and each kind's speed over the bare one's."""
    speeds = {kind: [run["tokens_per_s"] for run in of] for kind, of in runs.items()}
    kinds = {
        kind: {
            "tokens_per_s": statistics.median(of),
            "low": min(of),
            "high": max(of),
            "tokens_per_processor_s": statistics.median(
                run["tokens_per_processor_s"] for run in runs[kind]
            ),
            "loss": statistics.mean(run["loss"] for run in runs[kind]),
            "runs": runs[kind],
        }
        for kind, of in speeds.items()
    }
    ratios = {
        kind: {
            measure: of[measure] / kinds["bare"][measure]
            for measure in ("tokens_per_s", "tokens_per_processor_s")
        }
        for kind, of in kinds.items()
        if kind != "bare" and "bare" in kinds
    }
    return {"kinds": kinds, "times_the_bare_speed": ratios}


def table(document: dict[str, Any]) -> str:
    """Return the document as Markdown."""
    lines = [
        f"{document['recipe']}, {document['stage']}, {document['steps']} steps",
        "",
        "| kind | tokens/s, median (lowest to highest) | times bare | tokens/processor s | "
        "times bare | mean loss |",
        "|---|---|---|---|---|---|",
    ]
    for kind, of in document["kinds"].items():
        ratio = document["times_the_bare_speed"].get(kind, {})
        passed, given = (
            f"{ratio[measure]:.2f}" if ratio else ""
            for measure in ("tokens_per_s", "tokens_per_processor_s")
        )
        lines.append(
            f"| {kind} | {of['tokens_per_s']:.0f} ({of['low']:.0f} to {of['high']:.0f}) | "
            f"{passed} | {of['tokens_per_processor_s']:.0f} | {given} | {of['loss']:.4f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
