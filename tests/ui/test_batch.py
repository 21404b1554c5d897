from __future__ import annotations

import csv
import errno
import json
import re
import shutil
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from agents.conversation import Conversation
from agents.events import TurnStarted
from agents.fake import FakeEngine
from agents.roles import load_team
from imagegen.measure import measure
from orbweave.errors import EngineError, OutputError
from orbweave.job import NewJob
from orbweave.jobs import Jobs, open_jobs
from orbweave.leases import Leases
from orbweave.records import Critique, Design, ImagePrompt, Targets
from orbweave.store import STORE_VARIABLE
from ui.batch import check_batch_folder, plan_batch, work_on
from ui.cli import run
from ui.design import Workshop
from ui.maker import Maker
from ui.matrix import BatchRow, expand
from ui.table import Row


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch) -> Path:
    """A store of its own, as the commands find it."""
    file = tmp_path / "store" / "orbweave.db"
    monkeypatch.setenv(STORE_VARIABLE, str(file))
    return file


@pytest.fixture
def jobs(store) -> Jobs:
    return open_jobs()


@pytest.fixture
def opened() -> list[FakeEngine]:
    """Every engine that was opened."""
    return []


@pytest.fixture
def shop(renderer, opened) -> Workshop:
    """Parts that draw checkerboards; a concept with a bomb in it fails."""

    async def converse(brief, *, engine_for, render, on_event, team, **_):
        on_event(TurnStarted(0, "prompt_engineer", "engineer", team.engineer_model))
        assert not engine_for(team.engineer_model).closed
        if "bomb" in brief.concept:
            raise EngineError("the model exploded")
        if "gremlin" in brief.concept:
            raise ZeroDivisionError("gremlin")
        prompt = ImagePrompt(title=brief.concept.title(), prompt=f"a picture of {brief.concept}")
        pictures, measurements = await render(prompt, 0)
        critique = Critique(
            scores={"depth": 3.0, "clarity": 4.0},
            advice="",
            wanted=Targets(),
            measured={},
            prompt_version=0,
            turn=0,
        )
        return Conversation((), (), (prompt,), pictures, measurements, (critique,), "done")

    def open_engine(model: str) -> FakeEngine:
        opened.append(FakeEngine(model=model))
        return opened[-1]

    return Workshop(converse, open_engine, lambda: None, load_team(), renderer, measure)


@pytest.fixture
def maker(shop) -> Maker:
    return Maker(shop)


def _rows(*concepts: str, **options: list[str]) -> list[BatchRow]:
    given = {"size": ["64"], "images": ["1"], "structure": ["none"], **options}
    table = [Row(n, {"concept": concept}) for n, concept in enumerate(concepts, start=2)]
    rows, faults = expand(table, given, "product")
    assert faults == []
    return rows


def _make(jobs: Jobs, out: Path, rows: list[BatchRow], maker) -> tuple[int, dict[str, int]]:
    batch = plan_batch(jobs, out, rows, {})
    return batch, work_on(jobs, batch, maker)


def _designs(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "designs").iterdir())


def test_every_row_becomes_a_design_in_its_folder(tmp_path, jobs, maker):
    rows = _rows("silk", "leaf", seed=["1", "2"])
    batch, tally = _make(jobs, tmp_path / "b", rows, maker)
    assert tally == {"done": 4}
    assert _designs(tmp_path / "b") == sorted(row.folder for row in rows)
    record = (tmp_path / "b" / "designs" / rows[1].folder / "design.json").read_text()
    design = Design.model_validate_json(record)
    assert (design.brief.concept, design.brief.seed) == ("silk", 2)
    assert [job.parameters["number"] for job in jobs.each(batch)] == [2, 2, 3, 3]
    assert jobs.latest(batch).done == 4


