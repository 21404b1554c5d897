"""What lies at the top of a batch's folder: tables, contact sheets, gallery, zip.

Everything follows from the store and is written anew each time, one process at a time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock

from orbweave.errors import OutputError, shown
from orbweave.files import write_text
from orbweave.job import State
from orbweave.jobs import Jobs
from ui.archive import write_archive
from ui.contact_sheet import PER_PAGE, Frame, contact_sheet
from ui.gallery import render_gallery
from ui.results import result_rows, write_csv, write_parquet

__all__ = ["write_report"]

VARIED = (
    "concept", "seed", "model", "team", "image_model", "scheduler", "steps", "guidance",
    "strength", "structure", "size", "scale", "domains", "rounds",
)  # fmt: skip
"""Columns of the table of results that may tell pictures apart, the telling ones first."""
UNMADE: tuple[State, ...] = ("queued", "running", "paused")
MAX_PAGES = 50
"""Contact sheets at most, 3,000 pictures: beyond that the gallery is the better view."""


def write_report(jobs: Jobs, batch: int, out: Path, *, zipped: bool = False) -> list[Path]:
    """Write tables, contact sheets, gallery and, if asked for, a zip; return their paths.

    What the store holds is read after the lock was taken: of two processes that end at the
    same time the later one writes the complete report.

    Raises:
        OutputError: the disk refused; what was there before is left as it was.
    """

    def rows() -> Iterator[dict[str, Any]]:
        return result_rows(jobs.each(batch))

    with _disk_errors(out), FileLock(out / ".report.lock"):
        building = out / ".report.partial"
        shutil.rmtree(building, ignore_errors=True)  # of a process that was killed
        building.mkdir()
        varying = _varying(rows())
        write_csv(rows(), building / "results.csv")
        write_parquet(rows(), building / "results.parquet")
        _write_contact_sheets(rows(), varying, out, building)
        write_text(building / "gallery.html", render_gallery(rows(), varying, out.name))
        written = [_publish(file, out) for file in sorted(building.iterdir())]
        for old in set(out.glob("contact-sheet*.png")) - set(written):
            old.unlink()
        if zipped:
            write_archive(out, building / f"{out.name}.zip")
            written.append(_publish(building / f"{out.name}.zip", out))
        building.rmdir()
    return written


@contextmanager
def _disk_errors(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        raise OutputError(
            f"wanted to write tables, sheets and gallery into {out}, the system said "
            f"{shown(err.strerror or err, 160)}; mend that and run the command again: the designs "
            "are all there"
        ) from err


def _varying(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the columns of `VARIED` that have more than one value."""
    first: dict[str, Any] = {}
    varying = set()
    for row in rows:
        first = first or {name: row[name] for name in VARIED}
        varying |= {name for name in VARIED if row[name] != first[name]}
    return [name for name in VARIED if name in varying]


def _write_contact_sheets(
    rows: Iterable[Mapping[str, Any]], varying: list[str], out: Path, building: Path
) -> None:
    """Write the results' pictures page by page, so that one page is in memory.

    Rows that are still to be made are left out: of a night's batch that was stopped early they
    would be page after page of blanks.
    """
    frames = (
        _frame(row, varying, out)
        for row in rows
        if row["is_result"] is not False and row["state"] not in UNMADE
    )
    for number in range(1, MAX_PAGES + 1):
        page = list(islice(frames, PER_PAGE))
        if not page:
            return
        title = out.name if number == 1 else f"{out.name}, page {number}"
        name = "contact-sheet.png" if number == 1 else f"contact-sheet-{number}.png"
        contact_sheet(page, title).save(building / name)


def _frame(row: Mapping[str, Any], varying: list[str], out: Path) -> Frame:
    title = row["name"] or row["concept"]
    told = [name for name in varying if name not in ("concept", "seed")]
    settings = [f"seed {row['seed']}", *(_setting(name, row[name]) for name in told)]
    measured = [
        f"{label} {row[name]:.{digits}f}"
        for name, label, digits in (("score_mean", "score", 1), ("solid_fraction", "solid", 2))
        if row[name] is not None
    ]
    picture = out / row["picture"] if row["picture"] else None
    label = (title, " · ".join(settings), f"row {row['row']} " + " · ".join(["", *measured]))
    return Frame(picture, label, note=row["error"] or row["state"])


def _setting(name: str, value: object) -> str:
    """Return a setting as short as it can be understood."""
    if name in ("steps", "rounds"):
        return f"{value} {name}"
    if name in ("guidance", "strength"):
        return f"{name} {value:g}"
    return str(value) if value not in (None, "") else "team's own" if name == "model" else "–"


def _publish(file: Path, out: Path) -> Path:
    """Move a finished file to its place in one step."""
    with file.open("rb") as written:
        os.fsync(written.fileno())
    return file.replace(out / file.name)
