"""A batch whose database is damaged, or held by another process, ends as one left alone."""

from __future__ import annotations

import gc
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import ui.design
from orbweave.jobs import open_jobs
from orbweave.store import STORE_VARIABLE
from tests.ui import noise
from tests.ui.noise import drawn_in, put_in_noise, table_of
from ui.cli import run
from ui.maker import Studio

COMMAND = [*noise.COMMAND, "--at-once", "1"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a table of three concepts for the real command, and its store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "orbweave.db"))
    monkeypatch.setattr(ui.design, "workshop", None)  # so that it is put back at the end
    put_in_noise()
    lines = "".join(f"web number {n},64,1,none\n" for n in range(3))
    (tmp_path / "concepts.csv").write_text(f"concept,size,images,structure\n{lines}")
    return tmp_path


def _damages(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield what may become of a database's bytes."""
    for length in (0, 50, 4096, len(content) // 2, len(content) - 4096):
        yield f"cut to {length} bytes", content[:length]
    chance = random.Random(3)
    for _ in range(7):
        place = chance.randrange(len(content) - 2_000)
        spoilt = content[:place] + chance.randbytes(2_000) + content[place + 2_000 :]
        yield f"noise from byte {place}", spoilt


def test_a_batch_whose_database_was_damaged_ends_with_the_same_table(folder, caplog):
    assert run(COMMAND) == 0
    table, designs = table_of(folder / "out"), sorted((folder / "out" / "designs").iterdir())
    assert len(table) == len(designs) == 6
    store, n_moved = folder / "orbweave.db", 0
    for turn, (damage, content) in enumerate(_damages(_at_rest(store))):
        shutil.rmtree(designs[turn % 6])  # so that something is left to do
        drawn = drawn_in(folder)
        store.write_bytes(content)
        caplog.clear()
        assert run(COMMAND) == 0, damage
        n_moved += "was damaged" in caplog.text
        assert table_of(folder / "out") == table, damage
        assert (drawn_in(folder) - drawn).total() == 1, damage
        _at_rest(store)
    assert n_moved >= 7  # noise may also fall where nothing is written


def _at_rest(store: Path) -> bytes:
    """Return a database's bytes once its log is folded in and nobody has it open."""
    gc.collect()
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return store.read_bytes()


HOLDING = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


class Holder:
    """Another process that takes the store when the first picture is drawn."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._process: subprocess.Popen[str] | None = None
        self.seconds = 60.0

    def begin(self) -> None:
        if self._process is None:
            command = [sys.executable, "-c", HOLDING, str(self._store), str(self.seconds)]
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert self._process.stdout is not None
            assert self._process.stdout.readline() == "held\n"

    def end(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture
def holder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Holder]:
    other, render = Holder(folder / "orbweave.db"), Studio.render

    def held(studio: Studio, *args: Any, **named: Any) -> Any:
        other.begin()
        return render(studio, *args, **named)

    monkeypatch.setattr(Studio, "render", held)
    yield other
    other.end()


def test_a_store_held_for_a_moment_is_waited_for(folder, holder):
    holder.seconds = 1.5
    assert run(COMMAND) == 0
    assert len(table_of(folder / "out")) == 6
    assert set(drawn_in(folder).values()) == {1}


def test_a_store_held_for_long_ends_the_run_and_costs_no_design(
    folder, holder, monkeypatch, capsys
):
    with monkeypatch.context() as patience:
        patience.setattr("orbweave.jobs.open_jobs", partial(open_jobs, wait_s=0.3))
        assert run(COMMAND) == 1
    assert "orbweave.db, another process has held it for 0 s" in capsys.readouterr().err
    assert len(list((folder / "out" / "designs").iterdir())) == 1
    holder.end()
    assert run(COMMAND) == 0
    assert len(table_of(folder / "out")) == 6
    assert set(drawn_in(folder).values()) == {1}  # the first was made while the store was held
