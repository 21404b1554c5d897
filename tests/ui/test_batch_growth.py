"""What a row costs does not depend on how many there are."""

from __future__ import annotations

import math
import os
import platform
import threading
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import sqlalchemy as sa

from orbweave.jobs import Jobs, open_jobs
from orbweave.records import Design
from orbweave.store import STORE_VARIABLE
from ui.batch import plan_batch, work_on
from ui.cli import run
from ui.matrix import expand
from ui.table import Row

STEP = 50
"""SQLite tells of every so many instructions of its machine."""


class Cost(NamedTuple):
    """What a row of a batch took, beside the design itself."""

    instructions: float
    """Of SQLite's machine: scans and sorts show here, whatever else the computer does."""
    processor_s: float


def _cost(folder: Path, n: int, design: Design) -> Cost:
    """Return the cost of each of `n` rows that are made in no time."""
    jobs = open_jobs(str(folder / f"{n}.db"))
    told: Counter[str] = Counter()

    def count() -> int:
        told["instructions"] += STEP
        return 0

    def watch(connection, *_: object) -> None:
        connection.set_progress_handler(count, STEP)

    table = [Row(i, {"concept": f"web number {i}"}) for i in range(n)]
    batch = plan_batch(jobs, folder / str(n), expand(table, {}, "product")[0], {})
    sa.event.listen(jobs.store._engine, "checkout", watch)
    began = time.process_time()
    assert work_on(jobs, batch, lambda row, target, **how: design, at_once=4) == {"done": n}
    spent = time.process_time() - began
    return Cost(told["instructions"] / n, spent / n)


def test_a_row_costs_the_same_in_a_small_and_in_a_large_batch(tmp_path, finished, monkeypatch):
    monkeypatch.setattr("ui.batch.TELL_S", math.inf)  # counted by the second, not by the row
    small, large = (_cost(tmp_path, n, finished[0]) for n in (200, 2_000))
    assert large.instructions < 1.1 * small.instructions
    assert large.processor_s < 1.6 * small.processor_s


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that is asked")
def test_what_rows_free_in_their_threads_goes_back_to_the_system(tmp_path, finished, monkeypatch):
    monkeypatch.setattr("ui.batch.TIDY_S", 0.0)
    n, at_once, kept = 16, threading.Barrier(8), []

    def make(row, target, **how) -> Design:
        # Pieces too small to be mapped one by one; those that stay keep the heap from shrinking.
        pieces = [np.ones(12_000) for _ in range(400)]
        kept.extend(pieces[::50])
        at_once.wait(60)
        return finished[0]

    jobs = open_jobs(str(tmp_path / "orbweave.db"))
    table = [Row(i, {"concept": f"web number {i}"}) for i in range(n)]
    batch = plan_batch(jobs, tmp_path / "batch", expand(table, {}, "product")[0], {})
    before = resident_bytes()
    assert work_on(jobs, batch, make, at_once=at_once.parties) == {"done": n}
    assert resident_bytes() < before + 80_000_000  # eight rows held 300 MB together
    assert len(kept) == 8 * n


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.long
def test_a_hundred_thousand_rows_are_planned_and_listed_by_the_commands(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "orbweave.db"))
    lines = (f'"a web, number {n}",{n}\n' for n in range(100_000))
    Path("concepts.csv").write_text("concept,seed\n" + "".join(lines))
    began = time.process_time()
    assert run(["batch", "concepts.csv", "--plan"]) == 0
    planned_s = time.process_time() - began
    assert "= 100,000 rows, at most 200,000 pictures" in capsys.readouterr().out
    jobs: Jobs = open_jobs()
    rows, _ = expand([Row(n, {"concept": f"web {n}"}) for n in range(100_000)], {}, "product")
    batch = plan_batch(jobs, tmp_path / "out", rows, {})
    began = time.process_time()
    assert run(["jobs", "list", "--batch", str(batch)]) == 0
    listed_s = time.process_time() - began
    assert "100,000 jobs in " in capsys.readouterr().out
    began = time.process_time()
    assert jobs.tally(batch) == {"queued": 100_000}
    assert time.process_time() - began < 0.2  # asked every second while the batch is made
    assert planned_s < 30
    assert listed_s < 15
