from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from orbweave.errors import OutputError
from orbweave.jobs import Jobs, open_jobs
from orbweave.leases import Leases
from orbweave.records import Design
from ui.batch import plan_batch
from ui.batch_report import write_report
from ui.contact_sheet import PER_PAGE, Frame, contact_sheet
from ui.duration import duration
from ui.matrix import expand
from ui.results import COLUMNS, result_of, write_csv, write_parquet
from ui.table import Row

HOSTILE = "a web </script><script>document.title='owned'</script> of silk"


@pytest.fixture
def jobs(tmp_path) -> Jobs:
    return open_jobs(str(tmp_path / "orbweave.db"))


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "my batch"


@pytest.fixture
def batch(jobs, out, finished) -> int:
    """Three rows: two designs with two pictures each, one failure."""
    design, folder = finished
    table = [Row(2, {"concept": HOSTILE, "name": "=1+1"}), Row(3, {"concept": 'leaf, "vein"'})]
    rows, _ = expand([*table, Row(4, {"concept": "bomb"})], {"model": ["base"]}, "product")
    number = plan_batch(jobs, out, rows, {})
    leases = Leases(jobs.store)
    while job := leases.claim("w", batch=number):
        if job.label == "bomb":
            leases.fail(job.id, "w", "it exploded", 0.5)
            continue
        shutil.copytree(folder, job.key)
        kept = design.model_copy(update={"brief": rows[0].brief})
        leases.finish(job.id, "w", result_of(kept), 12.5)
    return number


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_has_a_row_for_every_picture_and_every_failure(jobs, batch, out):
    write_report(jobs, batch, out)
    rows = _rows(out / "results.csv")
    assert list(rows[0]) == list(COLUMNS)
    assert [(row["row"], row["seed"], row["state"]) for row in rows] == [
        ("2", "7", "done"),
        ("2", "8", "done"),
        ("3", "7", "done"),
        ("3", "8", "done"),
        ("4", "0", "failed"),
    ]
    first, last = rows[0], rows[-1]
    assert (first["concept"], first["name"], first["model"]) == (HOSTILE, "=1+1", "base")
    assert first["prompt"] == "golden orb web with Radial threads on black"
    assert (first["score_depth"], first["score_mean"]) == ("3.2", "3.6")
    assert (first["solid_fraction"], first["spacing_px"]) == ("0.5", "16.0")
    assert (first["wanted_solid_fraction"], first["direction_deg"]) == ("0.4", "")
    assert first["seconds"] == "12.5"
    assert (out / first["picture"]).is_file()
    assert (last["error"], last["picture"], last["design"]) == ("it exploded", "", "")


def test_parquet_and_csv_say_the_same(jobs, batch, out):
    write_report(jobs, batch, out)
    typed = pq.read_table(out / "results.parquet").to_pylist()
    assert list(typed[0]) == list(COLUMNS)
    told = [{k: "" if v is None else str(v) for k, v in row.items()} for row in typed]
    assert told == _rows(out / "results.csv")
    assert isinstance(typed[0]["seed"], int) and isinstance(typed[0]["solid_fraction"], float)


def test_an_empty_table_still_has_its_columns(tmp_path):
    write_csv([], tmp_path / "t.csv")
    write_parquet([], tmp_path / "t.parquet")
    assert (tmp_path / "t.csv").read_text() == ",".join(COLUMNS) + "\n"
    assert pq.read_table(tmp_path / "t.parquet").column_names == list(COLUMNS)


def test_the_last_version_and_the_result_are_marked_as_such(finished):
    design: Design = finished[0]
    second = design.pictures[1].model_copy(update={"prompt_version": 1})
    prompts = (*design.prompts, design.prompts[0].model_copy(update={"prompt": "again"}))
    revised = design.model_copy(
        update={"prompts": prompts, "pictures": (design.pictures[0], second)}
    )
    first, last = result_of(revised)["pictures"]
    assert (first["version"], first["is_last"], last["is_last"]) == (0, False, True)
    assert (last["prompt"], last["score_mean"]) == ("again", None)
    assert (first["is_result"], last["is_result"]) == (False, True)
    best_first = result_of(revised.model_copy(update={"best_version": 0}))["pictures"]
    assert [picture["is_result"] for picture in best_first] == [True, False]


def test_a_report_is_written_anew_and_old_pages_go(jobs, batch, out):
    out.mkdir(exist_ok=True)
    (out / "contact-sheet-2.png").write_bytes(b"old")
    (out / ".report.partial").mkdir()
    (out / ".report.partial" / "half.csv").write_text("half")
    names = {path.name for path in write_report(jobs, batch, out)}
    assert names == {"contact-sheet.png", "gallery.html", "results.csv", "results.parquet"}
    assert not (out / "contact-sheet-2.png").exists()
    assert not (out / ".report.partial").exists()


