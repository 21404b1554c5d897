"""Adapters, foreign pictures and pickles from the command line, on a tiny real model."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imagegen.png import PngNote, encode_png
from orbweave.records import RenderRequest
from tests.imagegen.tiny_models import build
from ui.cli import run

RECIPE = """
kind: image-lora
name: inkwash
model: {model}
images: pictures
trigger: inkwash
rank: 2
alpha: 2
steps: 2
batch: 2
size_px: 64
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return build("sd", tmp_path_factory.mktemp("tiny") / "sd")


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (70, 64), "red").save(tmp_path / "pictures" / "a.png")
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(model="loom"), "utf-8")
    return path


def test_a_plan_of_an_image_adapter_is_one_document_and_trains_nothing(recipe, tmp_path, capsys):
    assert run(["train", str(recipe), "--plan", "--json", "--out", str(tmp_path / "out")]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["pictures"], plan["steps"], plan["trigger"]) == (1, 2, "inkwash")
    assert not (tmp_path / "out").exists()


def test_a_faulty_image_recipe_exits_2_with_every_fault(recipe, capsys):
    recipe.write_text(recipe.read_text() + "speed: 9\nkeep: 2\n", "utf-8")
    assert run(["train", str(recipe)]) == 2
    told = capsys.readouterr().err
    assert "speed: no such key" in told and "keep" in told


@pytest.mark.slow
def test_an_adapter_is_trained_and_drawn_with(recipe, tiny, tmp_path, capsys):
    recipe.write_text(RECIPE.format(model=tiny), "utf-8")
    assert run(["train", str(recipe), "--out", str(tmp_path / "out")]) == 0
    adapter = tmp_path / "out" / "adapter"
    assert capsys.readouterr().out.strip().endswith(f"adapter written to {adapter}")

    words = ["a web", "--model", str(tiny), "--size", "64", "--steps", "2", "--structure", "none"]
    asked = ["render", *words, "--adapter", f"{adapter}:0.5", "--out", str(tmp_path / "r")]
    assert run([*asked, "--sidecar", "--quiet"]) == 0
    note = json.loads((tmp_path / "r" / "seed-0000000000.json").read_text())
    assert note["adapters"][0]["trigger"] == "inkwash"
    assert note["request"]["adapters"] == [[str(adapter), 0.5]]
    assert run(["reproduce", str(tmp_path / "r" / "seed-0000000000.png"), "--quiet"]) == 0


@pytest.mark.slow
def test_a_picture_of_another_tool_is_drawn_again_as_far_as_it_can(tiny, tmp_path, capsys):
    info = PngInfo()
    info.add_text(
        "parameters",
        "a web\nSteps: 2, Sampler: Euler a, CFG scale: 3, Seed: 5, Size: 64x64, Clip skip: 2, "
        "Model: v1-5",
    )
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png", pnginfo=info)
    asked = ["reproduce", str(tmp_path / "a.png"), "--model", str(tiny), "--json"]
    assert run([*asked, "--out", str(tmp_path / "again.png")]) == 1
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert (document["tool"], document["matches"]) == ("AUTOMATIC1111", False)
    assert document["not_taken_over"] == ["Clip skip: 2"] and document["mean_difference"] > 1
    assert "draws its noise and reads prompts in ways of its own" in told.err
    assert (tmp_path / "again.png").is_file()


def test_a_picture_whose_pixels_are_damaged_is_told_before_the_model_is_loaded(tmp_path, capsys):
    path = tmp_path / "a.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    note = PngNote(request=RenderRequest(prompt="a web"), geometry="text alone")
    spoilt = bytearray(encode_png(noise, note))
    at = spoilt.index(b"IDAT")
    spoilt[at + 8 : at + 200] = bytes(192)
    path.write_bytes(spoilt)
    assert run(["reproduce", str(path)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "a.png, which is damaged" in told


def test_a_model_that_is_not_at_hand_is_told(tmp_path, capsys):
    info = PngInfo()
    info.add_text("parameters", "a web\nSteps: 2, Sampler: Euler, Seed: 5, Model: v1-5")
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png", pnginfo=info)
    assert run(["reproduce", str(tmp_path / "a.png")]) == 1
    assert "found none called 'v1-5'" in capsys.readouterr().err


def test_a_pickle_is_refused_with_the_command_that_mends_it(tmp_path, capsys):
    (tmp_path / "old.ckpt").write_bytes(b"")
    asked = ["render", "a web", "--structure", "none", "--out", str(tmp_path / "r")]
    assert run([*asked, "--model", str(tmp_path / "old.ckpt")]) == 2
    assert "orbweave models convert" in capsys.readouterr().err
    assert run(["models", "convert", str(tmp_path / "old.ckpt"), str(tmp_path / "a.bin")]) == 2
    assert "add --trust-pickle" in capsys.readouterr().err
