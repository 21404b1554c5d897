"""Pictures of other tools are read, and ours are read by other tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imagegen.foreign import read_foreign
from imagegen.png import MAX_TEXT_BYTES, AdapterNote, PngNote, encode_png
from orbweave.errors import UsageError
from orbweave.records import RenderRequest

A1111 = """golden spider web, (dew:1.2) <lora:blueprint:0.8>
second line
Negative prompt: blur, text
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 965400086, \
Size: 512x768, Model hash: cc6cb27103, Model: v1-5-pruned-emaonly, Clip skip: 2, \
Lora hashes: "blueprint: 0123456789ab", Version: v1.10.1"""
INVOKE = {
    "generation_mode": "sdxl_txt2img", "positive_prompt": "golden web", "negative_prompt": "blur",
    "width": 1024, "height": 768, "seed": 3182164294, "rand_device": "cpu", "cfg_scale": 5.5,
    "cfg_rescale_multiplier": 0, "steps": 28, "scheduler": "dpmpp_2m_k", "clip_skip": 1,
    "model": {"key": "a", "hash": "b", "name": "Juggernaut XL", "base": "sdxl", "type": "main"},
    "loras": [{"model": {"name": "blueprint", "base": "sdxl"}, "weight": 0.75}],
    "app_version": "5.4.0",
}  # fmt: skip
COMFY = {
    "3": {"class_type": "KSampler", "inputs": {
        "seed": 156680208700286, "steps": 20, "cfg": 8.0, "sampler_name": "euler",
        "scheduler": "normal", "denoise": 1.0, "model": ["10", 0], "positive": ["6", 0],
        "negative": ["7", 0], "latent_image": ["5", 0]}},
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd15.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {
        "width": 512, "height": 640, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["12", 0], "clip": ["10", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blur", "clip": ["10", 1]}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "10": {"class_type": "LoraLoader", "inputs": {
        "lora_name": "blueprint.safetensors", "strength_model": 0.6, "strength_clip": 1.0,
        "model": ["4", 0], "clip": ["4", 1]}},
    "12": {"class_type": "PrimitiveString", "inputs": {"value": "golden web"}},
}  # fmt: skip
FOOOCUS = {
    "prompt": "golden web", "full_prompt": ["golden web, cinematic"], "negative_prompt": "",
    "full_negative_prompt": ["blur"], "styles": "['Fooocus V2']", "performance": "Speed",
    "steps": 30, "resolution": "(1152, 896)", "guidance_scale": 4.0, "sharpness": 2.0,
    "base_model": "juggernautXL_v8Rundiffusion", "base_model_hash": "aeb7e9e689",
    "sampler": "dpmpp_2m_sde_gpu", "scheduler": "karras", "seed": "2853424107",
    "lora_combined_1": "blueprint : 0.1", "metadata_scheme": "fooocus", "version": "Fooocus v2.5",
}  # fmt: skip


def picture(path: Path, **texts: str) -> Path:
    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    Image.new("RGB", (16, 16), "gold").save(path, pnginfo=info)
    return path


def test_automatic1111_is_read(tmp_path: Path) -> None:
    found = read_foreign(picture(tmp_path / "a.png", parameters=A1111))

    assert found.tool == "AUTOMATIC1111"
    assert found.request == RenderRequest(
        prompt="golden spider web, (dew:1.2)\nsecond line",
        negative_prompt="blur, text",
        model="v1-5-pruned-emaonly",
        adapters=(("blueprint", 0.8),),
        scheduler="DPM++ 2M Karras",
        steps=20,
        guidance=7,
        width=512,
        height=768,
        seeds=(965400086,),
    )
    assert found.unknown == ("Clip skip: 2",)


def test_invokeai_is_read(tmp_path: Path) -> None:
    found = read_foreign(picture(tmp_path / "a.png", invokeai_metadata=json.dumps(INVOKE)))

    assert found.tool == "InvokeAI"
    assert found.request == RenderRequest(
        prompt="golden web",
        negative_prompt="blur",
        model="Juggernaut XL",
        adapters=(("blueprint", 0.75),),
        scheduler="DPM++ 2M Karras",
        steps=28,
        guidance=5.5,
        width=1024,
        height=768,
        seeds=(3182164294,),
    )
    assert "clip_skip: 1" in found.unknown and "generation_mode: sdxl_txt2img" in found.unknown


def test_comfyui_is_read_from_the_sampler_backwards(tmp_path: Path) -> None:
    found = read_foreign(picture(tmp_path / "a.png", prompt=json.dumps(COMFY)))

    assert found.tool == "ComfyUI"
    assert found.request == RenderRequest(
        prompt="golden web",
        negative_prompt="blur",
        model="sd15.safetensors",
        adapters=(("blueprint.safetensors", 0.6),),
        scheduler="Euler",
        steps=20,
        guidance=8,
        width=512,
        height=640,
        seeds=(156680208700286,),
    )
    assert found.unknown == ("node VAEDecode",)


def test_fooocus_is_read_with_the_words_the_model_was_given(tmp_path: Path) -> None:
    texts = {"fooocus_scheme": "fooocus", "parameters": json.dumps(FOOOCUS)}
    found = read_foreign(picture(tmp_path / "a.png", **texts))

    assert found.tool == "Fooocus"
    assert found.request == RenderRequest(
        prompt="golden web, cinematic",
        negative_prompt="blur",
        model="juggernautXL_v8Rundiffusion",
        adapters=(("blueprint", 0.1),),
        scheduler="DPM++ 2M SDE Karras",
        steps=30,
        guidance=4,
        width=1152,
        height=896,
        seeds=(2853424107,),
    )
    assert "sharpness: 2.0" in found.unknown


def test_what_is_missing_is_listed_and_the_rest_kept(tmp_path: Path) -> None:
    text = "a web\nSteps: 9, Sampler: Restart, CFG scale: 5, Denoising strength: 0.5"
    found = read_foreign(picture(tmp_path / "a.png", parameters=text))

    assert found.request.prompt == "a web" and found.request.steps == 9
    assert found.unknown == (
        "height not named",
        "model not named",
        "seeds not named",
        "width not named",
        "the picture it started from",
        "sampler Restart",
    )


def test_a_graph_that_bites_its_tail_is_followed_once(tmp_path: Path) -> None:
    graph = {
        "1": {"class_type": "KSampler", "inputs": {
            "positive": ["2", 0], "latent_image": ["2", 0], "seed": 3}},
        "2": {"class_type": "Loop", "inputs": {"a": ["1", 0], "b": ["2", 0], "text": "web"}},
    }  # fmt: skip
    found = read_foreign(picture(tmp_path / "a.png", prompt=json.dumps(graph)))
    assert found.request.prompt == "web" and found.request.seeds == (3,)


DEEP = "[" * 100_000
HOSTILE: list[dict[str, str]] = [
    {"prompt": DEEP},
    {"invokeai_metadata": '{"a":' * 50_000},
    {"parameters": "{" * 90_000},
    {"fooocus_scheme": "fooocus", "parameters": "[1, 2]"},
    {"prompt": json.dumps({"1": {"inputs": 7}})},
    {"prompt": json.dumps({"1": []})},
    {"invokeai_metadata": json.dumps(INVOKE | {"loras": 5})},
    {"invokeai_metadata": json.dumps(INVOKE | {"seed": "x" * 500})},
    {"invokeai_metadata": '{"seed": ' + "9" * 6_000 + "}"},
    {"invokeai_metadata": json.dumps(INVOKE | {"width": 10**12})},
    {"invokeai_metadata": json.dumps(INVOKE | {"steps": float("nan")})},
    {"parameters": "web\nSteps: many, Size: 1x1, Seed: 1, Sampler: Euler"},
    {"parameters": "web\nSteps: 1, Size: 512x513, Seed: 1, Sampler: Euler"},
    {"comment": "nothing we know"},
    {},
]


@pytest.mark.parametrize("texts", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_settings_are_refused_in_words(tmp_path: Path, texts: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="wanted settings"):
        read_foreign(picture(tmp_path / "a.png", **texts))


@pytest.mark.parametrize(
    ("pairs", "told"),
    [
        ("Steps: many, Size: 64x64, Seed: 1", "'Steps: many'"),
        ("Steps: 9, Size: 64x64, Seed: one", "'Seed: one'"),
        ("Steps: 9, Size: large, Seed: 1", "'the size large'"),
        ("Steps: 9, Size: 64x65, Seed: 1", "got height '65': input should be a multiple of 8"),
    ],
)
def test_the_setting_that_cannot_be_is_named(tmp_path: Path, pairs: str, told: str) -> None:
    path = picture(tmp_path / "a.png", parameters=f"web\n{pairs}, Sampler: Euler")
    with pytest.raises(UsageError, match=told):
        read_foreign(path)


def test_the_weight_of_an_adapter_is_called_that(tmp_path: Path) -> None:
    text = "web <lora:ink:0.5> <lora:oil:9>\nSteps: 9, Seed: 1, Sampler: Euler, Size: 64x64"
    with pytest.raises(UsageError, match="got weight of adapter 2 '9.0': input should be less"):
        read_foreign(picture(tmp_path / "a.png", parameters=text))


def test_text_that_is_too_long_is_refused(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", parameters="x" * (MAX_TEXT_BYTES + 1))
    with pytest.raises(UsageError, match="at most 1,000,000 bytes"):
        read_foreign(path)


def test_a_prompt_of_control_characters_is_shown_harmlessly(tmp_path: Path) -> None:
    text = "web\nSteps: 1, Size: 64x64, Seed: 1, Sampler: \x1b]0;boom"
    found = read_foreign(picture(tmp_path / "a.png", parameters=text))
    assert all(word.isprintable() for word in found.unknown)


# -------------------------------------------------------------- what others read of our files


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    request = RenderRequest(
        prompt="golden spider web, dew", negative_prompt="blur, text", seeds=(7,), guidance=3.5,
        scheduler="DPM++ 2M Karras", steps=9, width=320, adapters=(("silk.safetensors", 0.5),),
    )  # fmt: skip
    note = PngNote(
        request=request, geometry="text alone", model_hash="0123456789abcdef",
        adapters=(AdapterNote(name="silk", trigger="inkwash", sha256="fedcba9876543210"),),
    )  # fmt: skip
    path = tmp_path / "ours.png"
    path.write_bytes(encode_png(np.zeros((16, 16, 3), np.uint8), note))
    return path


def test_we_read_our_own_text_as_a1111_does(ours: Path) -> None:
    found = read_foreign(ours)
    assert found.request.prompt == "inkwash, golden spider web, dew"
    assert found.request.adapters == (("silk", 0.5),)
    assert found.request.scheduler == "DPM++ 2M Karras" and found.request.width == 320
    assert found.unknown == ("Geometry: text alone",)


def test_sd_parsers_reads_our_files(ours: Path) -> None:
    sd_parsers = pytest.importorskip("sd_parsers")
    info = sd_parsers.ParserManager().parse(ours)

    (sampler,) = info.samplers
    assert info.full_prompt == "inkwash, golden spider web, dew <lora:silk:0.5>"
    assert info.full_negative_prompt == "blur, text"
    assert sampler.name == "DPM++ 2M" and sampler.model.name == "loom"
    assert sampler.parameters["seed"] == "7" and sampler.parameters["steps"] == "9"
    assert sampler.parameters["cfg_scale"] == "3.5"
    assert sampler.parameters["scheduler"] == "Karras"


def test_unstable_reader_reads_our_files(ours: Path) -> None:
    unstable_reader: Any = pytest.importorskip("unstable_reader")
    reader = unstable_reader.ImageMetadataExtractor(str(ours))
    reader.extract_metadata()

    assert reader.prompt == "inkwash, golden spider web, dew <lora:silk:0.5>"
    assert reader.negative == "blur, text"
    assert (reader.width, reader.height) == ("320", "256")
    assert (reader.steps, reader.cfg, reader.model) == ("9", "3.5", "loom")
