"""The same tests on SQLite and, where its programs are installed, on a PostgreSQL of our own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from orbweave.errors import UsageError
from orbweave.job import KINDS, STATES, NewJob, state_of_batch
from orbweave.jobs import MOVES, Jobs, open_jobs
from orbweave.leases import MAX_DEATHS, Leases
from orbweave.tables import events, jobs
from orbweave.worker import Worker, reap_dead

ROOT = Path(__file__).parents[2]


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a PostgreSQL server that lives as long as the tests."""
    programs = Path(os.path.realpath(shutil.which("postgres") or "nowhere")).parent
    if not (programs / "initdb").exists():
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg")
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        user = {}
        if os.geteuid() == 0:  # the server refuses to run as root
            os.chown(folder, 65534, 65534)
            user = {"user": 65534, "group": 65534, "extra_groups": []}
        base = Path(folder)
        make = [programs / "initdb", "-D", base / "data", "-U", "orbweave", "-A", "trust", "-N"]
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL, cwd=folder, **user)
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        control = [programs / "pg_ctl", "-D", base / "data", "-w"]
        start = [*control, "-l", base / "log", "-o", options, "start"]
        subprocess.run(start, check=True, stdout=subprocess.DEVNULL, cwd=folder, **user)
        try:
            yield f"postgresql://orbweave@/postgres?host={folder}"
        finally:
            stop = [*control, "-m", "immediate", "stop"]
            subprocess.run(stop, check=True, stdout=subprocess.DEVNULL, cwd=folder, **user)


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store."""
    if request.param == "sqlite":
        return str(tmp_path / "orbweave.db")
    found: str = request.getfixturevalue("server")
    known = open_jobs(found)
    with known.store.write() as connection:
        connection.execute(sa.delete(events))
        connection.execute(sa.delete(jobs))
    known.store.close()
    return found


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def known(address: str, clock: Clock) -> Iterator[Jobs]:
    store = open_jobs(address).store
    yield Jobs(store, clock=clock)
    store.close()


@pytest.fixture
def leases(known: Jobs, clock: Clock) -> Leases:
    return Leases(known.store, clock=clock, lease_s=60)


def _batch(known: Jobs, n: int) -> int:
    batch = known.add(NewJob("batch", "a batch", key="/out"))
    rows = [NewJob("batch-row", f"row {i}", {"row": i}, key=f"/out/{i}") for i in range(n)]
    known.plan(batch.id, rows)
    return batch.id


def test_a_job_comes_back_as_it_was_put_in(known):
    new = NewJob("train", "silk ünd 叶", {"steps": 3, "t": 0.4}, key="/runs/silk", profile="p")
    job = known.add(new)
    assert (job.kind, job.state, job.label, job.key) == (
        "train",
        "queued",
        "silk ünd 叶",
        "/runs/silk",
    )
    assert (job.parameters, job.result, job.error, job.attempts) == (
        {"steps": 3, "t": 0.4},
        None,
        "",
        0,
    )
    assert known.get(job.id) == job


def test_one_result_is_one_job(known, leases):
    job = known.add(NewJob("design", "first name", key="/d"))
    leases.claim("w")
    again = known.add(NewJob("design", "second name", {"n": 1}, key="/d"))
    assert (again.id, again.label, again.parameters, again.state) == (
        job.id,
        "second name",
        {"n": 1},
        "running",
    )
    keyless = {known.add(NewJob("design", "no key")).id for _ in range(2)}
    assert len(keyless) == 2


def test_an_unknown_job_is_told(known):
    with pytest.raises(UsageError, match="found none of number 77"):
        known.get(77)


def test_jobs_are_taken_in_order_and_once(known, leases):
    for label in "abc":
        known.add(NewJob("render", label))
    urgent = known.add(NewJob("render", "urgent", priority=-1))
    known.move(known.find()[-1].id, first=True)
    taken = [leases.claim("w").label for _ in range(4)]
    assert taken == [urgent.label, "c", "a", "b"]
    assert leases.claim("w") is None


def test_a_job_can_be_moved_to_the_end_and_to_another_priority(known):
    first, second, third = (known.add(NewJob("render", label)) for label in "abc")
    known.move(first.id, first=False)
    assert [job.label for job in known.find()] == ["b", "c", "a"]
    known.move(third.id, priority=-2)
    assert [job.label for job in known.find()] == ["c", "b", "a"]
    known.move(second.id, priority=-2, first=True)
    assert [job.label for job in known.find()] == ["b", "c", "a"]


def test_a_worker_takes_only_its_kinds_and_its_batch(known, leases):
    batch = _batch(known, 1)
    known.add(NewJob("train", "t"))
    known.add(NewJob("merge", "m"))
    assert leases.claim("w", kinds=["merge"]).label == "m"
    assert leases.claim("w").label == "t"
    assert leases.claim("w") is None  # neither the batch nor its row
    assert leases.claim("w", batch=batch).label == "row 0"


def test_a_result_and_a_failure_are_kept(known, leases):
    done, failed = known.add(NewJob("merge", "m")), known.add(NewJob("merge", "n"))
    for _ in range(2):
        leases.claim("w")
    assert leases.finish(done.id, "w", {"score": 0.5}, 1.5)
    assert leases.fail(failed.id, "w", "no such model", 0.5)
    done, failed = known.get(done.id), known.get(failed.id)
    assert (done.state, done.result, done.seconds, done.worker) == (
        "done",
        {"score": 0.5},
        1.5,
        None,
    )
    assert (failed.state, failed.error, failed.attempts) == ("failed", "no such model", 1)


def test_a_lease_that_ran_out_gives_the_job_to_another(known, leases, clock):
    job = known.add(NewJob("design", "d"))
    leases.claim("slow")
    clock.now += 59
    assert leases.reap() == 0
    assert leases.renew(job.id, "slow") == "go on"
    clock.now += 59
    assert leases.reap() == 0
    clock.now += 2
    assert leases.reap() == 1
    assert leases.claim("quick").attempts == 2
    assert leases.renew(job.id, "slow") == "lost"
    assert not leases.finish(job.id, "slow", {"by": "slow"}, 1.0)
    assert leases.finish(job.id, "quick", {"by": "quick"}, 1.0)
    assert known.get(job.id).result == {"by": "quick"}


def test_a_job_that_takes_every_worker_with_it_fails_in_the_end(known, leases, clock):
    job = known.add(NewJob("design", "d"))
    for n in range(MAX_DEATHS):
        assert leases.claim(f"w{n}").id == job.id
        assert leases.reap([f"w{n}"]) == 1
    assert leases.claim("w") is None
    assert known.get(job.id).error == "its worker died 10 times"


def test_a_job_given_back_counts_no_attempt(known, leases):
    known.add(NewJob("design", "d"))
    job = leases.claim("w")
    assert leases.release(job.id, "w")
    assert (known.get(job.id).state, known.get(job.id).attempts) == ("queued", 0)


@pytest.mark.parametrize(
    ("move", "before", "after"),
    [
        ("pause", "queued", "paused"),
        ("resume", "paused", "queued"),
        ("cancel", "queued", "cancelled"),
        ("cancel", "paused", "cancelled"),
        ("retry", "failed", "queued"),
        ("retry", "cancelled", "queued"),
    ],
)
def test_steering_leads_from_state_to_state(known, leases, move, before, after):
    job = known.add(NewJob("design", "d"))
    if before == "failed":
        leases.claim("w")
        leases.fail(job.id, "w", "broken", 1.0)
    elif before != "queued":
        known.steer(job.id, {"paused": "pause", "cancelled": "cancel"}[before])
    assert known.steer(job.id, move) == 1
    now = known.get(job.id)
    assert (now.state, now.error) == (after, "")
    assert after != "queued" or now.seconds is now.finished is None


@pytest.mark.parametrize("move", MOVES)
def test_a_job_that_is_done_cannot_be_steered(known, leases, move):
    job = known.add(NewJob("design", "d"))
    leases.claim("w")
    leases.finish(job.id, "w", {}, 1.0)
    with pytest.raises(UsageError, match=f"wanted to {move} job {job.id}, it is done"):
        known.steer(job.id, move)


@pytest.mark.parametrize(("move", "state"), [("pause", "paused"), ("cancel", "cancelled")])
def test_a_running_job_is_asked_and_its_worker_obeys(known, leases, clock, move, state):
    job = known.add(NewJob("design", "d"))
    leases.claim("w")
    assert known.steer(job.id, move) == 1
    assert known.get(job.id).state == "running"
    assert leases.renew(job.id, "w") == move
    leases.release(job.id, "w")
    assert known.get(job.id).state == state


def test_what_a_dead_worker_was_asked_is_done_when_its_job_returns(known, leases):
    job = known.add(NewJob("design", "d"))
    leases.claim("w")
    known.steer(job.id, "cancel")
    leases.reap(["w"])
    assert known.get(job.id).state == "cancelled"


def test_a_request_can_be_taken_back(known, leases):
    job = known.add(NewJob("design", "d"))
    leases.claim("w")
    known.steer(job.id, "pause")
    known.steer(job.id, "resume")
    assert leases.renew(job.id, "w") == "go on"


def test_pausing_a_batch_lets_the_running_row_end(known, leases):
    batch = _batch(known, 4)
    running = leases.claim("w", batch=batch)
    assert known.steer(batch, "pause") == 3
    assert known.tally(batch) == {"running": 1, "paused": 3}
    assert leases.renew(running.id, "w") == "go on"
    leases.finish(running.id, "w", {}, 1.0)
    assert known.get(batch).state == "paused"
    assert leases.claim("w", batch=batch) is None
    assert known.steer(batch, "resume") == 3
    assert known.get(batch).state == "queued"


def test_cancelling_a_batch_asks_the_running_row_too(known, leases):
    batch = _batch(known, 3)
    running = leases.claim("w", batch=batch)
    assert known.steer(batch, "cancel") == 3
    assert leases.renew(running.id, "w") == "cancel"


def test_the_state_of_a_batch_follows_from_its_rows():
    assert state_of_batch({}) == "queued"
    assert state_of_batch({"done": 3}) == "done"
    assert state_of_batch({"done": 3, "failed": 1}) == "failed"
    assert state_of_batch({"done": 3, "failed": 1, "queued": 1, "running": 1}) == "running"
    assert set(STATES) == {state_of_batch({state: 1}) for state in STATES}


def test_planning_again_keeps_what_was_done_and_forgets_what_is_gone(known, leases):
    batch = _batch(known, 4)
    for _ in range(2):
        job = leases.claim("w", batch=batch)
        leases.finish(job.id, "w", {"n": job.id}, 1.0)
    rows = [NewJob("batch-row", f"row {i}", key=f"/out/{i}") for i in (3, 1, 9)]
    known.plan(batch, rows)
    states = {key: state for key, (_, state) in known.states(batch).items()}
    assert states == {"/out/1": "done", "/out/3": "queued", "/out/9": "queued"}
    rows = list(known.each(batch))
    assert [job.key for job in rows] == ["/out/3", "/out/1", "/out/9"]
    assert rows[1].result is not None


def test_what_lies_on_the_disk_is_adopted_and_what_is_gone_is_done_again(known):
    batch = _batch(known, 2)
    (first, _), (second, _) = known.states(batch).values()
    known.adopt(first, {"pictures": []}, 2.0)
    assert known.get(first).state == "done"
    known.requeue([first, second])
    assert known.tally(batch) == {"queued": 2}
    assert known.get(first).result is None


def test_a_result_that_only_the_disk_knows_is_unread(known):
    batch = _batch(known, 3)
    first, second, _ = (job.id for job in known.each(batch))
    known.adopt(first, {"pictures": []}, 2.0)
    known.adopt(second, None, None)
    assert known.unread(batch) == {second}


def test_the_typical_time_is_the_median_of_like_jobs(known, leases):
    assert known.typical_seconds("8 steps") is None
    for seconds in (1.0, 9.0, 2.0):
        job = known.add(NewJob("render", "r", profile="8 steps"))
        leases.claim("w")
        leases.finish(job.id, "w", {}, seconds)
    assert known.typical_seconds("8 steps") == 2.0
    assert known.typical_seconds("9 steps") is None


def test_events_are_kept_in_order(known):
    job = known.add(NewJob("train", "t"))
    assert known.latest(job.id) is None
    known.tell(job.id, 1, 4, 30.0, "warming up")
    known.tell(job.id, 2, 4, None)
    first, second = known.events(job.id)
    assert (first.done, first.total, first.eta_s, first.note) == (1, 4, 30.0, "warming up")
    assert known.latest(job.id) == second
    assert known.events(job.id, after=first.id) == [second]


def test_a_worker_renews_its_lease_and_hands_on_what_is_reported(known):
    job = known.add(NewJob("train", "t"))
    with Worker(Jobs(known.store), lease_s=0.3) as worker:
        task = worker.take()
        before = known.get(job.id).lease_until
        task.report(1, 4, "step 1")
        deadline = time.monotonic() + 20
        while known.latest(job.id) is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert known.get(job.id).lease_until > before
        assert known.latest(job.id).note == "step 1"
        assert known.latest(job.id).eta_s > 0
        assert not task.cancelled()
        known.steer(job.id, "cancel")
        while not task.cancelled() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert task.cancelled()
        assert task.release()
    assert known.get(job.id).state == "cancelled"
    assert threading.active_count() == 1 or "orbweave-pulse" not in {
        thread.name for thread in threading.enumerate()
    }


def test_a_worker_that_leaves_in_the_middle_gives_its_job_back(known):
    job = known.add(NewJob("train", "t"))
    with pytest.raises(KeyboardInterrupt), Worker(Jobs(known.store)) as worker:
        worker.take()
        raise KeyboardInterrupt
    assert (known.get(job.id).state, known.get(job.id).attempts) == ("queued", 0)


def test_a_worker_holds_several_jobs_and_leaves_none_behind(known):
    batch = _batch(known, 3)
    with Worker(Jobs(known.store), lease_s=0.3) as worker:
        first, second = worker.take(batch=batch), worker.take(batch=batch)
        assert (first.job.label, second.job.label) == ("row 0", "row 1")
        assert second.finish({})
        before = known.get(first.job.id).lease_until
        deadline = time.monotonic() + 20
        while known.get(first.job.id).lease_until == before and time.monotonic() < deadline:
            time.sleep(0.02)
        first.stop()
        assert first.cancelled()
    assert known.tally(batch) == {"queued": 2, "done": 1}
    assert known.get(first.job.id).attempts == 0


# Takes jobs until there are none; prints each. Given a time, it takes one and then sleeps.
WORKING = """
import sys, time
from orbweave.jobs import open_jobs
from orbweave.worker import Worker, reap_dead