def test_a_failing_row_does_not_stop_the_rest(tmp_path, jobs, maker, caplog):
    rows = _rows("silk", "a bomb", "a gremlin", "leaf")
    batch, tally = _make(jobs, tmp_path / "b", rows, maker)
    assert tally == {"done": 2, "failed": 2}
    errors = [job.error for job in jobs.find(batch=batch, states=["failed"])]
    assert errors == [
        "the model exploded",
        "a fault of Orbweave itself, ZeroDivisionError: gremlin",
    ]
    assert "row 4 failed" in caplog.text
    assert not list((tmp_path / "b" / "designs").glob(".*"))


def test_a_batch_run_again_does_nothing_twice(tmp_path, jobs, maker, renderer):
    rows = _rows("silk", "leaf", "a bomb")
    _make(jobs, tmp_path / "b", rows, maker)
    assert _make(jobs, tmp_path / "b", rows, maker)[1] == {"done": 2, "failed": 1}
    assert len(renderer.requests) == 2


def test_more_rows_later_leave_the_first_ones_alone(tmp_path, jobs, maker, renderer):
    _make(jobs, tmp_path / "b", _rows("silk"), maker)
    batch, tally = _make(jobs, tmp_path / "b", _rows("leaf", "silk"), maker)
    assert tally == {"done": 2}
    assert len(renderer.requests) == 2
    assert [job.label for job in jobs.each(batch)] == ["leaf", "silk"]


def test_finished_folders_are_adopted_by_a_store_that_knows_nothing(
    tmp_path, jobs, maker, renderer, monkeypatch
):
    rows = _rows("silk", "leaf")
    batch, _ = _make(jobs, tmp_path / "b", rows, maker)
    before = [(job.key, job.result, job.seconds) for job in jobs.each(batch)]
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "another.db"))
    fresh = open_jobs()
    batch, tally = _make(fresh, tmp_path / "b", rows, maker)
    assert tally == {"done": 2}
    assert [(job.key, job.result, job.seconds) for job in fresh.each(batch)] == before
    assert len(renderer.requests) == 2


def test_a_damaged_store_costs_nothing_but_time(tmp_path, jobs, store, maker, renderer):
    rows = _rows("silk", "leaf")
    batch, _ = _make(jobs, tmp_path / "b", rows, maker)
    before = [(job.key, job.result, job.seconds) for job in jobs.each(batch)]
    jobs.store.close()
    store.write_bytes(b"\0" * 50_000)
    fresh = open_jobs()
    assert fresh.store.moved_aside is not None
    assert [job.state for job in fresh.find()] == ["done", "done"]
    batch, tally = _make(fresh, tmp_path / "b", rows, maker)
    assert tally == {"done": 2}
    assert [job.label for job in fresh.each(batch)] == ["silk", "leaf"]
    assert [(job.key, job.result, job.seconds) for job in fresh.each(batch)] == before
    assert len(renderer.requests) == 2


def test_a_design_that_was_removed_is_made_again(tmp_path, jobs, maker, renderer):
    rows = _rows("silk", "leaf")
    _make(jobs, tmp_path / "b", rows, maker)
    shutil.rmtree(tmp_path / "b" / "designs" / rows[0].folder)
    assert _make(jobs, tmp_path / "b", rows, maker)[1] == {"done": 2}
    assert len(renderer.requests) == 3


def test_a_folder_that_is_no_whole_design_fails_its_row_only(tmp_path, jobs, maker):
    rows = _rows("silk", "leaf", "bone")
    for row, content in zip(rows, ("{half", None), strict=False):
        folder = tmp_path / "b" / "designs" / row.folder
        folder.mkdir(parents=True)
        (folder / ("notes.txt" if content is None else "design.json")).write_text(content or "")
    (tmp_path / "b" / "batch.json").write_text("{}")
    batch, tally = _make(jobs, tmp_path / "b", rows, maker)
    assert tally == {"failed": 2, "done": 1}
    first, second = (job.error for job in jobs.find(batch=batch, states=["failed"]))
    assert "its design.json cannot be read" in first
    assert "exists already" in second


