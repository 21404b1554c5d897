"""`measure`, `relief` and `homogenise` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from ui.cli import run


@pytest.fixture
def bars(tmp_path: Path) -> Path:
    """Horizontal bars, six of sixteen rows each."""
    y, _ = np.mgrid[:64, :64]
    Image.fromarray(((y % 16 < 6) * 255).astype(np.uint8)).save(tmp_path / "bars.png")
    return tmp_path / "bars.png"


def test_measure_full_tells_sizes_connections_and_repeat(capsys, bars):
    assert run(["measure", str(bars), "--full"]) == 0
    told = capsys.readouterr().out
    assert "solid 0.375 (0.375 to 0.375, bright side" in told
    assert "struts: 5.5 px wide" in told or "struts: 6" in told
    assert "4 parts, percolates across" in told
    assert "not material properties" in told.splitlines()[-1]


def test_measure_in_json_is_the_record_and_nothing_else(capsys, bars):
    assert run(["measure", str(bars), "--full", "--solid", "dark", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)[0]
    assert found["solid_fraction"] == pytest.approx(0.625)
    assert found["anatomy"]["void"]["n_parts"] == 4


def test_overlays_are_written_whole_and_not_over_other_files(capsys, bars, tmp_path):
    other = tmp_path / "more" / "bars.png"
    other.parent.mkdir()
    other.write_bytes(bars.read_bytes())
    seen = tmp_path / "seen"
    assert run(["measure", str(bars), str(other), "--overlay", str(seen)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"overlays written to {seen}")
    names = [f"bars-{n}{k}.png" for n in ("directions", "pores", "skeleton") for k in ("", "-2")]
    assert sorted(file.name for file in seen.iterdir()) == sorted(names)

    assert run(["measure", str(bars), "--overlay", str(seen)]) == 1  # exists
    assert run(["measure", str(bars), "--overlay", str(seen), "--force"]) == 0
    (seen / "letter.txt").touch()
    assert run(["measure", str(bars), "--overlay", str(seen), "--force"]) == 1
    assert (seen / "letter.txt").exists()


@pytest.mark.parametrize("command", ["measure", "relief", "homogenise"])
def test_bad_pictures_and_words_are_refused_in_one_line(capsys, bars, tmp_path, command):
    (tmp_path / "empty.png").touch()
    for bad in ([str(tmp_path / "empty.png")], [str(bars), "--solid", "brihgt"]):
        assert run([command, *bad]) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1 and "wanted" in told
    assert "did you mean bright?" in told


@pytest.mark.parametrize(("kind", "volume"), [("height", 1.375), ("cut", 1.375)])
def test_relief_writes_a_closed_body_of_the_size_asked(capsys, bars, tmp_path, kind, volume):
    out = tmp_path / "tile.stl"
    asked = ["--kind", kind, "--width", "20", "--depth", "1", "--plate", "1", "--out", str(out)]
    assert run(["relief", str(bars), *asked]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"relief written to {out}"
    mesh = trimesh.load(out)
    assert mesh.is_watertight
    assert mesh.extents == pytest.approx([20, 20, 2])
    assert mesh.volume == pytest.approx(400 * volume, rel=0.01)
    assert run(["relief", str(bars), *asked]) == 1  # exists
    assert run(["relief", str(bars), *asked, "--force", "--quiet"]) == 0


def test_relief_dry_run_writes_nothing(capsys, bars, tmp_path):
    out = tmp_path / "tile.stl"
    assert run(["relief", str(bars), "--dry-run", "--json", "--out", str(out)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["size_mm"] == pytest.approx([50, 50, 3])
    assert told["seamless"] is True and told["written"] is None
    assert not out.exists()


def test_relief_of_a_bad_size_writes_nothing(bars, tmp_path):
    out = tmp_path / "tile.stl"
    assert run(["relief", str(bars), "--depth", "-1", "--out", str(out)]) == 2
    assert not out.exists()


def test_homogenise_says_what_was_made_of_an_odd_file(capsys, tmp_path):
    Image.new("RGBA", (32, 32), (255, 255, 255, 0)).save(tmp_path / "a.png")
    assert run(["homogenise", str(tmp_path / "a.png"), "--resolution", "16"]) == 0
    assert "note: transparent in 100% of the pixels" in capsys.readouterr().out


def test_a_cell_too_small_to_halve_is_homogenised_without_that_check(capsys, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (12, 12), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    assert run(["homogenise", str(tmp_path / "a.png"), "--json"]) == 0
    told = capsys.readouterr().out
    assert json.loads(told)[0]["change_from_half"] is None and "NaN" not in told
    assert run(["homogenise", str(tmp_path / "a.png")]) == 0
    assert "too small to compare with half the resolution" in capsys.readouterr().out


def test_homogenise_gives_bars_their_exact_constants_and_names_its_assumptions(capsys, bars):
    asked = ["homogenise", str(bars), "--resolution", "16", "--young", "2"]
    assert run([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)[0]
    assert found["moduli"]["ex"] == pytest.approx(2 * found["solid_fraction"], rel=1e-3)
    assert found["moduli"]["ey"] < 1e-4
    assert any("not a measurement" in text for text in found["assumptions"])
    assert run(asked) == 0
    assert "assumed: a model of the picture" in capsys.readouterr().out
