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
    assert run(["train", str(recipe), "--out", str(tmp_path / "out"), "--json"]) == 0  # was done
    assert json.loads(capsys.readouterr().out)["first_loss"] is None

    words = ["a web", "--model", str(tiny), "--size", "64", "--steps", "2", "--structure", "none"]
    asked = ["render", *words, "--adapter", f"{adapter}:0.5", "--out", str(tmp_path / "r")]
    assert run([*asked, "--sidecar", "--quiet"]) == 0
    note = json.loads((tmp_path / "r" / "seed-0000000000.json").read_text())
    assert note["adapters"][0]["trigger"] == "inkwash"
    assert note["request"]["adapters"] == [[str(adapter), 0.5]]
    assert run(["reproduce", str(tmp_path / "r" / "seed-0000000000.png"), "--quiet"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("at", "kept"), [(2, "step 2 is kept in"), (1, "before the first")])
def test_an_interrupted_training_says_what_is_kept_and_how_to_go_on(
    recipe, tiny, tmp_path, capsys, monkeypatch, at, kept
):
    from imagegen import adapter_training

    text = RECIPE.format(model=tiny) + "checkpoint_steps: 2\n"
    recipe.write_text(text.replace("steps: 2\nbatch", "steps: 4\nbatch"), "utf-8")
    loss = adapter_training._loss

    def interrupted(*args):
        if args[-1] == at:
            raise KeyboardInterrupt
        return loss(*args)

    command = ["train", str(recipe), "--out", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr(adapter_training, "_loss", interrupted)
        assert run(command) == 130
    told = capsys.readouterr().err.splitlines()[-1]
    assert kept in told and "nothing half made" not in told
    assert told.endswith(f"go on with: {' '.join(['orbweave', *command])}")
    assert run(command) == 0
    assert not (tmp_path / "out" / "checkpoint-2").exists()


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


@pytest.mark.slow
def test_a_picture_that_was_scaled_is_told_by_its_size(tiny, tmp_path, capsys):
    request = RenderRequest(
        prompt="a web", model=str(tiny), width=64, height=64, steps=1, scheduler="Euler"
    )
    note = PngNote(request=request, geometry="text alone")
    path = tmp_path / "a.png"
    path.write_bytes(encode_png(np.zeros((32, 48, 3), np.uint8), note))
    assert run(["reproduce", str(path)]) == 1
    told = "is 48 x 32 pixels, its settings draw 64 x 64 pixels; it was scaled or cut"
    assert told in capsys.readouterr().out
    assert run(["reproduce", str(path), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["size_px"], document["size_again_px"]) == ([48, 32], [64, 64])


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


@pytest.mark.parametrize(
    ("changes", "options", "code", "told"),
    [
        ({"control": "loom"}, [], 2, "wanted a ControlNet's folder or org/name, got 'loom'"),
        ({"scheduler": "Eulr"}, [], 2, "wanted a sampler, got 'Eulr'"),
        ({"structure": {"motifs": [{"family": "nope"}]}}, [], 2, "wanted a family of motifs, got"),
        ({"adapters": (("nowhere.safetensors", 1.0),)}, [], 1, "found none; check the path"),
        (
            {"structure": {"motifs": [{"family": "orb_web"}]}, "steps": 1},
            [],
            2,
            "wanted at least one step on the structure, got 1 steps x strength 0.6",
        ),
        ({}, ["--model", "lom"], 1, "did you mean loom?"),
        ({}, ["--out", "{}", "--force"], 1, "found a folder; choose another name"),
    ],
)
def test_what_cannot_be_drawn_again_is_told_before_the_model_is_loaded(
    tmp_path, capsys, monkeypatch, changes, options, code, told
):
    monkeypatch.setattr("imagegen.pipeline.load_model", lambda *_, **__: pytest.fail("loaded"))
    request = RenderRequest(prompt="a web", **changes)
    note = PngNote(request=request, geometry="text alone")
    (tmp_path / "a.png").write_bytes(encode_png(np.zeros((256, 256, 3), np.uint8), note))
    asked = ["reproduce", str(tmp_path / "a.png"), *(each.format(tmp_path) for each in options)]
    for more in ([], ["--dry-run"]):
        assert run([*asked, *more]) == code
        assert told in capsys.readouterr().err


def test_a_dry_run_of_a_picture_of_ours_tells_its_request(tmp_path, capsys):
    note = PngNote(request=RenderRequest(prompt="a web", steps=7), geometry="text alone")
    (tmp_path / "a.png").write_bytes(encode_png(np.zeros((256, 256, 3), np.uint8), note))
    out = tmp_path / "again.png"
    asked = ["reproduce", str(tmp_path / "a.png"), "--dry-run", "--out", str(out)]
    assert run([*asked, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["tool"], plan["request"]["steps"]) == ("Orbweave", 7)
    assert run(asked) == 0
    assert "dry run: would draw" in capsys.readouterr().out and not out.exists()


def test_a_model_that_is_not_at_hand_is_told(tmp_path, capsys):
    info = PngInfo()
    info.add_text("parameters", "a web\nSteps: 2, Sampler: Euler, Seed: 5, Model: v1-5")
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png", pnginfo=info)
    assert run(["reproduce", str(tmp_path / "a.png")]) == 1
    assert "found none called 'v1-5'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (["--scheduler", "Eulr"], 2, "wanted a sampler, got 'Eulr'; the names are Euler, "),
        (["--model", "lom"], 1, "found none called 'lom'; did you mean loom?"),
        (["--model", "base"], 2, "wanted a model for image, got base, which is for language"),
        (["--model", "{}/pictures"], 1, "wanted image model files in"),
        (["--model", "{}/x.safetensors"], 1, "found no such file; check the path"),
        (["--model", "{}"], 1, "found no model_index.json"),
        (["--adapter", "{}/pictures"], 1, "found no .safetensors file; name the file"),
        (["--adapter", "{}/pictures/a.png"], 1, "give a LoRA adapter as a .safetensors file"),
        (["--adapter", "nothing"], 1, "found none called 'nothing'"),
        (["--adapter", "ink:99"], 2, "wanted a weight of adapter 1 that can be rendered, got '99"),
        (["--control", "loom"], 2, "wanted a ControlNet's folder or org/name, got 'loom'"),
        (["--image", "{}/recipe.yaml"], 2, "wanted a picture file"),
        (["--image", "{}/pictures/a.png", "--mask", "{}/b.png"], 2, "No such file"),
        (["--mask", "{}/pictures/a.png", "--structure", "none"], 2, "got words alone"),
        (["--steps", "1"], 2, "wanted at least one step on the structure, got 1 steps x strength"),
        (["--model", "base+silk"], 2, "wanted an image model that is whole, got base+silk"),
        (["--model", "slerp(base, silk, t=0.5)"], 2, "LoRA adapters apart, as --adapter"),
        (["--image", "{}/pictures/a.png", "--strength", "0.01"], 2, "got 24 steps x strength 0.01"),
    ],
)
def test_a_picture_that_cannot_be_drawn_is_told_before_the_model_is_loaded(
    recipe, tmp_path, capsys, monkeypatch, options, code, told
):
    monkeypatch.setattr("imagegen.pipeline.load_model", lambda *_, **__: pytest.fail("loaded"))
    asked = [option.format(tmp_path) for option in options]
    for more in (["--dry-run"], []):
        assert run(["render", "a web", "--out", str(tmp_path / "r"), *asked, *more]) == code
        assert told in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--model", "sdxl"],
        ["--model", "org/name"],
        ["--adapter", "org/name:0.5"],
        ["--structure", "none", "--steps", "1"],  # from noise, one step is one
        [],
    ],
)
def test_a_dry_run_of_a_picture_asks_no_net(tmp_path, capsys, monkeypatch, options):
    import socket

    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("asked the net"))
    asked = ["render", "a web", "--dry-run", "--json", "--out", str(tmp_path / "r"), *options]
    assert run(asked) == 0
    assert json.loads(capsys.readouterr().out)["out"] == str(tmp_path / "r")


def test_a_pickle_is_refused_with_the_command_that_mends_it(tmp_path, capsys):
    (tmp_path / "old.ckpt").write_bytes(b"")
    asked = ["render", "a web", "--structure", "none", "--out", str(tmp_path / "r")]
    assert run([*asked, "--model", str(tmp_path / "old.ckpt")]) == 2
    assert "orbweave models convert" in capsys.readouterr().err
    assert run(["models", "convert", str(tmp_path / "old.ckpt"), str(tmp_path / "a.bin")]) == 2
    assert "add --trust-pickle" in capsys.readouterr().err
