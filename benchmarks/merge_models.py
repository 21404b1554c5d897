"""Two models to be merged: of any size, or the embedded one and a disturbed copy of it."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from merging.tensors import LoadedWeights, ShardWriter
from orbweave.files import write_text
from orbweave.weights import TensorInfo

__all__ = ["LARGE", "TINY", "Llama", "llama_of", "perturbed_pair", "synthetic_pair"]

SEED = 0
APART = 0.3
"""The second parent is the first plus noise of this size, relative to the weights' own spread:
cos 0.96, so that both programs take the arc and not the straight line."""
SHARD_BYTES = 2_000_000_000
BLOCK = 1 << 22
"""Elements drawn at a time."""


@dataclass(frozen=True)
class Llama:
    """The shape of a synthetic model with tied embeddings; the defaults are SmolLM2-1.7B's.

    Source: config.json of HuggingFaceTB/SmolLM2-1.7B.
    """

    hidden: int = 2048
    layers: int = 24
    vocabulary: int = 49152

    @property
    def tensors(self) -> dict[str, TensorInfo]:
        """Name -> dtype and shape."""
        wide, narrow = (4 * self.hidden, self.hidden), (self.hidden, 4 * self.hidden)
        square, line = (self.hidden, self.hidden), (self.hidden,)
        shapes: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.vocabulary, self.hidden)
        }
        for i in range(self.layers):
            layer = f"model.layers.{i}."
            shapes |= {f"{layer}self_attn.{part}_proj.weight": square for part in "qkvo"}
            shapes |= {f"{layer}mlp.{part}_proj.weight": wide for part in ("gate", "up")}
            shapes[f"{layer}mlp.down_proj.weight"] = narrow
            shapes |= {f"{layer}{p}_layernorm.weight": line for p in ("input", "post_attention")}
        shapes["model.norm.weight"] = line
        return {name: TensorInfo("BF16", shape) for name, shape in shapes.items()}

    @property
    def stored_bytes(self) -> int:
        """Size of the model in bfloat16."""
        return 2 * sum(math.prod(info.shape) for info in self.tensors.values())

    @property
    def config(self) -> dict[str, object]:
        """What stands in config.json."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "dtype": "bfloat16",
            "hidden_size": self.hidden,
            "intermediate_size": 4 * self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": max(1, self.hidden // 64),
            "num_key_value_heads": max(1, self.hidden // 64),
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "rope_theta": 130000.0,
            "tie_word_embeddings": True,
        }


TINY, LARGE = Llama(hidden=64, layers=5), Llama()


def llama_of(billions: float) -> Llama:
    """Return the shape with about so many parameters; 24 layers, widths in steps of 64."""
    # 16 h^2 parameters a layer and the embedding, solved for h
    a, b, c = 16 * LARGE.layers, LARGE.vocabulary, -billions * 1e9
    return Llama(hidden=max(64, 64 * round((math.sqrt(b * b - 4 * a * c) - b) / (2 * a) / 64)))


def synthetic_pair(shape: Llama, folder: Path, tokenizer: Path) -> tuple[Path, Path]:
    """Write two related models of random weights, shard by shard."""
    pair = folder / "a", folder / "b"
    for place in pair:
        place.mkdir()
        write_text(place / "config.json", json.dumps(shape.config))
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(tokenizer / name, place / name)
    draw = torch.Generator().manual_seed(SEED)
    infos = shape.tensors
    writers = [ShardWriter(place, infos, shard_bytes=SHARD_BYTES) for place in pair]
    with writers[0] as first, writers[1] as second:
        for name, info in infos.items():
            n_elements = math.prod(info.shape)
            for start in range(0, n_elements, BLOCK):
                n = min(BLOCK, n_elements - start)
                a = 0.02 * torch.randn(n, generator=draw)
                first.write(name, start, a.numpy())
                b = a + APART * 0.02 * torch.randn(n, generator=draw)
                second.write(name, start, b.numpy())
    return pair


def perturbed_pair(base: Path, folder: Path) -> tuple[Path, Path]:
    """Return a model and a copy of it with noise on every weight."""
    other = folder / "b"
    shutil.copytree(base, other, ignore=shutil.ignore_patterns("*.safetensors", "manifest.json"))
    draw = torch.Generator().manual_seed(SEED)
    tensors = load_file(base / "model.safetensors")
    with ShardWriter(other, LoadedWeights(tensors).tensors) as writer:
        for name, tensor in tensors.items():
            flat = tensor.reshape(-1).float()
            noise = torch.randn(len(flat), generator=draw)
            writer.write(name, 0, (flat + APART * flat.std() * noise).numpy())
    return base, other
