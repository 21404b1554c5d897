from __future__ import annotations

import logging
import multiprocessing
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import orbweave.store as store_module
from orbweave import migrations
from orbweave.job import NewJob
from orbweave.jobs import open_jobs
from orbweave.store import STORE_VARIABLE, StoreError, open_store, store_address, store_exists
from orbweave.tables import VERSION_TABLE, jobs, metadata


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "orbweave.db"


def _write(file: Path, *statements: str) -> None:
    file.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(file)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def test_the_environment_moves_the_store(monkeypatch, tmp_path):
    monkeypatch.delenv(STORE_VARIABLE, raising=False)
    assert store_address().endswith("orbweave.db")
    monkeypatch.setenv(STORE_VARIABLE, f" {tmp_path / 'x.db'} ")
    assert store_address() == str(tmp_path / "x.db")
    assert not store_exists()
    open_store().close()
    assert store_exists()


def test_a_fresh_store_writes_ahead_and_knows_its_version(file):
    store = open_store(str(file))
    with store.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.scalar(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")) == "0002"
    assert store.place == str(file)


def test_the_migrations_end_in_the_tables_the_code_uses(file):
    with open_store(str(file)).read() as connection:
        options = {"version_table": VERSION_TABLE}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_the_head_is_the_last_migration():
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_heads() == [migrations.HEAD]


def test_a_store_of_version_1_is_upgraded_and_keeps_its_jobs(file):
    kept = open_jobs(str(file)).add(NewJob("train", "a run"))
    _write(file, "DROP TABLE orbweave_events", f"UPDATE {VERSION_TABLE} SET version_num = '0001'")
    known = open_jobs(str(file))
    assert known.get(kept.id) == kept
    known.tell(kept.id, 1, 2, None)
    assert known.latest(kept.id).total == 2


def test_a_newer_store_is_refused_and_left_alone(file):
    open_store(str(file)).close()
    _write(file, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(StoreError, match="'9999': a newer Orbweave wrote it; upgrade"):
        open_store(str(file))
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone() == (
            "9999",
        )


def test_a_database_of_something_else_is_refused(file):
    _write(file, "CREATE TABLE bookmarks (url TEXT)")
    with pytest.raises(StoreError, match="found a database of something else"):
        open_store(str(file))


@pytest.mark.parametrize("part", ["head", "middle"])
def test_a_damaged_store_is_moved_aside_and_filled_from_the_folders(file, tmp_path, caplog, part):
    known = open_jobs(str(file))
    with known.store.write() as connection:
        rows = [known._row(NewJob("train", f"run {n}" * 50), None, n) for n in range(500)]
        connection.execute(sa.insert(jobs), rows)
    known.store.remember_folder(tmp_path / "designs")
    known.store.close()
    for name in "ab":
        folder = tmp_path / "designs" / name
        folder.mkdir(parents=True)
        (folder / "design.json").write_text(f'{{"brief": {{"concept": "silk {name}"}}}}')
    (tmp_path / "designs" / "a" / "images").mkdir()
    (tmp_path / "designs" / "design.json").write_text("[no design")
    content = bytearray(file.read_bytes())
    begin = 0 if part == "head" else len(content) // 2
    content[begin : begin + 20_000] = b"\xa5" * 20_000
    file.write_bytes(content)

    with caplog.at_level(logging.WARNING):
        known = open_jobs(str(file))
    assert "was damaged" in caplog.text
    aside = known.store.moved_aside
    assert aside is not None and aside.read_bytes() == content
    assert [(job.label, job.state, job.key) for job in known.find()] == [
        (f"silk {name}", "done", str(tmp_path / "designs" / name)) for name in "ab"
    ]
    assert open_store(str(file)).moved_aside is None


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE orbweave_jobs SET state = 'quoued' WHERE id = 7",
        "UPDATE orbweave_jobs SET parameters = '{\"steps\": 3' WHERE id = 7",
        "UPDATE orbweave_jobs SET result = 'no JSON' WHERE id = 7",
        "UPDATE orbweave_jobs SET label = CAST(X'73FF6C' AS TEXT) WHERE id = 7",
    ],
)
def test_text_that_was_overwritten_is_damage_though_its_pages_are_in_order(file, change):
    known = open_jobs(str(file))
    for n in range(9):
        known.add(NewJob("train", f"run {n}"))
    known.store.close()
    sound = open_store(str(file), check=True)
    assert sound.moved_aside is None
    sound.close()  # or what is written below would lie in the log
    _write(file, change)
    assert open_store(str(file)).moved_aside is not None


