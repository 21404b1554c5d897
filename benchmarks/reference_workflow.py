"""The workflow people write first: each concept alone, one call after another.

A child of `benchmarks/batch.py`. Each turn is one `model.generate` of transformers, each picture
one call of a stock diffusers pipeline, models loaded once and one design made before the clock
starts, as there. It repeats what a batch of ours did, written down in a JSON file: the same chats,
as many new tokens to each, the same prompts, steps and sizes. Its texts are its own and are thrown
away. Where ours weighs words against each other, the scores of a scale for one, this reads the
same chat; that is counted apart, since scripts of this kind seldom do it at all.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any


def main() -> None:
    """Repeat the designs of a file and print the seconds as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="JSON of benchmarks/batch.py")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), required=True)
    parser.add_argument("--pictures", type=Path, required=True, help="folder for the pictures")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    work = json.loads(args.work.read_text("utf-8"))
    began = time.perf_counter()
    models = load(work, args.dtype)
    repeat(work["warm"], models, args.pictures, Counter())
    starting_s = time.perf_counter() - began
    spent: Counter[str] = Counter()
    began, busy = time.perf_counter(), time.process_time()
    for design in work["designs"]:
        repeat(design, models, args.pictures, spent)
    told = {
        "seconds": time.perf_counter() - began,
        "starting_s": starting_s,
        "processor_s": time.process_time() - busy,
        "designs": len(work["designs"]),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "spent_s": spent,
    }
    sys.stdout.write(json.dumps(told) + "\n")


def load(work: dict[str, Any], dtype: str) -> tuple[dict[str, Any], Any]:
    """Return ((tokenizer, model) by reference, pipeline)."""
    import torch
    from diffusers import DiffusionPipeline
    from transformers import AutoModelForCausalLM, AutoTokenizer

    number_type = getattr(torch, dtype)
    speakers = {}
    for name, folder in work["models"].items():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        speakers[name] = (tokenizer, AutoModelForCausalLM.from_pretrained(folder, dtype=dtype))
    pipe = DiffusionPipeline.from_pretrained(work["image_model"], dtype=number_type)
    pipe.set_progress_bar_config(disable=True)
    return speakers, pipe


def repeat(design: dict[str, Any], models: Any, folder: Path, spent: Counter[str]) -> None:
    """Do one design: its turns one by one, then its pictures one by one."""
    speakers, pipe = models
    for turn in design["turns"]:
        began = time.perf_counter()
        speak(*speakers[turn["model"]], turn)
        spent["talking" if turn["n_tokens"] else "weighing"] += time.perf_counter() - began
    began = time.perf_counter()
    for picture in design["pictures"]:
        draw(pipe, picture, folder)
    spent["drawing"] += time.perf_counter() - began


def speak(tokenizer: Any, model: Any, turn: dict[str, Any]) -> None:
    """Answer one chat with as many tokens as ours had; 0 only reads it."""
    import torch

    chat = [{"role": role, "content": content} for role, content in turn["messages"]]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    inputs = tokenizer(text + turn["prefix"], return_tensors="pt", add_special_tokens=False)
    if not turn["n_tokens"]:
        with torch.no_grad():
            model(**inputs, logits_to_keep=1)
        return
    torch.manual_seed(turn["seed"])
    model.generate(
        **inputs,
        do_sample=True,
        temperature=turn["temperature"],
        top_p=0.9,
        min_new_tokens=turn["n_tokens"],
        max_new_tokens=turn["n_tokens"],
        pad_token_id=tokenizer.eos_token_id,
    )


def draw(pipe: Any, picture: dict[str, Any], folder: Path) -> None:
    """Draw one picture and save it."""
    import torch

    image = pipe(
        picture["prompt"],
        negative_prompt=picture["negative_prompt"] or None,
        num_inference_steps=picture["steps"],
        guidance_scale=picture["guidance"],
        width=picture["width"],
        height=picture["height"],
        generator=torch.Generator().manual_seed(picture["seed"]),
    ).images[0]
    image.save(folder / f"{picture['seed']}.png")


if __name__ == "__main__":
    main()
