"""What can be loaded: folders, single files in the form of the original checkpoints, and not."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imagegen.loading import load_model
from imagegen.pipeline import Renderer
from orbweave.errors import ModelError, UsageError
from orbweave.records import RenderRequest
from tests.imagegen.tiny_models import build, lora

pytestmark = pytest.mark.slow

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
UNET = [
    ("conv_in.", "input_blocks.0.0."),
    ("time_embedding.linear_1.", "time_embed.0."),
    ("time_embedding.linear_2.", "time_embed.2."),
    ("conv_norm_out.", "out.0."),
    ("conv_out.", "out.2."),
    ("down_blocks.0.resnets.0.", "input_blocks.1.0."),
    ("down_blocks.0.downsamplers.0.conv.", "input_blocks.2.0.op."),
    ("down_blocks.1.resnets.0.", "input_blocks.3.0."),
    ("down_blocks.1.attentions.0.", "input_blocks.3.1."),
    ("mid_block.resnets.0.", "middle_block.0."),
    ("mid_block.attentions.0.", "middle_block.1."),
    ("mid_block.resnets.1.", "middle_block.2."),
    ("up_blocks.0.resnets.0.", "output_blocks.0.0."),
    ("up_blocks.0.attentions.0.", "output_blocks.0.1."),
    ("up_blocks.0.resnets.1.", "output_blocks.1.0."),
    ("up_blocks.0.attentions.1.", "output_blocks.1.1."),
    ("up_blocks.0.upsamplers.0.", "output_blocks.1.2."),
    ("up_blocks.1.resnets.0.", "output_blocks.2.0."),
    ("up_blocks.1.resnets.1.", "output_blocks.3.0."),
]
"""Of a UNet with two levels of one layer; the form is CompVis' latent-diffusion."""


def original_unet(key: str) -> str:
    for ours, theirs in UNET:
        if key.startswith(ours):
            rest = key.removeprefix(ours)
            if "resnets" in ours:
                name, _, tail = rest.partition(".")
                rest = f"{RESNET[name]}.{tail}"
            return f"model.diffusion_model.{theirs}{rest}"
    raise KeyError(key)


def original_vae(key: str, value: Any) -> tuple[str, Any]:
    found = key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    found = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", found)
    found = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", found)
    for ours, theirs in ((0, 1), (1, 0)):  # the decoder counts from the other end
        found = found.replace(f"up_blocks.{ours}.resnets.", f"up.{theirs}.block.")
        found = found.replace(f"up_blocks.{ours}.upsamplers.0", f"up.{theirs}.upsample")
    for ours, theirs in ((0, 1), (1, 2)):
        found = found.replace(f"mid_block.resnets.{ours}", f"mid.block_{theirs}")
    if "mid_block.attentions.0" in found:
        found = found.replace("mid_block.attentions.0", "mid.attn_1")
        for name, theirs in (
            ("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"),
            ("to_out.0", "proj_out"),
        ):  # fmt: skip
            found = found.replace(f"attn_1.{name}.", f"attn_1.{theirs}.")
        if found.endswith("weight") and ".norm." not in found:
            value = value[..., None, None]
    return f"first_stage_model.{found}", value


def write_single_file(folder: Path, path: Path) -> Path:
    """Write a diffusers folder as one file in the original form."""
    from safetensors.torch import load_file, save_file

    def parts(name: str, file: str) -> dict[str, Any]:
        return load_file(folder / name / f"{file}.safetensors")

    tensors = {original_unet(k): v for k, v in parts("unet", "diffusion_pytorch_model").items()}
    vae = parts("vae", "diffusion_pytorch_model")
    tensors |= dict(original_vae(k, v) for k, v in vae.items())
    tensors |= {
        f"cond_stage_model.transformer.{k if k.startswith('text_model') else f'text_model.{k}'}": v
        for k, v in parts("text_encoder", "model").items()
    }
    save_file({k: v.contiguous() for k, v in tensors.items()}, path)
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sd", tmp_path_factory.mktemp("tiny") / "sd")


def pixels(model: Path, folder: Path) -> Any:
    asked = RenderRequest(prompt="silk", model=str(model), width=64, height=64, steps=2)
    made = Renderer(dtype="float32").render(asked, folder, force=True)
    with Image.open(made[0].path) as image:
        return np.asarray(image)


def test_a_single_file_draws_what_its_folder_draws(tiny: Path, tmp_path: Path) -> None:
    path = write_single_file(tiny, tmp_path / "model.safetensors")
    shutil.copytree(tiny, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    assert np.array_equal(pixels(path, tmp_path / "a"), pixels(tiny, tmp_path / "b"))


def test_a_single_file_without_its_configuration_says_what_to_fetch(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = write_single_file(tiny, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="looks like .*stable-diffusion.*hf download"):
        load_model(str(path), None, "float32")


def test_files_that_are_no_model_are_told(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(ModelError, match="safetensors weights"):
        load_model(str(tmp_path / "text.safetensors"), None, "float32")
    with pytest.raises(ModelError, match="no such file"):
        load_model(str(tmp_path / "none.safetensors"), None, "float32")
    with pytest.raises(UsageError, match="give it as --adapter"):
        path = lora("sd", tiny, tmp_path / "style.safetensors")
        load_model(str(path), None, "float32")
    for ending in ("ckpt", "bin", "pt"):
        with pytest.raises(UsageError, match="pickled file .*--trust-pickle"):
            load_model(f"model.{ending}", None, "float32")


def test_a_folder_of_pickles_is_refused(tiny: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ModelError):
        load_model(str(copy), None, "float32")


def test_a_control_net_beside_the_model_is_taken(tiny: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    assert not load_model(str(copy), None, "float32").is_controlled
    shutil.copytree(f"{tiny}-control", copy / "controlnet")
    loaded = load_model(str(copy), None, "float32")
    assert loaded.is_controlled and loaded.family.name == "Stable Diffusion"
