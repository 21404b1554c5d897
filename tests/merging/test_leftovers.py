"""What a merge that was killed leaves behind, and what becomes of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from merging.build import merge
from merging.leftovers import claimed, remove_dead

# Stops where the weights would be written, with the half-made folder on the disk.
WAITING = """
import sys, time
import merging.folder
merging.folder._merge = lambda *arguments: (print("there", flush=True), time.sleep(100))
from merging.build import merge
from pathlib import Path
merge(sys.argv[1], Path(sys.argv[2]))
"""


def _left(place: Path) -> list[Path]:
    return sorted(place.glob(".out.*.partial"))


@pytest.fixture
def at_work(pair, tmp_path):
    """A merge in a process of its own, about to write its weights."""
    place = tmp_path / "place"
    place.mkdir()
    ref = f"slerp({pair[0]}, {pair[1]}, t=0.5)"
    with subprocess.Popen(
        [sys.executable, "-c", WAITING, ref, str(place / "out")],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "there\n"
        yield child, ref, place / "out"
        child.kill()


def test_a_killed_merges_folder_goes_with_the_next_merge_and_not_before(at_work):
    child, ref, out = at_work
    (half,) = _left(out.parent)
    assert remove_dead(out) == [] and _left(out.parent) == [half]  # its owner is at work
    child.kill()
    child.wait()
    assert _left(out.parent) == [half]
    told: list[str] = []
    merge(ref, out, on_progress=told.append)
    assert sorted(path.name for path in out.parent.iterdir()) == ["out"]
    assert (out / "config.json").is_file() and not list(out.glob(".owner*"))
    assert not any("left alone" in text for text in told)


def test_what_bears_no_mark_is_named_and_left_alone(pair, tmp_path):
    """It may be the model that `--force` put aside when the process was killed."""
    aside = tmp_path / ".out.0123abcd.partial"
    aside.mkdir()
    (aside / "model.safetensors").write_text("precious")
    others = [
        tmp_path / name for name in (".out.partial", ".out.0123abcd", ".outer.0123abcd.partial")
    ]
    for other in others:
        other.mkdir()
    told: list[str] = []
    merge(f"slerp({pair[0]}, {pair[1]}, t=0.5)", tmp_path / "out", on_progress=told.append)
    (text,) = (text for text in told if "left alone" in text)
    assert str(aside) in text and (aside / "model.safetensors").read_text() == "precious"
    assert all(other.is_dir() for other in others)


def test_a_folder_is_its_owners_as_long_as_it_is_claimed(tmp_path):
    half = tmp_path / ".out.0123abcd.partial"
    half.mkdir()
    with claimed(half):
        assert remove_dead(tmp_path / "out") == []
    assert half.is_dir() and list(half.iterdir()) == []
    assert remove_dead(tmp_path / "out") == [half]
