"""A batch that is killed again and again ends as one that was left alone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from agents.roles import load_team
from tests.ui.noise import assert_same, drawn_in, run_in, table_of, write_table


def _raise(folder: Path, kills: int, n_processes: int = 1, within_s: float = 1.0) -> list[int]:
    """Run the batch in `folder / out` with so many kills; return [kills that hit, exit codes]."""
    folder.mkdir()
    write_table(folder)
    done = run_in(folder, kills, n_processes, within_s)
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "batch"
    assert _raise(folder, 0) == [0, 1]  # one row fails, and so does the run
    return folder


def test_an_undisturbed_batch_draws_every_row_once(undisturbed):
    drawn = drawn_in(undisturbed)
    assert set(drawn.values()) == {1}
    assert len(drawn) == 38


def test_a_batch_killed_at_random_moments_ends_the_same(tmp_path, undisturbed):
    living, code = _raise(tmp_path / "killed", 8)
    assert living >= 3
    assert code == 1
    assert_same(tmp_path / "killed", undisturbed)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_batch_killed_fifty_times_ends_the_same(tmp_path, undisturbed):
    # Five seconds in all, half of them to begin: the 40 rows last until the last kill.
    living, code = _raise(tmp_path / "killed", 50, within_s=0.2)
    assert living >= 40
    assert code == 1
    assert_same(tmp_path / "killed", undisturbed)


def test_two_processes_on_one_batch_never_make_the_same_row(tmp_path, undisturbed):
    assert _raise(tmp_path / "shared", 0, n_processes=2) == [0, 1, 1]
    assert set(drawn_in(tmp_path / "shared").values()) == {1}
    assert_same(tmp_path / "shared", undisturbed)


def test_two_processes_killed_together_leave_the_same_table(tmp_path, undisturbed):
    living, *codes = _raise(tmp_path / "both", 3, n_processes=2)
    assert living >= 2
    assert codes == [1, 1]
    assert_same(tmp_path / "both", undisturbed)


@pytest.mark.long
@pytest.mark.parametrize(("store", "size"), [("orbweave.db", "1m"), ("out/orbweave.db", "2m")])
def test_a_batch_on_a_full_disk_goes_on_once_there_is_room(tmp_path, undisturbed, store, size):
    folder = tmp_path / "full"
    (folder / "out").mkdir(parents=True)
    write_table(folder)
    small = f'mount -t tmpfs -o size={size} tmpfs out; "$@"; cp -a out kept'
    wrapped = ["unshare", "-m", "bash", "-ec", small, "-"]
    mount = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", str(folder / "out")]
    if shutil.which("unshare") is None or subprocess.run(mount).returncode:
        pytest.skip("wanted to mount a small disk, this machine does not let us")
    listed = "ls -A out/designs > after-first; mount -o remount,size=64m out"
    done = run_in(folder, 0, between=listed, wrapped=wrapped, store=store)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", "1", "1"]
    (told,) = [line for line in done.stderr.splitlines() if line.startswith("orbweave: ")]
    assert re.search(r"wanted to (write|use the store) .*(No space left|disk is full)", told), told
    made = (folder / "after-first").read_text().split()
    assert 2 < len(made) < 38
    assert not [name for name in made if name.startswith(".")]  # nothing half made
    (folder / "out").rmdir()
    (folder / "kept").rename(folder / "out")
    assert_same(folder, undisturbed)


# The default team, made terse: one fact an expert, one try and a few tokens a reply.
def _terse_team(folder: Path) -> Path:
    team = load_team().model_dump(mode="json", exclude_none=True)
    team["facts_each"] = 1
    for form in team.values():
        if isinstance(form, dict) and "max_new_tokens" in form:
            form |= {"max_new_tokens": 12, "tries": 1}
    target = folder / "terse.yaml"
    target.write_text(json.dumps(team))  # JSON is YAML
    return target


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_batch_with_the_real_models_killed_five_times_ends_the_same(tmp_path):
    seconds = 0.0
    lines = [f"{concept},64,1,2,{_terse_team(tmp_path)}" for concept in ("silk", "leaf")]
    for name, kills in (("left-alone", 0), ("killed", 5)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "concepts.csv").write_text("\n".join(["concept,size,images,steps,team", *lines]))
        done = run_in(folder, kills, within_s=0.3 * seconds, parts="real")
        assert done.returncode == 0, done.stderr
        living, code = map(int, done.stdout.split())
        assert code == 0
        first, last = (folder / "out" / name for name in ("batch.json", "results.csv"))
        seconds = last.stat().st_mtime - first.stat().st_mtime
    assert living >= 4
    first, second = (table_of(tmp_path / name / "out") for name in ("left-alone", "killed"))
    assert first == second
    assert len(first) == 4
    assert len({row["sha256"] for row in first}) == 4
