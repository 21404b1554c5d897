"""The main job on the real embedded models, as a person runs it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from imagegen.assembly import WEIGHTS
from imagegen.png import read_note, read_parameters
from orbweave.records import Design

ROOT = Path(__file__).parents[2]
CONCEPT = "a filter membrane that combines spider silk and leaf veins"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not (WEIGHTS / "unet.safetensors").exists(), reason="the image model is not trained yet"
    ),
]


def _orbweave(*arguments: str, cwd: Path) -> Any:
    """Run a command with --json and return its document; nothing else may be on stdout."""
    done = subprocess.run(
        [sys.executable, "-m", "ui.cli", *arguments, "--json"],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


def _pixels(path: Path) -> str:
    with Image.open(path) as picture:
        return hashlib.sha256(picture.convert("RGB").tobytes()).hexdigest()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Design, Path]:
    place = tmp_path_factory.mktemp("design")
    answer = _orbweave("design", CONCEPT, "--images", "2", "--seed", "5", "--out", "d", cwd=place)
    assert answer["written"] == "d"
    return Design.model_validate(answer["design"]), place / "d"


def test_the_folder_is_whole(made):
    design, folder = made
    assert Design.model_validate_json((folder / "design.json").read_text("utf-8")) == design
    assert {path.name for path in folder.iterdir()} == {
        "conversation.jsonl",
        "conversation.md",
        "design.json",
        "images",
        "measurements.json",
        "recording.jsonl",
        "report.html",
        "state.json",
    }


def test_silk_and_leaf_experts_spoke_and_cited_their_own_facts(made):
    design, _ = made
    experts = [turn for turn in design.turns if turn.role == "expert"]
    assert {"spider_silk_expert", "leaf_expert"} <= {turn.speaker for turn in experts}
    given = {fact.id: fact.domain for fact in design.facts}
    assert all(turn.cited and set(turn.cited) <= given.keys() for turn in experts)


def test_two_pictures_were_drawn_from_the_engineers_prompt(made):
    design, folder = made
    assert [picture.seed for picture in design.pictures] == [5, 6]
    for picture in design.pictures:
        path = folder / picture.path
        assert hashlib.sha256(path.read_bytes()).hexdigest() == picture.sha256
        assert read_note(path).request.prompt == design.prompts[-1].prompt
        assert "Steps: " in (read_parameters(path) or "")
        with Image.open(path) as image:
            assert image.size == (256, 256)
            assert image.convert("L").getextrema()[1] > 60


def test_rendering_differs_from_the_bare_geometry(made):
    design, folder = made
    assert design.prompts[0].structure is not None
    bare = _pixels(folder / "images" / "seed-structure-0.png")
    assert bare not in {_pixels(folder / picture.path) for picture in design.pictures}


def test_the_same_seed_gives_the_same_text_and_pictures(made, tmp_path):
    design, _ = made
    answer = _orbweave(
        "design", CONCEPT, "--images", "2", "--seed", "5", "--out", "d", cwd=tmp_path
    )
    again = Design.model_validate(answer["design"])
    assert [turn.text for turn in again.turns] == [turn.text for turn in design.turns]
    assert [p.sha256 for p in again.pictures] == [p.sha256 for p in design.pictures]


def test_a_picture_can_be_made_again_from_itself(made, tmp_path):
    design, folder = made
    answer = _orbweave("reproduce", str(folder / design.pictures[1].path), cwd=tmp_path)
    assert answer["matches"] is True


def test_rendering_twice_gives_the_same_pixels(tmp_path):
    pictures = [
        _orbweave("render", "golden orb web on black", "--out", name, cwd=tmp_path)["pictures"][0]
        for name in ("a", "b")
    ]
    assert _pixels(tmp_path / pictures[0]["path"]) == _pixels(tmp_path / pictures[1]["path"])
