"""Train the reader that tells which motifs a text means.

    python -m imagegen.reader_training --out runs/reader

Resumes from the newest checkpoint in `--out`; the finished weights go to `--out`/export. The texts
are those of `meanings.jsonl`: what a family is called, where it is seen, what it looks like, how a
designer asks for it, and words that mean none; and the names and descriptions of `imagegen.motifs`.
Some are put among words that mean none, as they stand in a prompt, and some are joined by twos.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from imagegen.assembly import encoder_folder
from imagegen.checkpoint import load_average
from imagegen.loop import fit
from imagegen.motifs import FAMILIES
from imagegen.reader import Additions, ReaderConfig, logits, save_additions, sentences
from imagegen.text_encoder import load_text_encoder

__all__ = ["MEANINGS", "Meaning", "meanings", "train"]

MEANINGS = Path(__file__).with_name("meanings.jsonl")
FRAMED_SHARE = 0.45
PAIRED_SHARE = 0.2
PAIRS = (
    "{} over {}",
    "{} beside {}",
    "{} embedded in {}",
    "an island of {} in {}",
    "{} and {}",
    "half {}, half {}",
    "on the left half {}, on the right half {}",
    "{} turning into {}",
)
"""How two texts are joined."""
SMOOTHING = 0.05
"""Of the right answers; texts are few, and some might be given another family."""
DROPOUT = 0.1
"""Of what the additions see."""
EMA_DECAY = 0.99


class Meaning(NamedTuple):
    """A text and the family it means; None where it means no motif."""

    text: str
    family: str | None


def meanings(path: Path = MEANINGS) -> list[Meaning]:
    """Read the texts, and add what families are called and look like in `imagegen.motifs`."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    own = [(text, name) for name, f in FAMILIES.items() for text in (*f.names, *f.plain)]
    texts = [(row["text"], row["family"]) for row in rows] + own
    return [Meaning(text.lower(), family) for text, family in texts]


def train(
    out: Path,
    texts: Sequence[Meaning],
    config: ReaderConfig,
    *,
    steps: int,
    batch: int,
    lr: float,
    seed: int,
) -> None:
    """Train until `steps` steps in all are done, and write the weights to `out/export`.

    Args:
        out: Run folder; the newest checkpoint there is continued.
        texts: What is learnt.
        config: What to tell apart.
        steps: Steps in all, those of earlier runs included.
        batch: Texts a step.
        lr: Highest learning rate.
        seed: Of weights and order.
    """
    torch.manual_seed(seed)
    additions = Additions(config)
    encoder = load_text_encoder(encoder_folder(), torch.float32)
    encoder.network.requires_grad_(requires_grad=False)
    for name, part in additions.places().items():
        encoder.network.get_submodule(name).register_forward_hook(_adding(part))
    classes = {family: i for i, family in enumerate((*config.families, None))}
    plain = [meaning.text for meaning in texts if meaning.family is None]

    def losses(start: int) -> Callable[[], tuple[Tensor, dict[str, float]]]:
        rng = np.random.default_rng([seed, start])
        torch.manual_seed(seed + start)  # of the dropout
        order: list[int] = []

        def loss() -> tuple[Tensor, dict[str, float]]:
            if len(order) < batch:
                order[:] = rng.permutation(len(texts)).tolist()
            shown, right = [], torch.zeros(batch, len(classes))
            for i in range(batch):
                text, families = _shown(texts[order.pop()], texts, plain, rng)
                shown.append(text)
                for family in families:
                    right[i, classes[family]] += 1 / len(families)
            told = logits(additions, sentences(encoder, shown))
            hits = right.gather(1, told.argmax(1, keepdim=True)).gt(0).float().mean().item()
            return F.cross_entropy(told, right, label_smoothing=SMOOTHING), {"top1": hits}

        return loss

    def rate(step: int) -> float:
        return lr * min(1, (step + 1) / 50) * max(0.02, 1 - step / steps)

    fit(out, additions, losses, rate=rate, steps=steps, ema_decay=EMA_DECAY, weight_decay=0.01)
    average = Additions(config)
    load_average(average, out)
    save_additions(average, config, out / "export")


def _adding(part: torch.nn.Module) -> Callable[[Any, tuple[Tensor], Tensor], Tensor]:
    def add(_layer: Any, given: tuple[Tensor], came: Tensor) -> Tensor:
        added: Tensor = part(F.dropout(given[0], DROPOUT))
        return came + added

    return add


def _shown(
    meaning: Meaning, texts: Sequence[Meaning], plain: Sequence[str], rng: np.random.Generator
) -> tuple[str, list[str | None]]:
    """A text and what it means: as it is, joined to another one, or among words of no meaning."""
    kind = rng.random()
    if kind < PAIRED_SHARE:
        other = texts[int(rng.integers(len(texts)))]
        if meaning.family and other.family and meaning.family != other.family:
            pair = str(rng.choice(PAIRS)).format(meaning.text, other.text)
            return pair, [meaning.family, other.family]
    if kind > 1 - FRAMED_SHARE:
        about = [str(words) for words in rng.choice(plain, int(rng.integers(1, 3)), replace=False)]
        about.insert(int(rng.integers(len(about) + 1)), meaning.text)
        return ", ".join(about), [meaning.family]
    return meaning.text, [meaning.family]


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/reader"))
    parser.add_argument("--texts", type=Path, default=MEANINGS, help="others")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train(
        args.out, meanings(args.texts), ReaderConfig(),
        steps=args.steps, batch=args.batch, lr=args.lr, seed=args.seed,
    )  # fmt: skip


if __name__ == "__main__":
    main()
