"""How long a picture of the embedded model takes, and against the stock pipeline.

    python benchmarks/render_speed.py --json

Everything is at its default: 256 x 256 pixels, the sampler, steps and number type a user gets.
Every part runs in a process of its own, `--runs` times, so that memory and first calls are those
of a fresh program:

    cold    `orbweave render` from its start to its end: one seeded picture and its measurement
    loaded  once a picture was drawn: single seeded pictures, single ones from words alone, and a
            batch of eight seeded ones in one request
    stock   diffusers' own pipelines of the same weights and prompts in float32 with 50 steps and
            the scheduler in the model's folder: from words, and from the drawing with the
            ControlNet at our strength

`processor_` are seconds of all cores together: what a picture costs where others work beside it.
`times` compares medians: from words with from words, seeded with seeded, and ours as it comes
(seeded) with stock as it comes (from words). With `--classifier` seeded pictures of both are
judged (`imagegen.follow`). About four minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from orbweave.records import Motif, RenderRequest, Structure

ROOT = Path(__file__).parent.parent
CASES = (
    ("orb_web", "golden on black"), ("leaf_veins", "green on dark green"),
    ("honeycomb", "amber on brown"), ("nacre_bricks", "pearl on navy"),
)  # fmt: skip
SINGLES = len(CASES)
BATCH = 8
STOCK_STEPS = 50
WAYS = {"seeded_s": True, "words_s": False}
"""Figures, and whether the pictures start from a drawing."""


def request(i: int, *, seeded: bool) -> RenderRequest:
    """Return the request of one picture."""
    family, look = CASES[i % len(CASES)]
    structure = Structure(motifs=(Motif(family=family),), look=look, seed=i)
    prompt = f"{family.replace('_', ' ')}, {look}"
    return RenderRequest(prompt=prompt, structure=structure if seeded else None, seeds=(i,))


def cold(folder: Path) -> dict[str, Any]:
    """Run the command once; seconds and peak memory of its process."""
    command = [sys.executable, "-m", "ui.cli", "render", "golden orb web on black", "--quiet"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    began = time.perf_counter()
    process = subprocess.Popen([*command, "--out", str(folder / "cold")], env=env, cwd=folder)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the command failed with exit code {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    return {"seconds": [seconds], "peak_mb": [used.ru_maxrss * unit / 1e6]}


def loaded(folder: Path) -> dict[str, Any]:
    """Time pictures of one renderer; the first of each way is not counted."""
    from imagegen import Renderer

    renderer = Renderer()

    def single(i: int, seeded: bool) -> None:
        name = f"{i}-{'seeded' if seeded else 'words'}"
        renderer.render(request(i, seeded=seeded), folder, name=name, force=True)

    told = _timed_ways(single)
    many = request(0, seeded=True).model_copy(update={"seeds": tuple(range(BATCH))})
    began = time.perf_counter()
    renderer.render(many, folder)
    return told | {"batch_s": [(time.perf_counter() - began) / BATCH]}


def stock(folder: Path) -> dict[str, Any]:
    """Time diffusers' own pipelines of the same weights likewise."""
    import diffusers
    import torch
    from PIL import Image

    from imagegen.assembly import assembled
    from imagegen.scene import seed_picture

    model = assembled().folder
    load: Any = diffusers.StableDiffusionPipeline.from_pretrained
    words = load(model, dtype=torch.float32, local_files_only=True)
    net = diffusers.ControlNetModel.from_pretrained(
        model / "controlnet", torch_dtype=torch.float32, local_files_only=True
    )
    build: Any = diffusers.StableDiffusionControlNetImg2ImgPipeline
    held = build(**words.components, controlnet=net, requires_safety_checker=False)
    for pipe in (words, held):
        pipe.set_progress_bar_config(disable=True)

    def single(i: int, seeded: bool) -> None:
        asked = request(i, seeded=seeded)
        options: dict[str, Any] = {
            "num_inference_steps": STOCK_STEPS,
            "guidance_scale": asked.guidance,
            "generator": torch.Generator().manual_seed(i),
        }
        if asked.structure is None:
            made = words(asked.prompt, height=asked.height, width=asked.width, **options)
        else:
            drawing = Image.fromarray(seed_picture(asked.structure, asked.width))
            options |= {"image": drawing, "control_image": drawing, "strength": asked.strength}
            made = held(asked.prompt, **options)
        made.images[0].save(folder / f"{i}-{'seeded' if seeded else 'words'}.png")

    return _timed_ways(single)


def _timed_ways(single: Callable[[int, bool], None]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name, seeded in WAYS.items():
        single(0, seeded)
        told[name], told[f"processor_{name}"] = [], []
        for i in range(SINGLES):
            began, busy = time.perf_counter(), time.process_time()
            single(i, seeded)
            told[name].append(time.perf_counter() - began)
            told[f"processor_{name}"].append(time.process_time() - busy)
    return told


PARTS = {"cold": cold, "loaded": loaded, "stock": stock}


def in_child(part: str, folder: Path) -> dict[str, Any]:
    """Return what a fresh process tells of one part."""
    folder.mkdir(parents=True)
    command = [sys.executable, __file__, "--child", part, "--folder", str(folder)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def child(part: str, folder: Path) -> None:
    """Run one part and print what it tells."""
    from ui.environment import peak_memory_mb

    told = PARTS[part](folder)
    print(json.dumps({"peak_mb": [peak_memory_mb()]} | told))


def spread(values: Sequence[float]) -> dict[str, float | int]:
    """Return median, lowest and highest of some figures."""
    middle = statistics.median(values)
    told = {"median": middle, "low": min(values), "high": max(values)}
    return {name: round(value, 3) for name, value in told.items()} | {"n": len(values)}


def scores(folder: Path, weights: Path) -> dict[str, float]:
    """Return the mean score of one part's seeded pictures."""
    from imagegen.classifier import load_classifier
    from imagegen.follow import asked_by_structure, follow

    classifier = load_classifier(weights)
    found = []
    for i in range(SINGLES):
        structure = request(i, seeded=True).structure
        assert structure is not None
        asked = asked_by_structure(structure, (256, 256))
        found.append(follow(folder / f"{i}-seeded.png", asked, classifier).score)
    return {"mean": round(statistics.mean(found), 4), "lowest": round(min(found), 4)}


def main() -> None:
    """Run every part, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="fresh processes of every part")
    parser.add_argument("--classifier", type=Path, default=None, help="folder of its weights")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--child", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.folder)
        return
    document: dict[str, Any] = {"runs": args.runs}
    with TemporaryDirectory() as work:
        for part in PARTS:
            told = [in_child(part, Path(work) / f"{part}-{n}") for n in range(args.runs)]
            document[part] = {
                name: spread([value for run in told for value in run[name]]) for name in told[0]
            }
            if args.classifier is not None and part != "cold":
                document[part]["score"] = scores(Path(work) / f"{part}-0", args.classifier)
            print(f"{part}: {json.dumps(document[part])}", file=sys.stderr)
    ours, theirs = document["loaded"], document["stock"]
    pairs = {
        "from words": ("words_s", "words_s"),
        "seeded": ("seeded_s", "seeded_s"),
        "as they come": ("seeded_s", "words_s"),
    }
    document["times"] = {
        name: round(theirs[b]["median"] / ours[a]["median"], 2) for name, (a, b) in pairs.items()
    }
    if args.json:
        print(json.dumps(document, indent=1))
        return
    print(f"times as fast as the stock pipeline: {document['times']}")


if __name__ == "__main__":
    main()