def test_a_full_disk_is_told_and_leaves_the_report_as_it_was(jobs, batch, out, monkeypatch):
    write_report(jobs, batch, out)
    before = (out / "results.csv").stat().st_mtime_ns

    def on_a_full_disk(rows, path):
        write_parquet(rows, Path("/dev/full"))

    monkeypatch.setattr("ui.batch_report.write_parquet", on_a_full_disk)
    with pytest.raises(OutputError, match="sheets and gallery into .*No space left.*run the comm"):
        write_report(jobs, batch, out)
    assert (out / "results.csv").stat().st_mtime_ns == before


def test_a_sheet_of_a_batch_that_was_stopped_has_no_blanks_for_what_is_to_come(jobs, out):
    rows, _ = expand([Row(n, {"concept": f"web {n}"}) for n in range(PER_PAGE + 3)], {}, "product")
    number = plan_batch(jobs, out, rows, {})
    assert not list(out.glob("contact-sheet*.png"))
    leases = Leases(jobs.store)
    for _ in range(2):
        leases.fail(leases.claim("w", batch=number).id, "w", "it exploded", 0.5)
    write_report(jobs, number, out)
    (sheet,) = out.glob("contact-sheet*.png")
    with Image.open(sheet) as page:
        assert page.size == contact_sheet([Frame(None, ("",))] * 2, "").size
    assert len(_rows(out / "results.csv")) == PER_PAGE + 3


def test_the_zip_holds_the_whole_batch_below_its_name(jobs, batch, out):
    for _ in range(2):  # the second must not hold the first
        written = write_report(jobs, batch, out, zipped=True)
    assert written[-1] == out / "my batch.zip"
    with zipfile.ZipFile(written[-1]) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
    assert "my batch/gallery.html" in names
    assert sum(name.endswith(".png") for name in names) == 1 + 2 * 3
    assert not any(".zip" in name or "/." in name for name in names)


def test_a_contact_sheet_holds_every_frame_and_says_what_is_missing(finished, tmp_path):
    picture = finished[1] / "images" / "v0-seed-7.png"
    frames = [
        Frame(picture, ("קורי עכביש " * 20, "seed 7", "row 2")),
        Frame(None, ("bomb",), note="it exploded " * 50),
        Frame(tmp_path / "gone.png", ("gone",)),
    ]
    page = contact_sheet(frames, "a batch")
    assert page.size == (16 + 3 * 240, 54 + 224 + 3 * 17 + 16)
    pixels = np.asarray(page.convert("L"))
    assert set(np.unique(pixels[60:270, 20:236])) > {0, 255}  # the checkerboard is there
    assert pixels[100:270, 262:470].min() < 80  # words in the blank
    assert pixels[300, 262:].max() > 240  # and none runs into the next column
    assert contact_sheet([frames[1]] * PER_PAGE, "full").size[1] == 54 + 10 * (224 + 3 * 17 + 16)


def _data(html: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', html, re.S)[1])


def test_the_gallery_holds_the_table_and_cannot_be_broken_out_of(jobs, batch, out):
    write_report(jobs, batch, out)
    html = (out / "gallery.html").read_text()
    data = _data(html)
    assert data["varying"] == ["concept", "seed"]
    rows = [dict(zip(data["names"], row, strict=True)) for row in data["rows"]]
    assert [row["concept"] for row in rows][:3:2] == [HOSTILE, 'leaf, "vein"']
    assert html.count("<script") == 2
    assert "http:" not in html and "https:" not in html and "//" not in html.replace("// What", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("", ["=1+1", "=1+1", 'leaf, "vein"', 'leaf, "vein"', "bomb"]),
        ("#words=vein", ['leaf, "vein"'] * 2),
        ("#seed=8&sort=-score_mean", ["=1+1", 'leaf, "vein"']),
        ("#score=3.7", []),
        ("#state=%22failed%22", ["bomb"]),
    ],
)
def test_the_gallery_filters_in_a_browser_without_a_network(jobs, batch, out, address, shown):
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed")
    write_report(jobs, batch, out)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    page = f"{(out / 'gallery.html').as_uri()}{address}"
    command = [browser, *options, "--virtual-time-budget=2000", "--dump-dom", page]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=110).stdout
    cards = re.findall(r'class="what" dir="auto" title="[^"]*">([^<]*)<', dom)
    assert [card.replace("&quot;", '"') for card in cards] == shown
    assert "<title>my batch · Orbweave batch</title>" in dom
    pictures = re.findall(r'<img loading="lazy" src="([^"]*)"', dom)
    assert len(pictures) == len([card for card in shown if card != "bomb"])


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "unknown"),
        (0.4, "0 s"),
        (89, "89 s"),
        (91, "2 min"),
        (3 * 3600 + 20 * 60, "3 h 20 min"),
        (52 * 3600, "2 d 4 h"),
    ],
)
def test_durations_are_said_as_people_do(seconds, words):
    assert duration(seconds) == words
