"""`orbweave evaluate MODEL...`: how well models answer, with intervals and against the first."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from ui.commands import options
from ui.commands.choice import one_of
from ui.markdown import aligned_table

if TYPE_CHECKING:
    from orbweave.logbook import Entry
    from training.benchmark import Benchmark, Text
    from training.evaluation import (
        Accuracy,
        Comparison,
        Evaluation,
        Retention,
        Scoring,
        TextResult,
    )
    from ui.answer import Answer

__all__ = ["evaluate", "report"]

Row = TypeVar("Row", "Accuracy", "Comparison")

RECORD = "evaluation.json"
DOMAIN_TEXT = "domain-text"
"""Name of the facts that no shipped recipe learns, read for their perplexity."""


def evaluate(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="Any references, also folders of trained adapters; the first is what the others "
            "are compared with.",
            show_default=False,
        ),
    ] = None,
    benchmark: options.Benchmarks = None,
    scoring: Annotated[
        str,
        typer.Option(
            help="By likelihood of each option per character (loglik), by one-word reply "
            "(reply), or both."
        ),
    ] = "loglik",
    retention: Annotated[
        bool,
        typer.Option(
            help="Ask the general set too, and read general text and facts held out of training: "
            "what was forgotten, what is foreseen."
        ),
    ] = True,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            "--text",
            metavar="FILE",
            help="JSONL of id, domain and text to measure perplexity on; may be repeated.",
            show_default=False,
        ),
    ] = None,
    out: options.Out = None,
    tasks_out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write the benchmarks as tasks of lm-evaluation-harness; needs no MODEL.",
            show_default=False,
        ),
    ] = None,
    batch: options.Batch = 16,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Ask models closed questions; show accuracies, gains over the first, and what was forgotten.

    Example: orbweave evaluate base runs/mine/Instruct-SFT --benchmark silk-collagen --out result
    """
    from orbweave.errors import UsageError
    from orbweave.logbook import logged
    from orbweave.models import ModelRef
    from training.evaluation import SCORINGS, document
    from training.lm_eval_tasks import export_tasks, is_export
    from ui.answer import Answer
    from ui.target import check_target

    refs = models or []
    if not refs and (out is not None or tasks_out is None):
        raise UsageError("wanted a model to evaluate, got none; give for instance base")
    for ref in refs:
        ModelRef.parse(ref)
    meant: dict[str, tuple[Scoring, ...]] = {name: (name,) for name in SCORINGS}
    meant["both"] = SCORINGS
    scorings = meant[one_of("--scoring", scoring, list(meant))]
    sets, texts = _asked(benchmark, text or [], retention=retention)
    if out is not None:
        check_target(out, force=force, is_ours=lambda folder: (folder / RECORD).is_file())
    if tasks_out is not None:
        check_target(tasks_out, force=force, is_ours=is_export)
    answer = Answer(as_json=as_json, quiet=quiet)
    plan = {
        "models": refs,
        "benchmarks": {each.name: len(each.questions) for each in sets},
        "texts": {name: len(rows) for name, rows in texts.items()},
        "scorings": list(scorings),
        "written": [str(path) for path in (out, tasks_out) if path],
    }
    if dry_run:
        for name, value in plan.items():
            answer.line(f"{name}: {value}")
        answer.end(plan, f"dry run: would evaluate {len(refs)} model(s)")
        return
    if tasks_out is not None:
        export_tasks(sets, tasks_out, force=force)
    told: dict[str, Any] = {"written": plan["written"]}
    if refs:
        with logged("evaluate", ", ".join(refs), out) as entry:
            evaluation = _run(refs, sets, texts, scorings, batch, answer, entry)
            told |= document(evaluation)
            answer.line(report(evaluation))
            if out is not None:
                _write(evaluation, out, force=force)
    last = f"written to {', '.join(told['written'])}" if told["written"] else ""
    answer.end(told, last or f"evaluated {len(refs)} model(s); --out keeps the result")


def _asked(
    names: Sequence[str] | None, files: Sequence[Path], *, retention: bool
) -> tuple[list[Benchmark], dict[str, Sequence[Text]]]:
    """Return the benchmarks and the texts by name."""
    from training.benchmark import (
        GENERAL,
        GENERAL_TEXT,
        load_benchmark,
        load_texts,
        shipped_benchmarks,
    )

    wanted = list(names or shipped_benchmarks())
    if retention and GENERAL not in wanted:
        wanted.append(GENERAL)
    if not (names or retention):
        wanted.remove(GENERAL)
    texts: dict[str, Sequence[Text]] = {file.stem: load_texts(file) for file in files}
    if retention:
        texts[GENERAL_TEXT] = load_texts()
        texts[DOMAIN_TEXT] = _held_out_facts()
    return [load_benchmark(name) for name in wanted], texts


