"""`orbweave merge sweep A B`: many merges of two models scored in memory, with their controls."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ui.commands import options

if TYPE_CHECKING:
    from merging.sweep import Laboratory, Reading, Sweep
    from orbweave.errors import Cancelled
    from training.benchmark import Benchmark
    from ui.answer import Answer
    from ui.sweep import LoglikBench

__all__ = ["positions", "sweep"]

REQUEST, RECORD, ANSWERS = "request.json", "sweep.json", "answers"
_REPORT, _BEST = "report.md", "best.yaml"
_CURVE, _DEVIATIONS = "accuracy-over-t", "deviations"
_PICTURES = (".png", ".svg")
_PLACES = "0:1:0.1"
_MAX_PLACES = 1_001
_SAMPLE = 16
"""Questions that are timed for an estimate."""


def sweep(
    a: Annotated[str, typer.Argument(metavar="A", help="The model at t = 0.", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="The model at t = 1.", show_default=False)],
    t: Annotated[
        str | None,
        typer.Option(
            "--t",
            metavar="START:STOP:STEP",
            help="Shares of B for the profile constant; or a list such as 0.25,0.5 "
            f"[default: {_PLACES}].",
            show_default=False,
        ),
    ] = None,
    profiles: Annotated[
        str, typer.Option(help="How t goes with depth: some of constant, paper and linear.")
    ] = "constant",
    benchmark: options.Benchmarks = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder for answers, tables and figures; a second run continues in it.",
            show_default=False,
        ),
    ] = None,
    chart: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw accuracy over t into a .png, .svg or .pdf file.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Splits the questions and draws intervals.")
    ] = 0,
    batch: options.Batch = 16,
    force: options.Force = False,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            "--dry-run",
            help="Load the models, time one merge and some questions, and say what would be done.",
        ),
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Score SLERP merges over t beside LERP and both parents.

    The best is chosen on one half of the questions and reported on the other.

    Example: orbweave merge sweep base generalist --t 0:1:0.1 --profiles constant,paper --out sweep
    """
    from merging.build import open_parents
    from merging.sweep import open_laboratory, read
    from merging.synergy import halves
    from merging.variants import variants
    from ui import sweep_report as report
    from ui.answer import Answer
    from ui.bar import bar
    from ui.sweep import LoglikBench

    names = [name.strip() for name in profiles.split(",")]
    matrix = variants(a, b, _places(t, names), names)
    benchmarks = _benchmarks(benchmark)
    bench = LoglikBench(benchmarks, batch)
    halves([question.stratum for question in bench.questions], seed)  # too few, told before work
    request = {"parents": [a, b], "t": [v.t for v in matrix if v.way == "slerp"], "profiles": names}
    request |= {"benchmarks": [each.name for each in benchmarks], "digest": bench.digest}
    request |= {"seed": seed}
    _check_chart(chart, force=force)
    if out is not None:
        _check_out(out, request, force=force)
    answer = Answer(as_json=as_json, quiet=quiet)
    parents = open_parents(matrix[2].recipe, answer.note)
    laboratory = open_laboratory(matrix, parents, answer.note)
    for finding in laboratory.findings:
        answer.line(f"{finding.level}: {finding.text}")
    if plan:
        _tell_plan(laboratory, bench, out, answer)
        return
    if out is not None:
        _begin(out, request)
    found = None
    try:
        with bar("scoring", "question") as on_progress:
            found = laboratory.run(bench, kept=out and out / ANSWERS, on_progress=on_progress)
    except KeyboardInterrupt:
        if out is None:  # nothing is kept
            raise
    if found is None:  # out here, or the interrupt would be told instead, as our error's context
        raise _stopped(laboratory, bench, out)
    reading = read(found, seed=seed)
    for line in (report.table(found, reading), *report.summary(found, reading)):
        answer.line(line)
    written = [str(path) for path in (out, chart) if path]
    if chart is not None:
        _draw(found, reading, chart, force=force)
    if out is not None:
        _write(found, reading, out)
    last = f"written to {', '.join(written)}" if written else report.summary(found, reading)[0]
    answer.end({"written": written, "seed": seed, **report.document(found, reading)}, last)


def positions(text: str) -> list[float]:
    """Return the numbers meant by `0:1:0.1` or `0.25,0.5`.

    A step that ends on STOP includes it; `0:1:0.3` is 0, 0.3, 0.6 and 0.9.

    Raises:
        UsageError: it is neither, or more than a thousand steps.
    """
    from orbweave.errors import UsageError, shown

    try:
        if ":" not in text:
            return [float(Decimal(part.strip())) for part in text.split(",")]
        start, stop, step = (Decimal(part.strip()) for part in text.split(":"))
        if not (step > 0 and start <= stop and (stop - start) / step < _MAX_PLACES):
            raise ValueError
    except (ArithmeticError, ValueError) as err:
        raise UsageError(
            f"wanted --t as START:STOP:STEP, for instance {_PLACES}, or as numbers such as "
            f"0.25,0.5, got {shown(text)}"
        ) from err
    # In decimals, so that 0.1 + 0.1 + 0.1 is 0.3.
    return [float(start + i * step) for i in range(int((stop - start) / step) + 1)]


