"""Every command that makes something leaves a record in the store of jobs."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

import pytest

from agents.conversation import Conversation
from agents.fake import FakeEngine
from agents.roles import load_team
from imagegen.measure import measure
from orbweave.errors import EngineError
from orbweave.job import Job
from orbweave.jobs import open_jobs
from orbweave.records import Critique, ImagePrompt, Targets
from orbweave.store import STORE_VARIABLE
from ui.cli import run
from ui.design import Workshop


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    file = tmp_path / "store" / "orbweave.db"
    monkeypatch.setenv(STORE_VARIABLE, str(file))
    monkeypatch.chdir(tmp_path)
    return file


@pytest.fixture
def shop(monkeypatch, renderer) -> Workshop:
    async def converse(brief, *, render, **_):
        if "bomb" in brief.concept:
            raise EngineError("the model exploded")
        prompt = ImagePrompt(title="t", prompt=brief.concept)
        pictures, measurements = await render(prompt, 0)
        critique = Critique(
            scores={"depth": 3.0}, advice="", wanted=Targets(), measured={}, prompt_version=0,
            turn=0,
        )  # fmt: skip
        return Conversation((), (), (prompt,), pictures, measurements, (critique,), "done")

    made = Workshop(converse, FakeEngine, lambda: None, load_team(), renderer, measure)
    monkeypatch.setattr("ui.design.workshop", lambda note, embed, *_: made)
    monkeypatch.setattr("imagegen.pipeline.Renderer", lambda **_: renderer)
    return made


def _only() -> Job:
    (job,) = open_jobs().find()
    return job


def _design(*arguments: str) -> int:
    return run(["design", *arguments, "--structure", "none", "--size", "64", "-q"])


def test_a_design_is_listed_with_its_folder(shop, tmp_path, capsys):
    assert _design("silk", "--out", "d") == 0
    job = _only()
    assert (job.kind, job.state, job.label) == ("design", "done", "silk")
    assert job.key == str(tmp_path / "d")
    capsys.readouterr()
    assert run(["jobs", "list"]) == 0
    assert "design     done" in capsys.readouterr().out


def test_a_design_that_fails_is_listed_with_its_error(shop):
    assert _design("a bomb", "--out", "d") == 1
    assert (_only().state, _only().error) == ("failed", "the model exploded")


def test_a_dry_run_is_no_job(shop, store):
    assert _design("silk", "--out", "d", "--dry-run") == 0
    assert not store.exists()


def test_a_locked_store_does_not_stop_a_design(shop, store, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("orbweave.logbook.WAIT_S", 0.1)
    open_jobs().store.close()
    with closing(sqlite3.connect(store, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert _design("silk", "--out", "d") == 0
        other.execute("ROLLBACK")
    assert (tmp_path / "d" / "design.json").is_file()


def test_pictures_of_a_prompt_are_listed(shop, tmp_path):
    assert run(["render", "a web", "--out", "r", "--size", "64", "--structure", "none", "-q"]) == 0
    assert (_only().kind, _only().state, _only().key) == ("render", "done", str(tmp_path / "r"))


def test_a_merge_is_listed(tiny_model, tmp_path):
    twin = tmp_path / "twin"
    shutil.copytree(tiny_model, twin)
    assert run(["merge", f"slerp({tiny_model}, {twin}, t=0.5)", "m", "-q"]) == 0
    assert (_only().kind, _only().state, _only().key) == ("merge", "done", str(tmp_path / "m"))


def test_the_store_is_filled_again_from_the_folders_it_noted(shop, store, tmp_path, capsys):
    assert run(["jobs", "rebuild"]) == 2
    assert "wanted folders with designs, none is noted beside" in capsys.readouterr().err
    assert _design("silk", "--out", "d") == 0
    store.unlink()
    for part in store.parent.glob("orbweave.db-*"):
        part.unlink()
    assert run(["jobs", "rebuild"]) == 0
    assert (_only().label, _only().state, _only().key) == ("silk", "done", str(tmp_path / "d"))


def test_a_damaged_store_is_named_and_filled_again_by_the_next_command(shop, store, capsys):
    assert _design("silk", "--out", "d") == 0
    store.write_bytes(b"\0" * 50_000)
    for part in store.parent.glob("orbweave.db-*"):
        part.unlink()
    capsys.readouterr()
    assert run(["jobs", "list"]) == 0
    out = capsys.readouterr().out
    assert "design     done" in out
    assert list(store.parent.glob("orbweave.db.damaged-*"))
