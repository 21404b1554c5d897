"""`orbweave merge compare A B`: how two models lie to each other, before they are merged."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ui.commands import options

if TYPE_CHECKING:
    from merging.geometry import Geometry, Summary

__all__ = ["compare"]


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="The model at t = 0.", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="The model at t = 1.", show_default=False)],
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="MODEL",
            help="What both were trained from: compare what each of them learnt, too.",
            show_default=False,
        ),
    ] = None,
    csv_file: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write every tensor.", show_default=False),
    ] = None,
    chart: Annotated[
        Path | None,
        typer.Option(
            "--chart",
            metavar="FILE",
            help="Draw all by depth, as .png or .svg.",
            show_default=False,
        ),
    ] = None,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare the weights of two models: angles, lengths, and what each learnt.

    Example: orbweave merge compare base generalist --chart angles.png
    """
    from merging.build import open_models
    from merging.geometry import compare as measured
    from merging.geometry import document
    from merging.geometry_advice import advice
    from merging.geometry_picture import check_suffix, save
    from orbweave.files import check_output, write_text
    from ui.answer import Answer
    from ui.bar import bar

    if chart is not None:
        check_suffix(chart)
    written = [path for path in (csv_file, chart) if path is not None]
    for path in written:
        check_output(path, force=force)
    answer = Answer(as_json=as_json, quiet=quiet)
    parents = open_models([a, b, *([base] if base else [])], answer.note)
    with bar("comparing", "tensor") as shown:
        geometry = measured(
            parents[a],
            parents[b],
            parents[base] if base else None,
            on_progress=(lambda done, total: None) if quiet else shown,
        )
    advised = advice(geometry)
    for line in [*_report(geometry), *(f"advice: {text}" for text in advised)]:
        answer.line(line)
    if csv_file is not None:
        write_text(csv_file, _csv(geometry), force=force)
    if chart is not None:
        save(geometry, chart, force=force)
    names = [str(path) for path in written]
    told = f"; written to {', '.join(names)}" if names else ""
    answer.end(
        document(geometry) | {"advice": advised, "written": names},
        f"compared {len(geometry.tensors)} tensors of {a} and {b}{told}",
    )


def _report(geometry: Geometry) -> list[str]:
    """Return two tables, by layer and by part, and what holds for all weights together."""
    lines = [*_by_layer(geometry), "", *_by_part(geometry), ""]
    straight = _percent(geometry.linear_share)
    lines.append(f"SLERP is a straight line for {straight} of the weights, identical ones included")
    total = geometry.total
    if total.task_norm_a is not None:
        lines.append(
            f"task vectors: |A - base| {_number(total.task_norm_a)}, "
            f"|B - base| {_number(total.task_norm_b)}, cosine {_signed(total.task_cosine)}; "
            "model kinship is this without the sign"
        )
    return lines


def _by_layer(geometry: Geometry) -> list[str]:
    """Return a line per layer, and for each measure a column per part."""
    inside = [summary for summary in geometry.by_layer if summary.layer is not None]
    cells = {(summary.layer, summary.part): summary for summary in inside}
    layers = list(dict.fromkeys(summary.layer for summary in inside))
    parts = [s.part for s in geometry.by_part if any(s.part == cell.part for cell in inside)]
    measures: list[tuple[str, Callable[[Summary], str]]] = [
        ("angle, degrees", lambda s: _number(s.angle_deg)),
        ("norm ratio |B|/|A|", lambda s: _ratio(s.norm_ratio)),
    ]
    if geometry.base:
        measures.append(("cosine of task vectors", lambda s: _signed(s.task_cosine)))
    blocks = [["", *_columns([["layer"], *([str(layer)] for layer in layers)])]]
    for title, told in measures:
        rows = [[str(part) for part in parts]]
        for layer in layers:
            found = [cells.get((layer, part)) for part in parts]
            rows.append([told(cell) if cell else "" for cell in found])
        blocks.append([title, *_columns(rows, first="right")])
    return _beside(blocks)


def _by_part(geometry: Geometry) -> list[str]:
    """Return a line per kind of weight and one for all."""
    total = geometry.total
    head = ["weights", "number", "median angle", "mean", "|B|/|A|", "|B-A|/|A|"]
    head += ["task cosine"] if geometry.base else []
    rows = [[*head, *total.shares]]
    for summary in [*geometry.by_part, total]:
        row = [
            summary.part or "all",
            f"{summary.numel:,}",
            f"{_number(summary.median_angle_deg)}°",
            f"{_number(summary.angle_deg)}°",
            _ratio(summary.norm_ratio),
            _number(summary.change),
        ]
        row += [_signed(summary.task_cosine)] if geometry.base else []
        rows.append(row + [_percent(summary.shares.get(path, 0.0)) for path in total.shares])
    return _columns(rows)


def _columns(rows: Sequence[Sequence[str]], first: Literal["left", "right"] = "left") -> list[str]:
    """Return a line per row, columns flush right but perhaps the first."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:<{width}}" if i == 0 and first == "left" else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _beside(blocks: Sequence[Sequence[str]]) -> list[str]:
    """Return blocks of lines side by side."""
    widths = [max(map(len, block), default=0) for block in blocks]
    return [
        "    ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in zip_longest(*blocks, fillvalue="")
    ]


def _number(value: float | None) -> str:
    """Return three digits that count."""
    return "–" if value is None else f"{value:#.3g}".removesuffix(".")


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _csv(geometry: Geometry) -> str:
    """Return a line per tensor; what has no meaning is left empty."""
    from merging.geometry import TensorGeometry

    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(TensorGeometry._fields)
    writer.writerows(geometry.tensors)
    return text.getvalue()
