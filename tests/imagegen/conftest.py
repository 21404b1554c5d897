"""A tiny image model with random weights, in the shape of the shipped one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
MAX_TOKENS = 77


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder as shipped: fp16 safetensors, configurations, loom.json."""
    import torch
    from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
    from safetensors.torch import save_file

    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=8,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=64,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=384,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    control = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 4, 8, 8))
    drawn = control.controlnet_cond_embedding.conv_out
    for layer in (drawn, *control.controlnet_down_blocks, control.controlnet_mid_block):
        torch.nn.init.normal_(layer.weight, std=0.1)  # zero in an untrained one
    folder = tmp_path_factory.mktemp("weights")
    for name, model in (("vae", vae), ("unet", unet), ("controlnet", control)):
        state = {key: value.half().contiguous() for key, value in model.state_dict().items()}
        save_file(state, folder / f"{name}.safetensors", metadata={"format": "pt"})
        (folder / f"{name}.json").write_text(model.to_json_string())
    (folder / "loom.json").write_text(
        json.dumps({"max_tokens": MAX_TOKENS, "scheduler": SCHEDULER})
    )
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache folder for the whole run, so that the model is assembled once."""
    return tmp_path_factory.mktemp("cache")
