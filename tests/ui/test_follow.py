"""`follow` and `render --candidates`, on a tiny real model and an untaught classifier."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from imagegen.classifier import ClassifierConfig, Network, save_classifier
from tests.imagegen.tiny_models import build
from ui.cli import run

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sd", tmp_path_factory.mktemp("tiny") / "sd")


@pytest.fixture(autouse=True)
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.manual_seed(0)
    config = ClassifierConfig(side_px=32, widths=(4, 4, 4, 4))
    save_classifier(Network(config), config, tmp_path / "weights")
    monkeypatch.setattr("imagegen.classifier.WEIGHTS", tmp_path / "weights")
    return tmp_path / "weights"


def _rendered(tiny: Path, out: Path, *more: str) -> int:
    asked = ["render", "a golden orb web on black", "--model", str(tiny), "--size", "64"]
    return run([*asked, "--steps", "2", "--candidates", "3", "--out", str(out), *more])


@pytest.mark.slow
def test_candidates_are_all_kept_ordered_and_can_be_judged_again(tiny, tmp_path, capsys):
    out = tmp_path / "r"
    assert _rendered(tiny, out, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert len(list(out.glob("*.png"))) == 3
    follows = document["candidates"]
    assert follows == json.loads((out / "candidates.json").read_text())
    scores = [each["score"] for each in follows]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == 3
    assert {each["picture"] for each in follows} == {str(p) for p in out.glob("*.png")}
    assert follows[0]["asked"]["families"] == ["orb_web"]
    assert follows[0]["asked"]["targets"]["solid_fraction"] is not None  # of the structure

    assert run(["follow", *sorted(map(str, out.glob("*.png"))), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again == follows

    assert _rendered(tiny, out, "--force") == 0  # a folder with candidates.json is still ours
    told = capsys.readouterr().out.splitlines()
    best = Path(follows[0]["picture"]).name
    assert told[-1] == f"pictures written to {out}; the best is {best}"
    assert any(line.startswith("1. ") and best in line for line in told)


@pytest.mark.slow
def test_words_given_count_instead_of_the_record(tiny, tmp_path, capsys):
    out = tmp_path / "r"
    assert _rendered(tiny, out, "--quiet", "--structure", "none") == 0
    picture = str(next(out.glob("*.png")))
    capsys.readouterr()
    assert run(["follow", picture, "--prompt", "blue honeycomb", "--json"]) == 0
    asked = json.loads(capsys.readouterr().out)[0]["asked"]
    assert (asked["families"], asked["materials"]) == (["honeycomb"], ["blue"])
    assert run(["follow", picture]) == 0
    told = capsys.readouterr().out.splitlines()
    assert "asked: spider orb web, golden on black; seen:" in told[0]
    assert told[-1].startswith(f"judged 1 picture; the best is {picture}")


def test_a_picture_without_a_record_needs_words(tmp_path, capsys):
    from PIL import Image

    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    assert run(["follow", str(tmp_path / "a.png")]) == 2
    assert "say what it should show by --prompt" in capsys.readouterr().err
    assert run(["follow", str(tmp_path / "a.png"), "--prompt", "a red honeycomb"]) == 0


def test_without_the_weights_nothing_is_rendered(tmp_path, weights, capsys):
    (weights / "classifier.json").unlink()
    asked = ["render", "a web", "--candidates", "2", "--out", str(tmp_path / "r")]
    assert run(asked) == 1
    assert "install Orbweave again" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_one_candidate_is_none(tmp_path, capsys):
    assert run(["render", "a web", "--candidates", "1", "--out", str(tmp_path / "r")]) == 2