def _places(t: str | None, profiles: Sequence[str]) -> list[float]:
    from orbweave.errors import UsageError

    if t is not None and "constant" not in profiles:
        raise UsageError(
            f"wanted --t together with the profile constant, got {', '.join(profiles)}, whose t "
            "goes with depth; leave --t out or add constant"
        )
    return positions(_PLACES if t is None else t)


def _benchmarks(names: Sequence[str] | None) -> list[Benchmark]:
    from orbweave.errors import UsageError
    from training.benchmark import GENERAL, load_benchmark, shipped_benchmarks

    wanted = names or [name for name in shipped_benchmarks() if name != GENERAL]
    found = [load_benchmark(name) for name in wanted]
    called = [each.name for each in found]
    if twice := next((name for name in called if called.count(name) > 1), None):
        raise UsageError(f"wanted every benchmark once, got {twice} twice; leave one out")
    return found


def _check_chart(chart: Path | None, *, force: bool) -> None:
    from merging.synergy_views import check_suffix
    from orbweave.files import check_output

    if chart is not None:
        check_suffix(chart)
        check_output(chart, force=force)


def _check_out(out: Path, request: dict[str, Any], *, force: bool) -> None:
    """Check that the folder is new, or holds a sweep that may be continued or replaced."""
    from orbweave.errors import OutputError
    from orbweave.files import check_output
    from ui.target import check_target

    check_target(out, force=True, is_ours=lambda folder: (folder / REQUEST).is_file())
    check_output(out / RECORD, force=True)
    if (out / RECORD).exists() and _request(out) != request and not force:
        raise OutputError(
            f"wanted to write {out}, which holds the finished sweep of another request; choose "
            "another --out, or --force replaces its tables and keeps its answers"
        )


def _request(out: Path) -> object:
    try:
        return json.loads((out / REQUEST).read_bytes())
    except (OSError, ValueError):
        return None


def _begin(out: Path, request: dict[str, Any]) -> None:
    from orbweave.files import write_text

    if _request(out) != request:
        pictures = [f"{name}{suffix}" for name in (_CURVE, _DEVIATIONS) for suffix in _PICTURES]
        for name in (RECORD, _REPORT, _BEST, *pictures):  # of another request
            (out / name).unlink(missing_ok=True)
        write_text(out / REQUEST, json.dumps(request, indent=2) + "\n")


def _stopped(laboratory: Laboratory, bench: LoglikBench, out: Path | None) -> Cancelled:
    """Return the error that says what an interrupted sweep keeps and how it goes on."""
    from orbweave.errors import Cancelled

    n_all = len({each.key for each in laboratory.made()})
    n_known = laboratory.known(bench, out and out / ANSWERS)
    return Cancelled(
        f"interrupted; the answers of {n_known} of {n_all} different models are kept in {out}, "
        "the same command goes on from there"
    )


def _tell_plan(
    laboratory: Laboratory, bench: LoglikBench, out: Path | None, answer: Answer
) -> None:
    """Say what the sweep would do and how long it would take here."""
    made = laboratory.made()
    first: dict[str, str] = {}
    for each in made:
        name = each.variant.name
        same = first.setdefault(each.key, name)
        answer.line(name if same == name else f"{name} = {same}")
    n_known = laboratory.known(bench, out and out / ANSWERS)
    sample = bench.sample(_SAMPLE)
    begin = time.perf_counter()
    tensors = laboratory.weights_of(made[-1])
    merged_s = time.perf_counter() - begin
    sample.load(tensors, laboratory.parents[made[-1].like])
    begin = time.perf_counter()
    sample.ask(lambda done: None)
    question_s = (time.perf_counter() - begin) / len(sample.questions)
    n_left, n_questions = len(first) - n_known, len(bench.questions)
    merging_s, scoring_s = n_left * merged_s, n_left * n_questions * question_s
    answer.end(
        {
            "variants": [each.variant.name for each in made],
            "different": list(first.values()),
            "questions": n_questions,
            "n_known": n_known,
            "merging_s": round(merging_s, 1),
            "scoring_s": round(scoring_s, 1),
        },
        f"plan: {len(made)} variants, {len(first)} different models, {n_known} answered before, "
        f"{n_questions} questions each; about {merging_s:.0f} s of merging and {scoring_s:.0f} s "
        "of scoring",
    )


def _draw(found: Sweep, reading: Reading, chart: Path, *, force: bool) -> None:
    from merging.synergy_views import save
    from ui.sweep_report import curve

    save(curve(found, reading), chart, force=force)


def _write(found: Sweep, reading: Reading, out: Path) -> None:
    """Write tables and figures; the record comes last and says that all are there."""
    from merging.synergy_views import save
    from orbweave.files import write_text
    from ui import sweep_report as report

    for suffix in _PICTURES:
        save(report.curve(found, reading), out / f"{_CURVE}{suffix}")
        if reading.choice is not None:
            save(report.deviations(reading.choice.table), out / f"{_DEVIATIONS}{suffix}")
    if reading.choice is not None:
        best = reading.choice.best.name
        recipe = next(x.made.variant.recipe for x in found.answers if x.made.variant.name == best)
        write_text(out / _BEST, recipe.to_yaml())
    write_text(out / _REPORT, report.markdown(found, reading))
    write_text(out / RECORD, json.dumps(report.document(found, reading), indent=1) + "\n")
