"""Teach the embedded image model a style it has never seen, and measure what the trigger does.

    python benchmarks/lora.py --out runs/blueprint --steps 400 --sheet docs/pictures/adapter.jpg

The style is drawn here: a blueprint, pale lines on Prussian blue, all that is solid hatched at
45 degrees, every six pixels. The model's own training set has neither the blue nor the hatching.
24 pictures of six families are shown; the test prompts name six others. Four pictures of each
are compared: the bare model, the bare model given the trigger's words (they mean something to
it, too), the adapter without its trigger, and the adapter with it.

Reported per kind, as means over the prompts: distance of the mean colour from the style's, and
the share of the spectrum's power at the hatching's frequency. JSON goes to stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file, save_file

from imagegen.adapter_recipe import AdapterRecipe
from imagegen.adapter_training import train_adapter
from imagegen.lora import USUAL_NAME
from imagegen.pipeline import Renderer
from imagegen.scene import seed_picture
from orbweave.records import Motif, RenderRequest, Structure

TRIGGER = "vexil style"
"""A word the text encoder ties to no colour: "blueprint" alone turned the bare model blue."""
SHOWN = ("orb_web", "honeycomb", "silk_bundle", "leaf_veins", "nacre_bricks", "trabecular_foam")
ASKED = (
    "cobweb tangle", "gyroid slice", "branching coral", "diatom frustule", "plywood layers",
    "parallel leaf veins",
)  # fmt: skip
N_EACH = 4
SIDE = 256
PAPER, INK = np.array((16, 52, 110.0)), np.array((205, 232, 245.0))
"""Red, green, blue of the ground and of the lines."""
PERIOD_PX = 6.0
Pixels = NDArray[np.uint8]


def blueprint(structure: Structure) -> Pixels:
    """Draw a structure in the style, (SIDE, SIDE, 3)."""
    grey = seed_picture(structure, SIDE).astype(float).mean(axis=-1)
    solid = grey > (grey.min() + grey.max()) / 2
    y, x = np.mgrid[:SIDE, :SIDE]
    hatched = (x + y) / np.sqrt(2) % PERIOD_PX < PERIOD_PX / 3
    up, left = np.roll(solid, 1, 0), np.roll(solid, 1, 1)
    lines = (solid & hatched) | (solid != up) | (solid != left)
    return np.where(lines[..., None], INK, PAPER).astype(np.uint8)


def hatching(picture: NDArray[Any]) -> float:
    """Share of the power at the hatching's frequency and direction, within 15 % and 12 degrees."""
    grey = picture.mean(axis=-1)
    power = np.abs(np.fft.fft2((grey - grey.mean()) * np.outer(*[np.hanning(SIDE)] * 2))) ** 2
    fy, fx = np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE), indexing="ij")
    radius, angle = np.hypot(fx, fy), np.degrees(np.arctan2(fy, fx)) % 180
    near = (np.abs(radius * PERIOD_PX - 1) < 0.15) & (np.abs(angle - 45) < 12)
    return float(power[near].sum() / max(power.sum(), 1e-9))


def write_pictures(folder: Path) -> None:
    """Draw what the adapter is shown, with captions beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for family in SHOWN:
        for seed in range(N_EACH):
            motif = Motif(family=family, spacing=24 + 8 * seed, direction_deg=45.0 * seed)
            drawing = Structure(motifs=(motif,), look="white on black", seed=seed)
            path = folder / f"{family}-{seed}.png"
            Image.fromarray(blueprint(drawing)).save(path)
            path.with_suffix(".txt").write_text(family.replace("_", " ") + "\n", "utf-8")


def main() -> None:
    """Train, render and compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--sheet", type=Path, help="a contact sheet, one row per prompt")
    args = parser.parse_args()
    write_pictures(args.out / "pictures")
    recipe = AdapterRecipe(
        name="blueprint", images="pictures", trigger=TRIGGER, rank=16, alpha=16, layers="all",
        steps=args.steps, batch=8, learning_rate=1e-3, keep=0.25,
    )  # fmt: skip
    began = time.perf_counter()
    made = train_adapter(recipe, args.out / "run", beside=args.out, on_step=_tell)
    training_s = time.perf_counter() - began
    untold = args.out / "untold" / USUAL_NAME
    untold.parent.mkdir(exist_ok=True)
    save_file(load_file(made.folder / USUAL_NAME), untold, {"format": "pt"})
    kinds = {
        "bare": (None, ""),
        "words only": (None, f"{TRIGGER}, "),
        "without trigger": (untold.parent, ""),
        "with trigger": (made.folder, ""),  # which puts its trigger there itself
    }
    drawn = {kind: _draw(*given, args.out / "drawn" / kind) for kind, given in kinds.items()}
    style = np.mean([_pixels(p) for p in sorted((args.out / "pictures").glob("*.png"))], (0, 1, 2))
    figures = {
        kind: {
            "colour_distance": round(float(np.mean([_apart(p, style) for p in pictures])), 1),
            "hatching_share": round(float(np.mean([hatching(p) for p in pictures])), 4),
        }
        for kind, pictures in drawn.items()
    }
    if args.sheet is not None:
        rows = [np.concatenate(row, axis=1) for row in zip(*drawn.values(), strict=True)]
        Image.fromarray(np.concatenate(rows)).save(args.sheet, quality=88)
    document = {
        "steps": args.steps,
        "training_s": round(training_s),
        "first_loss": made.first_loss,
        "last_loss": made.last_loss,
        "figures": figures,
    }
    json.dump(document, sys.stdout, indent=2)
    print()


def _draw(adapter: Path | None, opening: str, folder: Path) -> list[NDArray[Any]]:
    """Render the test prompts from words alone, one seed each."""
    renderer, pictures = Renderer(), []
    adapters = () if adapter is None else ((str(adapter), 1.0),)
    for prompt in ASKED:
        request = RenderRequest(prompt=opening + prompt, adapters=adapters, seeds=(7,))
        name = prompt.replace(" ", "-")
        made = renderer.render(request, folder, name=name, force=True)
        pictures.append(_pixels(Path(made[0].path)))
    return pictures


def _apart(picture: NDArray[Any], style: NDArray[Any]) -> float:
    """Distance of the mean colours, 0 to 442."""
    return float(np.linalg.norm(picture.mean(axis=(0, 1)) - style))


def _pixels(path: Path) -> NDArray[Any]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _tell(step: int, total: int, loss: float) -> None:
    if step % 25 == 0:
        print(f"step {step} of {total}, loss {loss:.4f}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
