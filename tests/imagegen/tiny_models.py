"""Tiny models with random weights in the real architecture of each family, saved as folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LETTERS = [chr(c) for c in range(33, 127)] + [chr(c) for c in range(161, 256)]
WIDTH = 32
"""Of every text encoder here."""


def clip_tokenizer(window: int = 77) -> Any:
    """CLIP's tokenizer over single letters: every letter of a word is a token."""
    from transformers import CLIPTokenizer

    words = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(x + "</w>" for x in LETTERS)]
    tokenizer = CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[])
    tokenizer.model_max_length = window
    return tokenizer


def t5_tokenizer(window: int = 512) -> Any:
    """T5's tokenizer over single letters."""
    from transformers import T5TokenizerFast

    words = ["<pad>", "</s>", "<unk>", "▁", *LETTERS, *("▁" + x for x in LETTERS)]
    tokenizer = T5TokenizerFast(vocab=[(w, 0.0) for w in words], extra_ids=0)
    tokenizer.model_max_length = window
    return tokenizer


def _clip(projects: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=2 + 2 * len(LETTERS), hidden_size=WIDTH, intermediate_size=WIDTH,
        num_hidden_layers=2, num_attention_heads=2, projection_dim=WIDTH,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projects else CLIPTextModel)(config)


def _t5() -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=4 + 2 * len(LETTERS), d_model=WIDTH, d_kv=16, d_ff=WIDTH, num_layers=1,
            num_heads=2, is_encoder_decoder=False,
        )
    )  # fmt: skip


def _vae(channels: int) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels, layers_per_block=1, norm_num_groups=4, sample_size=32,
        use_quant_conv=channels == 4, use_post_quant_conv=channels == 4,
        shift_factor=None if channels == 4 else 0.1,
    )  # fmt: skip


def _unet(**changes: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        **{
            "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": (8, 16),
            "layers_per_block": 1, "norm_num_groups": 4, "cross_attention_dim": WIDTH,
            "attention_head_dim": 4,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        }
        | changes
    )  # fmt: skip


def _betas() -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip


def sd() -> Any:
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline(
        _vae(4), _clip(), clip_tokenizer(), _unet(), _betas(), None, None,
        requires_safety_checker=False,
    )  # fmt: skip


def sd_inpainting() -> Any:
    """As made for inpainting: the UNet sees mask and picture beside the noise."""
    from diffusers import StableDiffusionInpaintPipeline

    return StableDiffusionInpaintPipeline(
        _vae(4), _clip(), clip_tokenizer(), _unet(in_channels=9), _betas(), None, None,
        requires_safety_checker=False,
    )  # fmt: skip


def sdxl() -> Any:
    from diffusers import StableDiffusionXLPipeline

    unet = _unet(
        cross_attention_dim=2 * WIDTH, addition_embed_type="text_time",
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=WIDTH + 6 * 8,
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        _vae(4), _clip(), _clip(True), clip_tokenizer(), clip_tokenizer(), unet, _betas(),
        add_watermarker=False,
    )  # fmt: skip


def sd3() -> Any:
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )

    transformer = SD3Transformer2DModel(
        sample_size=32, patch_size=2, in_channels=16, num_layers=2, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=2 * WIDTH, caption_projection_dim=16,
        pooled_projection_dim=2 * WIDTH, out_channels=16,
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        transformer, FlowMatchEulerDiscreteScheduler(shift=3.0), _vae(16), _clip(True),
        clip_tokenizer(), _clip(True), clip_tokenizer(), _wide_t5(), t5_tokenizer(),
    )  # fmt: skip


def _wide_t5() -> Any:
    """As wide as both CLIP encoders together, which SD 3 pads to it."""
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=4 + 2 * len(LETTERS), d_model=2 * WIDTH, d_kv=16, d_ff=WIDTH,
            num_layers=1, num_heads=2, is_encoder_decoder=False,
        )
    )  # fmt: skip


def flux() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH,
        axes_dims_rope=(4, 4, 8), guidance_embeds=True,
    )  # fmt: skip
    return FluxPipeline(
        FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), _vae(16), _clip(),
        clip_tokenizer(), _t5(), t5_tokenizer(), transformer,
    )  # fmt: skip


BUILDERS = {"sd": sd, "sdxl": sdxl, "sd3": sd3, "flux": flux}


def control_net(family: str, pipe: Any) -> Any:
    """A ControlNet for a tiny pipeline, whose layers that begin at zero do not."""
    import diffusers
    import torch

    if family in {"sd", "sdxl"}:
        net = diffusers.ControlNetModel.from_unet(
            pipe.unet, conditioning_embedding_out_channels=(4, 8)
        )
    elif family == "sd3":
        net = diffusers.SD3ControlNetModel.from_transformer(
            pipe.transformer, num_layers=1, num_extra_conditioning_channels=0
        )
    else:
        net = diffusers.FluxControlNetModel.from_transformer(
            pipe.transformer, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2,
        )  # fmt: skip
    for weights in net.parameters():
        if not weights.any():
            torch.nn.init.normal_(weights, std=0.3)
    return net


def build(family: str, folder: Path) -> Path:
    """Save a tiny model of a family, and its ControlNet at `<folder>-control`."""
    import torch

    torch.manual_seed(0)
    pipe = BUILDERS[family]()
    pipe.save_pretrained(folder)
    control_net(family, pipe).save_pretrained(folder.with_name(f"{folder.name}-control"))
    return folder


def lora(family: str, model: Path, path: Path, *, trigger: str = "") -> Path:
    """Write an adapter for a tiny model that does something, as diffusers saves one."""
    import torch
    from diffusers import DiffusionPipeline
    from peft import LoraConfig, get_peft_model_state_dict
    from safetensors.torch import save_file

    pipe = DiffusionPipeline.from_pretrained(str(model), local_files_only=True)
    name = "unet" if family in {"sd", "sdxl"} else "transformer"
    part = getattr(pipe, name)
    part.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_k", "to_v"]))
    generator = torch.Generator().manual_seed(1)
    tensors = {
        f"{name}.{key}": torch.randn(value.shape, generator=generator) * 0.5
        for key, value in get_peft_model_state_dict(part).items()
    }
    metadata = {"format": "pt"} | ({"modelspec.trigger_phrase": trigger} if trigger else {})
    save_file(tensors, path, metadata)
    return path
