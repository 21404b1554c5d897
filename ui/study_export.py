"""What a study found as plain values: the document of `results.json` and the tables as CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from typing import Any

from merging.synergy import Synergy, verdict
from ui.environment import environment
from ui.study_run import Found
from ui.study_tables import Analysis, Kind
from ui.study_words import headline, summary

__all__ = ["as_csv", "document", "tables"]


def document(found: Found, analyses: Sequence[Analysis]) -> dict[str, Any]:
    """Return all of it as JSON values, with every answer."""
    from merging import geometry

    return {
        "schema_version": 1,
        "study": found.study.model_dump(mode="json"),
        "environment": environment(),
        "weights": found.hashes,
        "models": [each._asdict() for each in found.scored],
        "questions": [
            {**question._asdict(), "n_options": n}
            for question, n in zip(found.questions, found.options, strict=True)
        ],
        "n_known": found.n_known,
        "n_sets": found.n_sets,
        "seconds": found.seconds,
        "scorings": {one.scoring: _scoring(found, one) for one in analyses},
        "geometry": {
            name: {
                key: value
                for key, value in geometry.document(one).items()
                if key not in {"tensors", "by_layer"}
            }
            for name, one in found.geometries.items()
        },
    }


def _scoring(found: Found, one: Analysis) -> dict[str, Any]:
    results = found.results[one.scoring]
    choice, clusters = one.choice, one.clusters
    return {
        "answer": headline(found, one),
        "summary": summary(found, one),
        "chance": one.chance,
        "accuracies": [row._asdict() for row in one.accuracies],
        "gains": [row._asdict() for row in one.gains],
        "synergies": [
            {**row.model_dump(mode="json"), "verdict": verdict(row)} for row in one.synergies
        ],
        "ways": [_kind(kind) for kind in one.kinds],
        "slerp_over_lerp": {name: row._asdict() for name, row in one.controls.items()},
        "slerp_over_lerp_mean": one.arc and {"gain": one.arc[0], **one.arc[1]._asdict()},
        "chosen": choice
        and {
            "best": choice.best.name,
            "verdict": verdict(choice.best),
            "choosing": [one.judged.questions[i] for i in choice.choosing],
            "reporting": [one.judged.questions[i] for i in choice.reporting],
        },
        "correlations": one.correlations and one.correlations.document(),
        "clusters": clusters
        and {
            "labels": dict(zip(clusters.names, clusters.labels, strict=True)),
            "silhouette": clusters.silhouette,
        },
        "notes": list(one.notes),
        "right": {
            name: "".join("01"[right] for right in results.row(name).tolist())
            for name in results.names
        },
    }


def tables(found: Found, analyses: Sequence[Analysis]) -> dict[str, list[dict[str, Any]]]:
    """Return every table as rows of plain values, by the name of its CSV file."""

    def rows(name: str) -> list[dict[str, Any]]:
        return [
            {"scoring": one.scoring, **row._asdict()}
            for one in analyses
            for row in getattr(one, name)
        ]

    return {
        "models": [each._asdict() for each in found.scored],
        "accuracy": rows("accuracies"),
        "gains": rows("gains"),
        "synergy": [
            {"scoring": one.scoring, **_flat(row), "verdict": verdict(row)}
            for one in analyses
            for row in one.synergies
        ],
        "ways": [{"scoring": one.scoring, **_kind(kind)} for one in analyses for kind in one.kinds],
        "slerp-over-lerp": [
            {"scoring": one.scoring, "slerp": name, **row._asdict()}
            for one in analyses
            for name, row in one.controls.items()
        ],
        "correlations": [row for one in analyses for row in _pairs_of_columns(one)],
        "clusters": [
            {"scoring": one.scoring, "merge": name, "group": label + 1}
            for one in analyses
            if one.clusters
            for name, label in zip(one.clusters.names, one.clusters.labels, strict=True)
        ],
        "geometry": [
            {"pair": name, **part._asdict(), "shares": json.dumps(part.shares)}
            for name, geometry in found.geometries.items()
            for part in (geometry.total, *geometry.by_part)
        ],
    }


def _kind(kind: Kind) -> dict[str, Any]:
    plain = kind._asdict()
    changes = {key: plain.pop(key) for key in ("excess", "improvement")}
    for key, change in changes.items():
        plain |= {key: change.mean, f"{key}_low": change.low, f"{key}_high": change.high}
    return plain


def _flat(row: Synergy) -> dict[str, Any]:
    plain = row.model_dump(mode="json")
    several = {key: " | ".join(map(str, plain[key])) for key in ("parents", "parent_accuracies")}
    return {**plain, **several, "traits": json.dumps(plain["traits"])}


def _pairs_of_columns(one: Analysis) -> Iterator[dict[str, Any]]:
    known = one.correlations
    for i, a in enumerate(known.columns if known else ()):
        for j, b in enumerate(known.columns[:i] if known else ()):
            assert known is not None
            r, rank = float(known.pearson[i, j]), float(known.spearman[i, j])
            yield {
                "scoring": one.scoring,
                "a": b,
                "b": a,
                "pearson": None if r != r else r,
                "spearman": None if rank != rank else rank,
                "n": known.n,
            }


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of one row or more as the text of a CSV file."""
    text = StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
