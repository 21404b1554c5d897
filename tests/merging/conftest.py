"""Tiny Llamas on disk, made without transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

HIDDEN, HEADS, INNER, VOCABULARY = 16, 2, 24, 12
WORDS = ["<|end|>", "<|pad|>", *"abcdefghij"]


def llama_tensors(n_layers: int, seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Random weights under a Llama's names; norms near one, the rest of size 0.05."""
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for i in range(n_layers):
        layer = f"model.layers.{i}."
        shapes |= {f"{layer}self_attn.{p}_proj.weight": (HIDDEN, HIDDEN) for p in "qkvo"}
        shapes |= {f"{layer}mlp.{p}_proj.weight": (INNER, HIDDEN) for p in ("gate", "up")}
        shapes[f"{layer}mlp.down_proj.weight"] = (HIDDEN, INNER)
        shapes |= {f"{layer}{p}_layernorm.weight": (HIDDEN,) for p in ("input", "post_attention")}
    shapes["model.norm.weight"] = (HIDDEN,)
    draw = torch.Generator().manual_seed(seed)
    made = {name: 0.05 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    return {n: (1 + t if "norm" in n else t).to(dtype) for n, t in made.items()}


def write_llama(
    folder: Path, *, n_layers: int = 2, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Path:
    """Write a whole model folder: config, weights, tokenizer, chat template."""
    folder.mkdir(parents=True)
    tensors = llama_tensors(n_layers, seed, dtype)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": str(dtype).removeprefix("torch."),
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": n_layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
        "eos_token_id": 0,
        "pad_token_id": 1,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text('{"eos_token_id": 0}')
    write_tokenizer(folder, WORDS)
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    return folder


def write_tokenizer(folder: Path, words: list[str]) -> None:
    """Write a tokenizer that knows one word per row."""
    vocabulary = {word: row for row, word in enumerate(words)}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": words[1]},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": words[0]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"pad_token": words[1]}))


def write_adapter(folder: Path, *, n_layers: int = 2, rank: int = 4, **settings: object) -> Path:
    """Write a LoRA adapter over the attention of the tiny Llama, in PEFT's format."""
    folder.mkdir(parents=True)
    draw = torch.Generator().manual_seed(7)
    tensors = {}
    for i in range(n_layers):
        for part in "qv":
            module = f"base_model.model.model.layers.{i}.self_attn.{part}_proj"
            tensors[f"{module}.lora_A.weight"] = torch.randn(rank, HIDDEN, generator=draw)
            tensors[f"{module}.lora_B.weight"] = 0.05 * torch.randn(HIDDEN, rank, generator=draw)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config | settings))
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORBWEAVE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two tiny Llamas of one shape and different weights."""
    return write_llama(tmp_path / "a", seed=1), write_llama(tmp_path / "b", seed=2)


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[..., Path]:
    """Writes a recipe file; keywords are its keys."""

    def write(name: str = "recipe.yaml", **content: object) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(content))  # JSON is YAML
        return path

    return write