def test_what_a_killed_worker_left_half_made_is_removed(tmp_path, jobs, maker):
    rows = _rows("silk")
    batch = plan_batch(jobs, tmp_path / "b", rows, {})
    half = tmp_path / "b" / "designs" / f".{rows[0].folder}.abcd.partial"
    half.mkdir(parents=True)
    (half / "half.png").write_bytes(b"half")
    Leases(jobs.store).claim("a worker that died", batch=batch)
    assert work_on(jobs, batch, maker) == {"done": 1}
    assert _designs(tmp_path / "b") == [rows[0].folder]


def test_a_full_disk_ends_the_run_and_fails_no_row(tmp_path, jobs, maker, shop, renderer):
    class Full:
        def render(self, *_, **__):
            raise OSError(errno.ENOSPC, "No space left on device")

    rows = _rows("silk", "leaf")
    batch = plan_batch(jobs, tmp_path / "b", rows, {})
    with pytest.raises(OutputError, match="No space left"):
        work_on(jobs, batch, Maker(replace(shop, renderer=Full())))
    assert jobs.tally(batch) == {"queued": 2}
    assert work_on(jobs, batch, maker) == {"done": 2}


def test_engines_are_opened_once_for_all_rows_with_the_same_models(tmp_path, jobs, maker, opened):
    rows = _rows("silk", "leaf", "bone", model=["base", "generalist"])
    assert _make(jobs, tmp_path / "b", rows, maker)[1] == {"done": 6}
    assert [engine.model for engine in opened] == ["base", "generalist"]
    assert [engine.closed for engine in opened] == [True, False]
    maker.close()
    assert opened[1].closed


def test_an_engine_that_failed_is_opened_afresh(tmp_path, jobs, maker, opened):
    _make(jobs, tmp_path / "b", _rows("a bomb", "silk"), maker)
    assert [engine.closed for engine in opened] == [True, False]


def test_pausing_holds_the_rest_back_until_it_is_resumed(tmp_path, jobs, maker):
    rows = _rows("silk", "leaf", "bone")
    batch = plan_batch(jobs, tmp_path / "b", rows, {})

    def pause_first(row, target, **how):
        with suppress(Exception):
            jobs.steer(batch, "pause")
        return maker(row, target, **how)

    assert work_on(jobs, batch, pause_first) == {"done": 1, "paused": 2}
    jobs.steer(batch, "resume")
    assert work_on(jobs, batch, maker) == {"done": 3}


def test_a_cancelled_row_is_stopped_and_leaves_nothing(tmp_path, jobs, maker, monkeypatch):
    monkeypatch.setattr("orbweave.worker.BEATS_PER_LEASE", 600)
    monkeypatch.setattr("ui.design.ASK_S", 0.02)
    rows = _rows("silk", "leaf")
    batch = plan_batch(jobs, tmp_path / "b", rows, {})

    def slow(row, target, *, on_event, cancelled):
        if row.brief.concept == "silk":
            jobs.steer(next(jobs.each(batch)).id, "cancel")
            stopped = threading.Event()
            while not cancelled():
                stopped.wait(0.01)
        return maker(row, target, on_event=on_event, cancelled=cancelled)

    async def forever(*_, **__):
        import asyncio

        await asyncio.sleep(60)

    quick = maker._shop
    maker._shop = replace(quick, converse=_first_then(forever, quick.converse))
    assert work_on(jobs, batch, slow) == {"cancelled": 1, "done": 1}
    assert _designs(tmp_path / "b") == [rows[1].folder]


def _first_then(first, then):
    calls = iter([first])

    async def converse(*args, **named):
        return await next(calls, then)(*args, **named)

    return converse