address, batch, sleep_s = sys.argv[1], int(sys.argv[2]) or None, float(sys.argv[3])
with Worker(open_jobs(address)) as worker:
    while task := worker.take(batch=batch):
        print(task.job.key, flush=True)
        time.sleep(sleep_s)
        task.finish({})
"""


def _start(address: str, batch: int, sleep_s: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKING, address, str(batch), str(sleep_s)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
    )  # fmt: skip


def test_processes_never_take_the_same_job(known, address):
    batch = _batch(known, 60)
    workers = [_start(address, batch, 0.0) for _ in range(3)]
    taken = [line for worker in workers for line in worker.communicate(timeout=60)[0].splitlines()]
    assert Counter(taken) == Counter({f"/out/{i}": 1 for i in range(60)})
    assert known.tally(batch) == {"done": 60}


def test_the_job_of_a_killed_process_returns_at_once(tmp_path):
    known = open_jobs(str(tmp_path / "orbweave.db"))
    batch = _batch(known, 1)
    with _start(str(known.store.file), batch, 60.0) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "/out/0\n"
        with Worker(known) as worker:
            assert worker.take(batch=batch) is None  # it lives
            reap_dead(Leases(known.store))
            assert known.tally(batch) == {"running": 1}
            process.send_signal(signal.SIGKILL)
            process.wait()
            task = worker.take(batch=batch)
            assert task is not None and task.job.attempts == 2
            task.finish({})
    assert list(tmp_path.glob("orbweave.db.workers/*")) == []


@pytest.mark.parametrize("address", ["sqlite"], indirect=True)
def test_a_hundred_thousand_rows_are_planned_and_listed_in_seconds(known):
    before = time.process_time()
    batch = _batch(known, 100_000)
    planned_s = time.process_time() - before
    before = time.process_time()
    assert sum(1 for _ in known.each(batch)) == 100_000
    assert known.find()[0].state == "queued"
    listed_s = time.process_time() - before
    leases = Leases(known.store)
    before = time.process_time()
    for _ in range(20):
        job = leases.claim("w", batch=batch)
        leases.finish(job.id, "w", {}, 1.0)
    assert job.label == "row 19"
    assert planned_s < 15
    assert listed_s < 10
    assert time.process_time() - before < 0.5  # the row at hand costs the same in any batch


def test_every_kind_has_a_name_of_its_own():
    assert len(set(KINDS)) == len(KINDS)
