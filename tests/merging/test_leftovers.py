"""What a merge that was killed leaves behind, and one that is under way keeps away."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from merging.build import merge
from merging.leftovers import held
from orbweave.errors import OutputError

# Stops in one step of a merge, with the half-made folder on the disk.
WAITING = """
import sys, time
import merging.folder, orbweave.files
step = {"weights": (merging.folder, "_merge"), "flush": (orbweave.files, "_flush_tree")}
setattr(*step[sys.argv[3]], lambda *arguments: (print("there", flush=True), time.sleep(100)))
from merging.build import merge
from pathlib import Path
merge(sys.argv[1], Path(sys.argv[2]))
"""


def _left(place: Path) -> list[Path]:
    return sorted(place.glob(".out.*.partial"))


@pytest.fixture(params=["weights", "flush"])
def at_work(pair, tmp_path, request):
    """A merge in a process of its own, about to write its weights or to flush them."""
    place = tmp_path / "place"
    place.mkdir()
    ref = f"slerp({pair[0]}, {pair[1]}, t=0.5)"
    with subprocess.Popen(
        [sys.executable, "-c", WAITING, ref, str(place / "out"), request.param],
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
    told: list[str] = []
    for force in (False, True):
        with pytest.raises(OutputError, match=f"write {out}, but another merge into it is under w"):
            merge(ref, out, force=force, on_progress=told.append)
    assert _left(out.parent) == [half] and told == []  # its owner is at work
    child.kill()
    child.wait()
    assert _left(out.parent) == [half]
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


def test_a_place_is_its_holders_and_what_a_mark_names_goes_with_the_next(tmp_path):
    target, half = tmp_path / "out", tmp_path / ".out.0123abcd.partial"
    told: list[str] = []
    with held(target, told.append) as note:
        note(tmp_path / ".out.00000000.partial")
        note(half)
        half.mkdir()
        mark = (tmp_path / ".out.owner").read_bytes()
        with pytest.raises(OutputError, match="under way"), held(target, told.append):
            pytest.fail("two at once")
    assert list(tmp_path.iterdir()) == [half] and told == []
    (tmp_path / ".out.owner").write_bytes(mark)  # as after a kill
    with held(target, told.append):
        assert not half.exists()
    assert list(tmp_path.iterdir()) == [] and told == []


@pytest.mark.parametrize("name", ["", "a", "../a", "/", ".", ".out.partial", "\0", "\udcff"])
def test_a_broken_mark_removes_nothing(tmp_path, name):
    place = tmp_path / "place"
    for folder in (tmp_path / "a", place / "a", place / ".out.partial"):
        folder.mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    (place / ".out.owner").write_bytes(name.encode(errors="surrogateescape"))
    with held(place / "out", lambda _: None):
        pass
    assert sorted(tmp_path.rglob("*")) == before


def test_a_mark_taken_away_by_its_last_holder_is_made_anew(tmp_path, monkeypatch):
    """Between opening it and locking it, its holder may have ended."""
    import fcntl

    flock, path = fcntl.flock, tmp_path / ".out.owner"

    def late(file: object, how: int) -> None:
        monkeypatch.undo()
        path.unlink()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with held(tmp_path / "out", lambda _: None):
        with pytest.raises(OutputError, match="under way"), held(tmp_path / "out", lambda _: None):
            pytest.fail("two at once")


def test_a_disk_that_knows_no_locks_takes_a_merge_all_the_same(pair, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.setattr("orbweave.owner.fcntl.flock", refuse)
    merge(f"slerp({pair[0]}, {pair[1]}, t=0.5)", place / "out")
    assert [path.name for path in place.iterdir()] == ["out"]