def test_two_workers_share_a_batch_and_never_a_row(tmp_path, jobs, shop, renderer):
    rows = _rows("silk", "leaf", "bone", seed=["1", "2", "3", "4"])
    batch = plan_batch(jobs, tmp_path / "b", rows, {})
    tallies = []

    def work():
        tallies.append(work_on(open_jobs(), batch, Maker(shop)))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tallies == [{"done": 12}] * 3
    drawn = Counter((request.prompt, request.seeds) for request in renderer.requests)
    assert set(drawn.values()) == {1}


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "home").mkdir()
    check_batch_folder(tmp_path / "home")
    (tmp_path / "home" / "letter.txt").write_text("")
    with pytest.raises(OutputError, match="found something else"):
        check_batch_folder(tmp_path / "home")
    with pytest.raises(OutputError, match="found a file at"):
        check_batch_folder(tmp_path / "home" / "letter.txt")


# ------------------------------------------------------------------------------ the commands


@pytest.fixture
def table(tmp_path, monkeypatch, shop) -> Path:
    """Two concepts, in a folder where commands work with the fakes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ui.design.workshop", lambda note, embed, *_: shop)
    path = tmp_path / "concepts.csv"
    path.write_text("concept,size,images,structure\nsilk,64,1,none\nleaf,64,2,none\n")
    return path


def test_the_command_writes_everything_and_names_it(table, tmp_path, capsys):
    assert run(["batch", str(table), "--seed", "1-2", "--zip"]) == 0
    out, err = capsys.readouterr()
    folder = tmp_path / "batches" / "concepts"
    assert out == f"4 rows: 4 done; batch written to {folder}\n"
    assert "batch 1: 4 rows: 4 queued" in err
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert names == {
        "batch.json",
        "concepts.zip",
        "contact-sheet.png",
        "designs",
        "gallery.html",
        "results.csv",
        "results.parquet",
    }
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["row"], row["seed"]) for row in rows] == [
        ("2", "1"), ("2", "2"), ("3", "1"), ("3", "2"), ("3", "2"), ("3", "3"),
    ]  # fmt: skip
    assert all((folder / row["picture"]).is_file() for row in rows)


def test_the_exit_code_says_that_rows_failed_and_retry_tries_them(table, capsys):
    table.write_text("concept,structure\na bomb,none\nsilk,none\n")
    assert run(["batch", str(table), "--size", "64", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["rows"] == {"done": 1, "failed": 1}
    assert document["failures"] == [{"row": 2, "error": "the model exploded"}]
    assert run(["batch", str(table), "--size", "64"]) == 1
    out, err = capsys.readouterr()
    assert out.endswith("--retry tries failed rows again\n")
    assert "row 2 failed: the model exploded" in err
    assert run(["batch", str(table), "--size", "64", "--retry", "-q"]) == 1


def test_ctrl_c_leaves_the_tables_of_what_is_done(table, tmp_path, shop, monkeypatch, capsys):
    async def second_is_interrupted(brief, **how):
        if brief.concept == "leaf":
            raise KeyboardInterrupt
        return await shop.converse(brief, **how)

    with monkeypatch.context() as patched:
        stuck = replace(shop, converse=second_is_interrupted)
        patched.setattr("ui.design.workshop", lambda note, embed, *_: stuck)
        assert run(["batch", str(table), "--at-once", "1"]) == 130
    assert "writing the tables of what is done" in capsys.readouterr().err
    folder = tmp_path / "batches" / "concepts"
    states = [(row["concept"], row["state"]) for row in _results(folder)]
    assert states == [("silk", "done"), ("leaf", "queued")]
    assert (folder / "gallery.html").is_file()
    assert run(["batch", str(table), "-q"]) == 0
    assert [row["state"] for row in _results(folder)] == ["done"] * 3


def _results(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_plan_shows_the_rows_and_does_nothing(table, tmp_path, store, capsys):
    assert run(["batch", str(table), "--seed", "1-2", "--plan"]) == 0
    out = capsys.readouterr().out
    assert "2 x concept, 2 x seed, 2 x images = 4 rows, at most 6 pictures" in out
    assert "to do: 4 rows, 0 are done" in out
    assert re.search(r"time: unknown by one process, \d+ rows at once; no row like 4 of them", out)
    assert not store.exists()
    assert not (tmp_path / "batches").exists()


def test_a_plan_tells_the_time_from_rows_like_these(table, capsys):
    assert run(["batch", str(table), "-q", "--out", "first"]) == 0
    capsys.readouterr()
    assert run(["batch", str(table), "--plan", "--seed", "5-9", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["to_do"] == 10
    assert 0 < document["seconds"] < 60
    assert run(["batch", str(table), "--plan", "--out", "first"]) == 0
    assert "to do: 0 rows, 2 are done\ntime: 0 s" in capsys.readouterr().out


def test_faults_of_the_table_are_told_in_one_list_before_the_start(table, tmp_path, capsys):
    table.write_text("concept,seed,size\nsilk,-1,9\n,1,64\n")
    assert run(["batch", str(table)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(":")[0] for line in err.splitlines()] == [
        "row 2, column seed",
        "row 2, column size",
        "row 3, column concept",
        "orbweave",
    ]
    assert run(["batch", str(table), "--json"]) == 2
    assert len(json.loads(capsys.readouterr().out)["faults"]) == 3
    assert not (tmp_path / "batches").exists()


def test_jobs_are_listed_shown_and_steered(table, capsys):
    table.write_text("concept\na bomb\nsilk\n")
    run(["batch", str(table), "--size", "64", "--structure", "none", "-q"])
    capsys.readouterr()
    assert run(["jobs", "list"]) == 0
    line, last = capsys.readouterr().out.splitlines()
    assert line.split() == ["1", "batch", "failed", "1/2,", "1", "failed", "concepts"]
    assert last.startswith("1 jobs in ")
    assert run(["jobs", "list", "--batch", "1", "--state", "failed", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["label"], row["error"]) == ("a bomb", "the model exploded")
    assert run(["jobs", "show", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == {"done": 1, "failed": 1}
    assert run(["jobs", "show", str(row["id"])]) == 0
    assert "error       the model exploded" in capsys.readouterr().out
    assert run(["jobs", "watch", "1"]) == 1
    assert run(["jobs", "retry", str(row["id"])]) == 0
    assert run(["jobs", "pause", "1"]) == 0
    assert run(["jobs", "resume", "1"]) == 0
    assert run(["jobs", "move", str(row["id"]), "--first"]) == 0
    assert run(["jobs", "cancel", "1", "-q"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "cancel job 1 (1 rows): it is cancelled"
    assert run(["jobs", "resume", "1"]) == 2
    assert "it is cancelled; that takes one that is paused" in capsys.readouterr().err
    assert run(["jobs", "show", "99"]) == 2
    assert run(["jobs", "list", "--state", "don"]) == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("list --batch 99", "found none of number 99"),
        ("list --batch 1", "wanted a batch, job 1 is a train"),
        (f"show {10**20}", "Invalid value for 'JOB'"),
        (f"move 1 --priority {10**20}", "Invalid value for '--priority'"),
        ("rebuild nowhere", "wanted a folder with designs, found none at nowhere"),
    ],
)
def test_jobs_that_cannot_be_meant_are_told(jobs, capsys, words, told):
    jobs.add(NewJob("train", "a run"))
    assert run(["jobs", *words.split()]) == 2
    assert told in capsys.readouterr().err


def test_a_job_whose_worker_died_is_not_shown_as_running(jobs, capsys):
    job = jobs.add(NewJob("train", "a run"))
    Leases(jobs.store).claim("a worker that died")
    assert run(["jobs", "list"]) == 0
    assert "queued" in capsys.readouterr().out
    Leases(jobs.store).claim("another")
    assert run(["jobs", "cancel", str(job.id)]) == 0
    assert jobs.get(job.id).state == "cancelled"


def test_designs_on_the_disk_can_be_put_into_the_store(table, monkeypatch, tmp_path, capsys):
    run(["batch", str(table), "-q"])
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "another.db"))
    capsys.readouterr()
    assert run(["jobs", "rebuild", "batches"]) == 0
    assert capsys.readouterr().out.startswith("2 designs are in ")
    assert [job.label for job in open_jobs().find()] == ["leaf", "silk"]
