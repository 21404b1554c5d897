"""`orbweave ingest SOURCES...`: papers, pages and bibliographies become a corpus."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ui.commands import options

if TYPE_CHECKING:
    from training.corpus import Summary
    from ui.answer import Answer

__all__ = ["ingest"]

MAX_CHARS, MIN_QUALITY = 4_000, 0.5
"""As in `training.chunks` and `training.quality`, which help must not import."""


def ingest(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCES...",
            help="Files and folders: PDF, HTML, Markdown, text, JSONL, .bib, CSV.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="CORPUS",
            help="Folder of the corpus; an earlier one is gone on with.",
        ),
    ] = Path("corpus"),
    max_chars: Annotated[
        int, typer.Option(min=100, help="Longest chunk, in characters.")
    ] = MAX_CHARS,
    min_quality: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Least text quality that training may read; 0 keeps all, for distilling only.",
        ),
    ] = MIN_QUALITY,
    about: Annotated[
        str,
        typer.Option(
            help="Words with commas between; a document with none of them is off topic.",
            show_default=False,
        ),
    ] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Read everything again, forget earlier sources.")
    ] = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Read sources into a corpus: documents, chunks, and a ledger that accounts for each.

    Example: orbweave ingest papers/ library.bib --out corpus
    """
    from training.corpus import ingest as read_in
    from training.corpus import pending
    from training.sources import find
    from ui.answer import Answer
    from ui.bar import bar

    answer = Answer(as_json=as_json, quiet=quiet)
    if dry_run:
        files = find(sources)
        todo = files if force else pending(files, out)
        for path in todo:
            answer.line(str(path))
        plan = {"files": len(files), "to_read": [str(path) for path in todo], "out": str(out)}
        answer.end(plan, f"dry run: would read {len(todo)} of {len(files)} files into {out}")
        return
    words = [word.strip() for word in about.split(",") if word.strip()]
    with nullcontext(_silent) if quiet else bar("reading", "file") as on_progress:
        summary = read_in(
            sources,
            out,
            on_progress,
            max_chars=max_chars,
            min_quality=min_quality,
            about=words,
            force=force,
        )
    _tell(summary, out, answer)


def _silent(done: int, total: int) -> None:
    """Draw no bar."""


def _tell(summary: Summary, out: Path, answer: Answer) -> None:
    answer.line(f"sources   {summary.total:>9,}")
    answer.line(f"kept      {summary.kept:>9,}")
    answer.line(f"excluded  {summary.excluded:>9,}")
    for kind, count in summary.reasons.items():
        answer.line(f"  {kind:<12} {count:>4,}")
    answer.line(f"chunks    {summary.chunks:>9,}  ({summary.characters:,} characters)")
    answer.line(f"each source: {out / 'ledger.csv'}")
    answer.end({"written": str(out), **asdict(summary)}, f"corpus written to {out}")
