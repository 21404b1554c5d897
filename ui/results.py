"""The results of a batch as a table: one row a picture, or one for a row that made none."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from orbweave.job import Job
from orbweave.records import Critique, Design, Measurement
from ui.matrix import BatchRow

__all__ = ["COLUMNS", "result_of", "result_rows", "write_csv", "write_parquet"]

SCORES = ("depth", "creativity", "clarity", "quantitative")
STATISTICS = ("solid_fraction", "direction_deg", "anisotropy", "spacing_px", "contrast")
WANTED = ("solid_fraction", "direction_deg", "spacing_px")
_GIVEN: dict[str, type] = {
    "concept": str,
    "scale": str,
    "domains": str,
    "team": str,
    "model": str,
    "image_model": str,
    "structure": str,
    "strength": float,
    "scheduler": str,
    "steps": int,
    "guidance": float,
    "size": str,
    "rounds": int,
}
_DRAWN: dict[str, type] = {
    "version": int,
    "is_last": bool,
    "is_result": bool,
    "seed": int,
    "title": str,
    "prompt": str,
    "negative_prompt": str,
    "lost_words": str,
    **{f"score_{name}": float for name in SCORES},
    "score_mean": float,
    **{f"wanted_{name}": float for name in WANTED},
    **{name: float for name in STATISTICS},
    "picture": str,
    "sha256": str,
    "picture_seconds": float,
}
COLUMNS: dict[str, type] = {
    "row": int,
    "name": str,
    "state": str,
    **_GIVEN,
    **_DRAWN,
    "design": str,
    "seconds": float,
    "error": str,
}
"""Names and types. `picture` and `design` are paths from the batch's folder; statistics are of
the picture, not of a material; `seconds` is of the whole row; `version` counts from 0, `is_result`
says of which one the row's result is, the best or else the last."""
CHUNK = 1_000


def result_of(design: Design) -> dict[str, Any]:
    """Return what the store keeps of a finished design: its pictures, one dict each."""
    measured = {m.picture: m for m in design.measurements}
    critiques = {c.prompt_version: c for c in design.critiques}
    last = len(design.prompts) - 1
    best = last if design.best_version is None else min(design.best_version, last)
    pictures = []
    for picture in design.pictures:
        prompt = design.prompts[picture.prompt_version]
        pictures.append(
            {
                "version": picture.prompt_version,
                "is_last": picture.prompt_version == last,
                "is_result": picture.prompt_version == best,
                "seed": picture.seed,
                "title": prompt.title,
                "prompt": prompt.prompt,
                "negative_prompt": prompt.negative_prompt,
                "lost_words": " ".join(picture.lost_words),
                **_scores(critiques.get(picture.prompt_version)),
                **{f"wanted_{name}": getattr(prompt.targets, name) for name in WANTED},
                **_statistics(measured.get(picture.path)),
                "picture": picture.path,
                "sha256": picture.sha256,
                "picture_seconds": picture.seconds,
            }
        )
    return {"pictures": pictures, "stop_reason": design.stop_reason}


def result_rows(jobs: Iterable[Job]) -> Iterator[dict[str, Any]]:
    """Yield the rows of the table for the jobs of a batch, by the names of `COLUMNS`."""
    for job in jobs:
        row = BatchRow.model_validate(job.parameters)
        settings = row.settings()
        common = {
            "row": row.number,
            "name": row.name,
            "state": job.state,
            **{name: settings[name] for name in _GIVEN},
            "seed": row.brief.seed,
            **{f"wanted_{name}": settings[name] for name in WANTED},
            "design": f"designs/{row.folder}" if job.state == "done" else None,
            "seconds": job.seconds,
            "error": job.error or None,
        }
        empty = dict.fromkeys(COLUMNS) | common
        for picture in (job.result or {}).get("pictures", []) or [{}]:
            drawn = dict(picture)
            if drawn:
                drawn.setdefault("is_result", drawn["is_last"])  # older stores know no best one
                drawn["picture"] = f"{common['design']}/{drawn['picture']}"
            yield empty | drawn


def write_csv(rows: Iterable[dict[str, Any]], path: Path) -> None:
    """Write the table as CSV in UTF-8 with a header; empty where nothing is known."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(COLUMNS), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(rows: Iterable[dict[str, Any]], path: Path) -> None:
    """Write the table as Parquet, a thousand rows in memory at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {int: pa.int64(), float: pa.float64(), bool: pa.bool_(), str: pa.string()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    iterator = iter(rows)
    with pq.ParquetWriter(path, schema) as writer:
        while chunk := list(islice(iterator, CHUNK)):
            writer.write_table(pa.Table.from_pylist(chunk, schema))


def _scores(critique: Critique | None) -> dict[str, float | None]:
    given = critique.scores if critique else {}
    scores: dict[str, float | None] = {f"score_{name}": given.get(name) for name in SCORES}
    scores["score_mean"] = round(math.fsum(given.values()) / len(given), 4) if given else None
    return scores


def _statistics(measurement: Measurement | None) -> dict[str, float | None]:
    return {name: getattr(measurement, name, None) for name in STATISTICS}