def _held_out_facts() -> list[Text]:
    """Return the facts that no shipped recipe learns, as the passages they would be learnt as."""
    from training.benchmark import Text
    from training.items import shipped_rows
    from training.recipe import Recipe
    from training.rows import split
    from ui.material import team_material

    share = Recipe.model_fields["held_out"].default
    held_out = split(shipped_rows("facts", team_material()), share)[1]
    return [Text(id=row.id, domain=row.domain, text=row.text) for row in held_out]


def _with_base(ref: str) -> str:
    """Return the reference; for the folder of an adapter, that of its model with it laid over."""
    try:
        config = json.loads((Path(ref).expanduser() / "adapter_config.json").read_text("utf-8"))
        return f"{config['base_model_name_or_path']}+{ref}"
    except (OSError, ValueError, KeyError, TypeError):
        return ref  # no adapter; whatever else is wrong with it is told when it is loaded


def _run(
    refs: Sequence[str],
    sets: Sequence[Benchmark],
    texts: Mapping[str, Sequence[Text]],
    scorings: Sequence[Scoring],
    batch: int,
    answer: Answer,
    entry: Entry,
) -> Evaluation:
    from merging.build import resolve_model
    from training.evaluation import evaluate as evaluated
    from ui.bar import bar
    from ui.progress import both

    folders = [(ref, resolve_model(_with_base(ref), answer.note)) for ref in refs]
    with bar("evaluate", "item") as shown:
        on_progress = entry.report if answer.quiet else both(shown, entry.report)
        return evaluated(
            folders, sets, texts, scorings=scorings, batch=batch, on_progress=on_progress
        )


def _write(evaluation: Evaluation, out: Path, *, force: bool) -> None:
    """Write the record, the tables and the chart, all or nothing."""
    from orbweave.files import build_folder
    from training.chart import save

    with build_folder(out, force=force) as building:
        record = evaluation.model_dump_json(indent=1)
        (building / RECORD).write_text(record + "\n", encoding="utf-8")
        (building / "report.md").write_text(report(evaluation), encoding="utf-8")
        save(evaluation, building)


def report(evaluation: Evaluation) -> str:
    """Return all tables as Markdown."""
    from training.evaluation import accuracies, comparisons, retention

    models = [result.model for result in evaluation.models]
    table, gains, kept = accuracies(evaluation), comparisons(evaluation), retention(evaluation)
    parts = []
    for scoring in evaluation.scorings:
        rows = _by_group(row for row in table if row.scoring == scoring)
        head = ["accuracy, %", "n", *models]
        lines = [[_named(key), str(row[0].n), *map(_accuracy, row)] for key, row in rows.items()]
        parts.append(f"## Accuracy by {scoring}, 95 % intervals\n\n{aligned_table(head, lines)}")
        compared = _by_group(row for row in gains if row.scoring == scoring)
        if compared:
            head = [f"points over {models[0]}", *models[1:]]
            lines = [[_named(key), *map(_gain, row)] for key, row in compared.items()]
            title = f"## Gain by {scoring}: 95 % paired interval, relative gain, McNemar p"
            parts.append(f"{title}\n\n{aligned_table(head, lines)}")
    texts = [[r.model, *_perplexity(t)] for r in evaluation.models for t in r.texts]
    if texts:
        head = ["model", "text", "perplexity per token", "per character"]
        parts.append(f"## Perplexity\n\n{aligned_table(head, texts)}")
    if kept:
        lines = [[k.model, k.scoring, _points(k), _change(k.perplexity_change)] for k in kept]
        head = ["model", "scoring", "general, points", "general-text, perplexity"]
        parts.append(
            f"## Kept of general abilities, against {models[0]}\n\n{aligned_table(head, lines)}"
        )
    return "\n".join(parts)


def _by_group(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """Return rows by (group, name), each list in the order of the models."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.group, row.name), []).append(row)
    return found


def _named(key: tuple[str, str]) -> str:
    group, name = key
    return f"{group}: {name}"


def _accuracy(row: Accuracy) -> str:
    lost = f", {row.unparsable} unparsable" if row.unparsable else ""
    return f"{100 * row.accuracy:.1f} ({100 * row.low:.1f} to {100 * row.high:.1f}{lost})"


def _points(row: Comparison | Retention) -> str:
    return f"{100 * row.gain:+.1f} ({100 * row.low:+.1f} to {100 * row.high:+.1f})"


def _gain(row: Comparison) -> str:
    return f"{_points(row)}, {_change(row.relative_gain)}, p = {row.p_value:.2g}"


def _change(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:+.0f} %"


def _perplexity(text: TextResult) -> list[str]:
    return [text.name, f"{text.per_token:.2f}", f"{text.per_char:.3f}"]
