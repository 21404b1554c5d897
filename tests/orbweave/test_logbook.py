from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from orbweave.errors import OutputError, UsageError
from orbweave.job import Job
from orbweave.jobs import Jobs, open_jobs
from orbweave.leases import Leases
from orbweave.logbook import logged
from orbweave.store import STORE_VARIABLE
from orbweave.worker import reap_dead

ROOT = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    path = tmp_path / "store" / "orbweave.db"
    monkeypatch.setenv(STORE_VARIABLE, str(path))
    return path


@pytest.fixture
def known(file, monkeypatch) -> Jobs:
    monkeypatch.setattr(sys, "argv", ["orbweave", "merge", "blend.yaml"])
    return open_jobs()


def _begun(known: Jobs) -> Job:
    """Return the job of the work at hand as soon as it is in the store."""
    deadline = time.monotonic() + 20
    while not (found := known.find(states=["running"])) and time.monotonic() < deadline:
        time.sleep(0.01)
    (job,) = found
    return job


def test_work_that_ends_well_is_kept_as_done(known, tmp_path):
    with logged("merge", "silk into base", tmp_path / "out") as entry:
        running = _begun(known)
        entry.result["findings"] = 0
    assert (running.kind, running.state, running.label) == ("merge", "running", "silk into base")
    (done,) = known.find()
    assert (done.state, done.key, done.result) == ("done", str(tmp_path / "out"), {"findings": 0})
    assert done.seconds is not None and done.worker is None
    assert done.parameters["command"].startswith("orbweave ")


def test_the_same_result_is_the_same_job_begun_anew(known, tmp_path):
    with pytest.raises(OutputError), logged("design", "silk", tmp_path / "d"):
        raise OutputError("no room")
    assert [(job.state, job.error) for job in known.find()] == [("failed", "no room")]
    with logged("design", "silk", tmp_path / "d"):
        pass
    assert [(job.state, job.error) for job in known.find()] == [("done", "")]
    assert known.store.folders() == [tmp_path / "d"]


def test_work_that_makes_nothing_is_a_job_each_time(known):
    for _ in range(2):
        with logged("evaluate", "base", None):
            pass
    assert [job.state for job in known.find()] == ["done", "done"]


def test_ctrl_c_is_kept_as_cancelled(known, tmp_path):
    with pytest.raises(KeyboardInterrupt), logged("train", "t", tmp_path / "t"):
        raise KeyboardInterrupt
    assert known.find()[0].state == "cancelled"


def test_progress_is_told_with_the_time_that_is_left(known, tmp_path, monkeypatch):
    monkeypatch.setattr("orbweave.worker.BEATS_PER_LEASE", 1200)
    with logged("evaluate", "base", tmp_path / "e") as entry:
        number = _begun(known).id
        entry.report(3, 12, "questions")
        deadline = time.monotonic() + 20
        while (event := known.latest(number)) is None and time.monotonic() < deadline:
            time.sleep(0.02)
    assert (event.done, event.total, event.note) == (3, 12, "questions")
    assert event.eta_s > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_to_cancel_the_job_is_to_press_ctrl_c(known, tmp_path, monkeypatch, number):
    monkeypatch.setattr("orbweave.worker.BEATS_PER_LEASE", 1200)
    before = {s: signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), logged("train", "t", tmp_path / "t"):
            known.steer(_begun(known).id, "cancel")
            time.sleep(20)
            raise AssertionError("nobody interrupted")
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
    assert known.find()[0].state == "cancelled"


@pytest.mark.parametrize("move", ["pause", "resume", "retry"])
def test_a_command_is_in_no_queue(known, tmp_path, move):
    with pytest.raises(OutputError), logged("train", "t", tmp_path / "t"):
        raise OutputError("no room")
    with pytest.raises(UsageError, match="a command at a terminal .* run it again: orbweave "):
        known.steer(known.find()[0].id, move)


def test_a_locked_store_is_told_of_once_and_the_work_goes_on(known, file, monkeypatch, caplog):
    monkeypatch.setattr("orbweave.logbook.WAIT_S", 0.1)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with caplog.at_level(logging.WARNING), logged("merge", "m", None) as entry:
            entry.report(1, 2)
            entry.note("merging")
        other.execute("ROLLBACK")
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "this run is not in the list of jobs"
    ]
    assert known.find() == []


def test_work_does_not_wait_for_the_store(known, file, tmp_path):
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        with logged("merge", "m", tmp_path / "m") as entry:
            entry.report(1, 2)
            assert time.monotonic() - began < 1.0  # it would give up after 3 s
            other.execute("ROLLBACK")
            number = _begun(known).id
    assert known.get(number).state == "done"


def test_a_command_begins_without_the_library_of_the_database(tmp_path):
    code = "import sys, orbweave.logbook; sys.exit('sqlalchemy' in sys.modules)"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env).returncode == 0


def test_what_was_said_before_the_store_was_open_is_kept(known, file, monkeypatch):
    monkeypatch.setattr("orbweave.worker.BEATS_PER_LEASE", 1200)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with logged("merge", "m", None) as entry:
            entry.note("merging")
            other.execute("ROLLBACK")
            number = _begun(known).id
            deadline = time.monotonic() + 20
            while (event := known.latest(number)) is None and time.monotonic() < deadline:
                time.sleep(0.02)
    assert event is not None and event.note == "merging"


def test_a_store_that_vanishes_meanwhile_costs_a_warning_only(known, file, monkeypatch, caplog):
    monkeypatch.setattr("orbweave.logbook.WAIT_S", 0.1)
    with (
        closing(sqlite3.connect(file, isolation_level=None)) as other,
        caplog.at_level(logging.WARNING),
    ):
        with logged("merge", "m", None):
            _begun(known)
            other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
    assert "the end of this run is not in the list of jobs" in caplog.text


def test_a_place_that_cannot_be_a_store_stops_nothing(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "file" / "orbweave.db"))
    done = []
    with logged("render", "silk", tmp_path / "r"):
        done.append(True)
    assert done and "not in the list of jobs" in caplog.text


def test_two_processes_on_one_result_do_not_share_a_job(known, tmp_path, caplog):
    with logged("train", "t", tmp_path / "t"):
        _begun(known)
        with logged("train", "t", tmp_path / "t"):
            pass
    assert "another process is at" in caplog.text
    assert [job.state for job in known.find()] == ["done"]


def test_a_command_that_was_killed_has_failed(known, tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from orbweave.logbook import logged\n"
        "with logged('train', 't', Path('t')): time.sleep(60)"
    )
    command = [sys.executable, "-c", code]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, env=env) as process:
        assert _begun(known).label == "t"
        reap_dead(Leases(known.store))
        assert known.find()[0].state == "running"
        process.send_signal(signal.SIGKILL)
    reap_dead(Leases(known.store))
    (job,) = known.find()
    assert (job.state, job.error) == ("failed", "its process died; run the command again")
