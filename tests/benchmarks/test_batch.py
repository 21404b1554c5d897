"""The batch's benchmark: its arithmetic, and that it runs to its end."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from mmap import PAGESIZE, mmap
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def batch(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("batch")


@pytest.fixture
def growth(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("growth")


def test_time_inside_a_timed_call_counts_once(batch):
    clock = batch.Clock()
    inner = clock.timed("inner", lambda: time.sleep(0.05))
    clock.timed("outer", lambda: (inner(), inner(), time.sleep(0.02)))()
    assert clock.seconds["inner"] >= 0.1
    assert 0.02 <= clock.seconds["outer"] < 0.1


def test_a_row_early_and_late_is_told_by_when_rows_ended(growth):
    steady = [5.0 + 0.5 * n for n in range(100)]
    assert growth.tenths(steady[::-1]) == [0.5, 0.5]
    slowing = [0.001 * n * n for n in range(100)]
    early, late = growth.tenths(slowing)
    assert late > 4 * early
    assert growth.tenths([1.0, 2.0, 3.0]) == []


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells what lies in memory now")
def test_memory_is_noted_as_each_tenth_ends_and_lets_go_what_was_freed(growth):
    held, ballast = growth.Held(), mmap(-1, 100_000_000)  # of no heap, which may have room free
    for ended in range(31):
        if ended == 6:
            ballast[::PAGESIZE] = bytes(len(range(0, len(ballast), PAGESIZE)))
        if ended == 21:
            ballast.close()
        held(ended, 30, None)
    assert len(held.tenths_mb) == 10
    before, full, after = held.tenths_mb[0], held.tenths_mb[3], held.tenths_mb[8]
    assert full - before > 80
    assert full - after > 80


def test_tenths_that_end_at_once_are_all_noted(growth, monkeypatch):
    monkeypatch.setattr(growth, "resident_mb", lambda: 7.0)
    held = growth.Held()
    held(0, 3, None)
    assert held.tenths_mb == []
    held(1, 3, 2.0)
    assert held.tenths_mb == [7.0] * 3
    held(3, 3, 0.0)
    held(3, 3, 0.0)
    assert held.tenths_mb == [7.0] * 10


def test_the_table_of_growth_compares_a_row_of_many_with_one_of_ten(growth):
    run = {"making_s": 1, "loaded_mb": 1, "made_mb": 1, "peak_mb": 1, "store_bytes": 1}
    run |= {"failed": 0, "tenths_mb": [900.0, 1000.0, *[1100.0] * 6, 1140.0, 2000.0]}
    told = [
        {"rows": n, "seconds": s, "processor_s": s / 2, "tenths_s": tenths, **run}
        for n, s, tenths in ((1, 9.0, []), (10, 5.0, []), (1000, 550.0, [0.5, 0.6]))
    ]
    table = growth.growth_table(told)
    assert "A row of 1,000 costs 1.10 times one of 10, 1.10 times of the processor's" in table
    assert "0.500 s in the second tenth and 0.600 s in the ninth: 1.20 times" in table
    assert "1,000 MB after the second tenth and 1,140 MB after the ninth: 200 kB a row" in table


@pytest.mark.long
def test_all_ways_run_and_make_the_same_designs(tmp_path):
    command = [sys.executable, str(FOLDER / "batch.py"), "--parts", "workflow,growth"]
    command += ["--concepts", "2", "--alone", "1", "--images", "1", "--steps", "2", "--size", "64"]
    command += ["--growth", "1,3", "--json", str(tmp_path / "batch.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "batch.json").read_text())
    workflow = document["workflow"]
    assert workflow["same_designs"]
    assert [run["designs"] for run in workflow["runs"].values()] == [1, 1, 1, 2, 2]
    assert all(run["designs_per_hour"] > 0 for run in workflow["runs"].values())
    assert [run["rows"] for run in document["growth"]] == [1, 3]
    assert all(len(run["tenths_mb"]) == 10 for run in document["growth"])
