"""Contact sheet of the embedded image model: bare seed, seeded rendering, text alone.

    python benchmarks/pictures.py --out docs/pictures/motifs.jpg

One row of three per prompt, with nothing chosen by hand: the first seed is shown. Times and
the agreement of the rendering with its seed picture are printed as JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from imagegen import Renderer
from imagegen.captions import describe
from imagegen.choose import choose_structure
from imagegen.scene import seed_picture
from orbweave.records import RenderRequest

PROMPTS = (
    "golden orb web on black",
    "green reticulate leaf veins",
    "white cobweb tangle on black",
    "golden silk fibre bundle",
    "pink wavy collagen fibrils with cross-bands",
    "amber twisted plywood",
    "green parallel leaf veins",
    "lime leaf epidermis with stomata",
    "golden honeycomb on brown",
    "graded wood cells in amber",
    "pearl nacre bricks on navy",
    "cream trabecular bone on red",
    "teal diatom frustule on navy",
    "purple gyroid slice on black",
    "golden spider web over green leaf veins on black",
    "white honeycomb embedded in pearl nacre bricks on navy",
    "half golden honeycomb and half cream trabecular bone on black",
    "silver cobweb tangle grading into blue gyroid on black",
    "scanning electron micrograph of grey gecko setae on black",
    "teal glass sponge lattice on navy, backlit",
    "wet and glossy red branching coral on black",
    "amber pine cone scales in raking light",
    "green corrugated leaf folds on dark green",
    "white sea urchin stereom on navy in raking light",
)
CELL, LABEL = 256, 22


def main() -> None:
    """Render the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--columns", type=int, default=3, help="prompts per row")
    parser.add_argument("--strength", type=float, default=None)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--guidance", type=float, default=None)
    args = parser.parse_args()
    given = {k: getattr(args, k) for k in ("strength", "steps", "guidance") if getattr(args, k)}
    renderer = Renderer()
    rows = -(-len(PROMPTS) // args.columns)
    sheet = Image.new("RGB", (args.columns * 3 * CELL, rows * (CELL + LABEL)), "white")
    draw = ImageDraw.Draw(sheet)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for i, prompt in enumerate(PROMPTS):
            x = (i % args.columns) * 3 * CELL
            y = (i // args.columns) * (CELL + LABEL)
            structure = choose_structure(prompt, args.seed)
            bare = seed_picture(structure, CELL)
            pictures, seconds = [bare], []
            for name, chosen in (("seeded", structure), ("text", None)):
                request = RenderRequest(
                    prompt=prompt, structure=chosen, seeds=(args.seed,), **given
                )
                start = time.perf_counter()
                picture = renderer.render(request, Path(folder), name=f"{name}-{i}")[0]
                seconds.append(round(time.perf_counter() - start, 2))
                pictures.append(np.asarray(Image.open(picture.path)))
            for j, pixels in enumerate(pictures):
                sheet.paste(Image.fromarray(pixels), (x + j * CELL, y + LABEL))
            draw.text((x + 4, y + 4), f"{prompt}   [seed | rendering | text alone]", fill="black")
            flat, seeded = (p.astype(np.float64).mean(2).ravel() for p in pictures[:2])
            row = {
                "prompt": prompt,
                "structure": describe(structure),
                "correlation_with_seed": round(float(np.corrcoef(flat, seeded)[0, 1]), 3),
                "mean_abs_difference": round(float(np.abs(flat - seeded).mean()), 1),
                "seconds_seeded_text": seconds,
            }
            print(json.dumps(row), flush=True)
            results.append(row)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(args.out, quality=88)
    print(json.dumps({"mean_correlation": np.mean([r["correlation_with_seed"] for r in results])}))


if __name__ == "__main__":
    main()
