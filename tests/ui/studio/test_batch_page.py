"""The batch page: tables that are refused, and one that is run in a process of its own."""

from __future__ import annotations

import csv
import io
import sys
import zipfile
from pathlib import Path

import pytest

from orbweave.errors import UsageError
from orbweave.store import STORE_VARIABLE
from ui.studio import batches as module
from ui.studio.batch_order import MAX_ROWS, options_of, read_plan
from ui.studio.batch_room import BatchRoom
from ui.studio.batches import MAX_TABLE_BYTES, Batch, Batches
from ui.studio.rooms import Ask

from .conftest import EVIL, wait_until

ROOT = Path(__file__).parents[3]
CODE = f"""
import importlib, sys
sys.path.insert(0, {str(ROOT)!r})
from tests.ui.studio.conftest import Painter, Parts
from ui.cli import run
importlib.import_module("ui.commands.batch").maker = lambda: Parts(painter=Painter(0.1)).open(print)
run(["batch", *sys.argv[1:]])
"""
"""The real command around a team that answers from a table and draws checkerboards."""
TABLE = """concept,name,steps,structure
a web that drinks dew,dew,2,none
a leaf that folds in the rain,leaf,2,none
a plate of bricks and glue,plate,2,none
"""


@pytest.fixture
def batches(tmp_path, monkeypatch) -> Batches:
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "orbweave.db"))
    monkeypatch.setattr(module, "COMMAND", (sys.executable, "-c", CODE))
    return Batches(tmp_path / "data")


def added(batches: Batches, text: str = TABLE, name: str = "ideas.csv", **fields: str) -> Batch:
    return batches.add("ann", name, text.encode(), fields)


def test_a_table_and_the_values_of_the_form_become_a_plan(batches):
    plan = batches.plan(added(batches, seed="0-2", images="1", model="each role's own"))
    assert plan.faults == []
    assert [(row.name, row.brief.seed) for row in plan.rows[:4]] == [
        ("dew", 0), ("dew", 1), ("dew", 2), ("leaf", 0),
    ]  # fmt: skip
    assert plan.n_pictures == 9
    assert {row.render.steps for row in plan.rows} == {2}  # the cell, not the form's default
    lines = batches.plan(added(batches, "one idea\nanother idea\n", "ideas.txt"))
    assert [row.brief.concept for row in lines.rows] == ["one idea", "another idea"]


def test_all_faults_are_told_by_row_and_column(batches):
    batch = added(
        batches,
        "concept,model,team,structure,images,steps,size\n"
        "a web,/etc,default,none,1,4,64\n"
        "a leaf,http://10.0.0.1/v1#x,/etc/passwd,/etc/passwd,1,4,64\n"
        "a bone,base,default,none,9,101,2048\n"
        ",base,default,none,1,four,64\n",
    )
    plan = batches.plan(batch)
    assert plan.rows == []
    assert [(fault.row, fault.column) for fault in plan.faults] == [
        (2, "model"), (3, "model"), (3, "team"), (3, "structure"),
        (4, "images"), (4, "steps"), (4, "size"), (5, "concept"), (5, "steps"),
    ]  # fmt: skip
    with pytest.raises(UsageError, match="wanted a table without faults, the first: row 2"):
        batches.run(batch)


def test_no_file_of_the_server_is_opened_for_a_cell(batches, tmp_path):
    """A team file that would be read is reported by what is in it; one that is not, by name."""
    secret = tmp_path / "secret.yaml"
    secret.write_text("password: hunter2")
    plan = batches.plan(added(batches, f"concept,team\na web,{secret}\n"))
    assert "hunter2" not in str(plan.faults)
    assert [fault.message for fault in plan.faults] == [
        "wanted one of default, architecture, component, experts, microstructure, single, urban"
    ]


def test_a_page_makes_no_more_designs_than_it_shows(tmp_path):
    table = tmp_path / "t.txt"
    table.write_text("a web\na leaf\n")
    plan = read_plan(table, options_of({"seed": f"0-{MAX_ROWS}"}))
    assert "wanted at most 2,000 designs on this page, got 4,002" in str(plan.faults[0])


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("ideas.xlsx", b"PK", "wanted a table as .csv"),
        ("ideas", b"a web", "wanted a table as .csv"),
        ("ideas.csv", b"x" * (MAX_TABLE_BYTES + 1), "wanted a table of at most 5 MB"),
    ],
)
def test_a_wrong_or_huge_upload_is_refused(batches, tmp_path, name, content, wanted):
    with pytest.raises(UsageError, match=wanted):
        batches.add("ann", name, content, {})
    assert not (tmp_path / "data").exists()


