"""Which motifs a text means, told by a sentence model that was taught what they are called.

Few who ask for nacre say nacre: they say "the inside of an oyster shell" or "flat slabs in
staggered courses". all-MiniLM-L6-v2 knows many of these words; what it lacks, which of 26 motifs
they mean, was taught it by almost five thousand texts (`meanings.jsonl`) as low-rank additions to
its matrices (Hu et al., arXiv:2106.09685) and a last layer.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from imagegen.assembly import REINSTALL, WEIGHTS, encoder_folder
from imagegen.motifs import FAMILIES
from imagegen.network_file import load_network, save_network
from imagegen.text_encoder import LAYERS, WIDTH, TextEncoder, load_text_encoder
from orbweave.errors import ModelError
from orbweave.records import Record
from orbweave.thread_team import dismissing_team

__all__ = ["Additions", "Reader", "ReaderConfig", "logits", "save_additions", "sentences"]

NAME = "reader"
"""Of its two files, `.safetensors` and `.json`."""
MAX_TOKENS = 128
SHARPNESS = 20.0
"""Of the last layer: sentences are unit vectors, whose products are small."""
_MATRICES = {
    "attention.self.query": (WIDTH, WIDTH),
    "attention.self.key": (WIDTH, WIDTH),
    "attention.self.value": (WIDTH, WIDTH),
    "attention.output.dense": (WIDTH, WIDTH),
    "intermediate.dense": (WIDTH, 4 * WIDTH),
    "output.dense": (4 * WIDTH, WIDTH),
}
"""Of every layer: how wide what goes in and what comes out is."""


class ReaderConfig(Record):
    """What the reader tells apart, and its size."""

    families: tuple[str, ...] = tuple(FAMILIES)
    rank: int = 16


class Additions(nn.Module):
    """What is learnt: additions to the matrices of the sentence model, and a last layer."""

    def __init__(self, config: ReaderConfig) -> None:
        """Build them so that they add nothing yet."""
        super().__init__()
        self.added = nn.ModuleDict()
        for layer in range(LAYERS):
            for matrix, (n_in, n_out) in _MATRICES.items():
                down = nn.Linear(n_in, config.rank, bias=False)
                up = nn.Linear(config.rank, n_out, bias=False)
                nn.init.zeros_(up.weight)
                name = f"encoder.layer.{layer}.{matrix}".replace(".", "-")
                self.added[name] = nn.Sequential(down, up)
        # The last class is none of the families.
        self.last = nn.Linear(WIDTH, len(config.families) + 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def places(self) -> dict[str, nn.Module]:
        """The additions by the names of the sentence model's matrices."""
        return {name.replace("-", "."): part for name, part in self.added.items()}


def sentences(encoder: TextEncoder, texts: Sequence[str]) -> Tensor:
    """Return texts as unit vectors, (n, 384): the mean of their tokens' states."""
    tokens = encoder.tokenizer(
        list(texts), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
    )
    states = encoder.network(tokens.input_ids, attention_mask=tokens.attention_mask)[0]
    mask = tokens.attention_mask[..., None]
    return nn.functional.normalize((states * mask).sum(1) / mask.sum(1))


def logits(additions: Additions, vectors: Tensor) -> Tensor:
    """Return how much each family, and last none, is meant: (n, families + 1)."""
    answers: Tensor = additions.last(vectors) * SHARPNESS
    return answers


class Reader:
    """Tells what texts mean; loaded at its first call. Safe to call from several threads."""

    def __init__(self, weights: Path | None = None) -> None:
        """Remember where its two files are; default: the shipped ones."""
        self._weights = weights or WEIGHTS
        self._loaded: tuple[TextEncoder, Additions] | None = None
        self._lock = threading.Lock()

    def __call__(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """Return the probability of every family for every text.

        Shape (n, families), families in the order of `FAMILIES`; what lacks to 1 is that a text
        means none.

        Raises:
            ModelError: the weights or the sentence model are missing or damaged.
        """
        with self._lock, dismissing_team(), torch.inference_mode():
            if self._loaded is None:
                self._loaded = _load(self._weights)
            encoder, additions = self._loaded
            shares = logits(additions, sentences(encoder, texts)).softmax(1)
        return np.asarray(shares[:, :-1], dtype=np.float32)


def _load(weights: Path) -> tuple[TextEncoder, Additions]:
    """Load the sentence model with the additions in its matrices."""
    saved = load_network(weights, NAME, ReaderConfig, Additions, what="the reader of prompts")
    if saved.config.families != tuple(FAMILIES):
        raise ModelError(
            f"wanted a reader of today's {len(FAMILIES)} families in {weights}, it was taught "
            f"{len(saved.config.families)}; train it anew, or {REINSTALL}"
        )
    additions: Additions = saved.network.eval()
    encoder = load_text_encoder(encoder_folder(), torch.float32)
    with torch.no_grad():
        for name, part in additions.places().items():
            down, up = part.parameters()
            encoder.network.get_submodule(name).weight += up @ down
    return encoder, additions


def save_additions(additions: Additions, config: ReaderConfig, folder: Path) -> None:
    """Write what was learnt as two files."""
    save_network(additions, config, folder, NAME)