@pytest.fixture
def read_whole(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read whole for damage."""
    files: list[Path] = []
    check = store_module._fault_of

    def counted(file: Path, wait_s: float) -> str | None:
        files.append(file)
        return check(file, wait_s)

    monkeypatch.setattr(store_module, "_fault_of", counted)
    return files


def test_a_store_that_is_as_we_left_it_is_not_read_whole_again(file, read_whole):
    known = open_jobs(str(file))
    for n in range(3):
        known.add(NewJob("train", f"run {n}"))
        known.store.close()
        known = open_jobs(str(file))
    assert len(known.find()) == 3
    assert read_whole == []
    assert open_store(str(file), check=True).moved_aside is None
    assert read_whole == [file]


@pytest.mark.parametrize("how", ["written by another", "put in its place", "not closed"])
def test_a_store_that_is_not_as_we_left_it_is_read_whole(file, read_whole, how):
    known = open_jobs(str(file))
    known.add(NewJob("train", "a run"))
    if how == "not closed":
        known.store._engine.dispose()  # as a process does that ends otherwise
    else:
        known.store.close()
    if how == "written by another":
        _write(file, "UPDATE orbweave_jobs SET label = 'another run'")
    elif how == "put in its place":
        before = file.stat()
        file.write_bytes(file.read_bytes())
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert open_store(str(file)).moved_aside is None
    assert read_whole == [file]
    open_store(str(file)).close()
    assert read_whole == [file]


@pytest.mark.parametrize("change", ["parameters = '{\"steps\": 3'", "label = CAST(X'FF' AS TEXT)"])
def test_damage_without_a_trace_is_noticed_where_it_is_read(file, change):
    known = open_jobs(str(file))
    known.add(NewJob("train", "a run"))
    known.store.close()
    _write(file, f"UPDATE orbweave_jobs SET {change}")
    store_module._seal(file)  # as if the system had not noticed
    known = open_jobs(str(file))
    assert known.store.moved_aside is None
    with pytest.raises(StoreError, match="it is damaged .*; run the command again"):
        known.find()
    known.store.close()
    assert open_store(str(file)).moved_aside is not None


def test_numbers_that_are_none_are_no_damage(file):
    known = open_jobs(str(file))
    known.add(NewJob("evaluate", "a run", {"loss": float("nan")}))
    known.store.close()
    assert open_store(str(file), check=True).moved_aside is None


def test_an_emptied_store_is_filled_from_the_folders(file, tmp_path):
    store = open_store(str(file))
    store.remember_folder(tmp_path / "a")
    store.remember_folder(tmp_path / "b")
    store.close()
    file.write_bytes(b"")
    store = open_store(str(file))
    assert store.moved_aside is not None
    assert store.folders() == [tmp_path / "a", tmp_path / "b"]


def test_a_file_that_may_not_be_ours_is_never_moved(tmp_path):
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("many words " * 500)
    with pytest.raises(StoreError, match="found no sound database"):
        open_store(str(thesis))
    assert thesis.read_text().startswith("many words")


def test_a_locked_store_is_waited_for_and_then_told(file):
    open_store(str(file)).close()
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another process has held it for 0 s; wait"):
            open_jobs(str(file), wait_s=0.1)
        other.execute("ROLLBACK")
        known = open_jobs(str(file), wait_s=0.1)
        other.execute("BEGIN IMMEDIATE")
        assert known.find() == []  # reading needs no turn
        with pytest.raises(StoreError, match="has held it"):
            known.add(NewJob("merge", "a merge"))
        other.execute("COMMIT")
    assert known.add(NewJob("merge", "a merge")).state == "queued"


def test_a_change_is_kept_whole_or_not_at_all(file):
    known = open_jobs(str(file))

    class Accident(Exception):
        pass

    with pytest.raises(Accident), known.store.write() as connection:
        connection.execute(sa.insert(jobs), known._row(NewJob("merge", "lost"), None, 1.0))
        raise Accident
    assert known.find() == []


def test_an_unwritable_place_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="wanted to open the store"):
        open_store(str(tmp_path / "file" / "orbweave.db"))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("mysql://host/name", "SQLite file or a PostgreSQL address, got 'mysql'"),
        ("sqlite://", "a SQLite address without a file"),
        ("://", "no file and no address"),
    ],
)
def test_an_unusable_address_is_told(address, message):
    with pytest.raises(StoreError, match=message):
        open_store(address)


def test_an_unreachable_server_is_told_without_the_password(monkeypatch):
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError, match="the database said") as told:
        open_store("postgresql://somebody:secret@127.0.0.1:1/orbweave")
    assert "secret" not in str(told.value)


def _open_and_add(address: str, n: int) -> None:
    open_jobs(address).add(NewJob("merge", f"merge {n}"))


def test_processes_that_begin_together_make_one_store(file):
    context = multiprocessing.get_context("spawn")
    started = [context.Process(target=_open_and_add, args=(str(file), n)) for n in range(4)]
    for process in started:
        process.start()
    for process in started:
        process.join(30)
    assert [process.exitcode for process in started] == [0] * 4
    assert len(open_jobs(str(file)).find()) == 4