def test_what_cannot_be_read_is_told_by_its_own_name_and_not_kept(batches, tmp_path):
    with pytest.raises(UsageError, match="begins as UTF-16") as refused:
        batches.add("ann", "from a sheet.csv", b"\xff\xfe\x00", {})
    assert "'from a sheet.csv'" in str(refused.value)
    assert str(tmp_path) not in str(refused.value)
    assert batches.all("ann") == [] and not [*(tmp_path / "data").rglob("table.csv")]


def test_faults_speak_of_the_fields_of_the_page(batches):
    with pytest.raises(UsageError, match="wanted seed as 7"):
        added(batches, seed="any")
    (fault,) = batches.plan(added(batches, "concept,size\na web,big\n")).faults
    assert fault.message == "wanted size as 256 or 512x384, got 'big'"


def test_a_file_is_kept_where_it_belongs_whatever_it_is_called(batches, tmp_path):
    batch = added(batches, name="../../../up/…<script>.csv")
    assert batch.table.is_relative_to(tmp_path / "data" / "ann" / "batches")
    assert batch.out.parent == batch.folder
    shown = BatchRoom(batches).look("ann", Ask(at=batch.id))
    assert "<script>" not in "".join(part.html for part in shown.parts)


def test_others_have_no_such_batch_and_a_plan_can_be_discarded(batches):
    batch = added(batches)
    room = BatchRoom(batches)
    for name in (batch.id, "../ann", "", "20261122-000000-00000000"):
        with pytest.raises(UsageError, match="found none of that name"):
            batches.find("eve", name)
    with pytest.raises(UsageError, match="found none of that name"):
        room.act("eve", Ask(at=batch.id, do="run"))
    assert room.act("ann", Ask(at=batch.id, do="discard")) == ""
    assert batches.all("ann") == []
    with pytest.raises(UsageError, match="found none of that name"):
        room.look("ann", Ask(at=batch.id))


def test_a_batch_works_in_a_process_of_its_own_and_outlives_the_studio(batches, tmp_path):
    batch = added(batches, TABLE.replace("a web", f"a web {EVIL}"))
    room = BatchRoom(batches)
    assert room.act("ann", Ask(at=batch.id, do="run")) == batch.id
    other = added(batches)
    with pytest.raises(UsageError, match="another one is at work"):
        batches.run(other)
    with pytest.raises(UsageError, match="it is at work already"):
        batches.run(batch)

    later = Batches(tmp_path / "data")  # the studio was restarted
    batch = later.find("ann", batch.id)
    assert later.standing(batch).is_running
    later.steer(batch, "pause")
    wait_until(lambda: not later.standing(batch).is_running, "what was under way ended", 60.0)
    assert later.standing(batch).state == "paused"
    later.steer(batch, "resume")
    wait_until(lambda: later.standing(batch).state == "done", "the batch is done", 60.0)
    wait_until(lambda: not later.standing(batch).is_running, "the process ended", 60.0)
    assert later.standing(batch).tally == {"done": 3}

    packed = later.file(batch, "batch.zip")
    names = zipfile.ZipFile(packed).namelist()
    assert "ideas/results.csv" in names
    assert sum(name.endswith("design.json") for name in names) == 3
    rows = list(csv.DictReader(io.StringIO(later.file(batch, "results.csv").read_text())))
    assert [row["state"] for row in rows] == ["done"] * 6
    assert later.file(batch, f"{rows[0]['picture']}").is_file()
    assert later.file(batch, "contact-sheet.png").is_file()
    for path in ("batch.json", "designs/../../asked.json", "designs/../images/x.png", "../x.csv"):
        assert later.file(batch, path) is None
    html = "".join(p.html for p in BatchRoom(later).look("ann", Ask(at=batch.id)).parts)
    assert html.count("<figure") == 6
    assert "<script>alert" not in html
    found = BatchRoom(later).look("ann", Ask(at=batch.id, fields={"words": "FOLDS rain"})).parts
    assert "".join(p.html for p in found).count("<figure") == 2


def test_what_a_dead_process_left_can_go_on(batches, monkeypatch):
    monkeypatch.setattr(module, "COMMAND", (sys.executable, "-c", "raise SystemExit('no memory')"))
    batch = added(batches)
    batches.run(batch)
    batch = batches.find("ann", batch.id)
    wait_until(lambda: batches.standing(batch).state == "interrupted", "it died", 30.0)
    assert batches.standing(batch).last_words == "no memory"
    html = "".join(p.html for p in BatchRoom(batches).look("ann", Ask(at=batch.id)).parts)
    assert "Interrupted: no memory" in html
    assert 'data-do="run"' in html
    batches.steer(batch, "cancel")
    assert batches.standing(batch).tally == {"cancelled": 3}
