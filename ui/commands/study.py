"""`orbweave study STUDY`: models, their merges and benchmarks from one file to one report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ui.commands import options

if TYPE_CHECKING:
    from ui.answer import Answer
    from ui.study import Study

__all__ = ["study"]

PARENT = Path("studies")
RECORD = "results.json"


def study(
    source: Annotated[
        str,
        typer.Argument(
            metavar="STUDY", help="A YAML file, or the name of a shipped study.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder of the report; answers are kept in OUT.work beside it, so that a second "
            "run goes on [default: studies/NAME].",
            show_default=False,
        ),
    ] = None,
    batch: options.Batch = 16,
    force: options.Force = False,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            "--dry-run",
            help="Say what would be scored and how long it would take here.",
        ),
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Score models and their merges on benchmarks; tables, figures and a report of what holds.

    Example: orbweave study smollm2-135m --plan
    """
    from orbweave.errors import Cancelled, UsageError
    from orbweave.files import build_folder
    from ui.answer import Answer
    from ui.bar import bar
    from ui.study import load_study
    from ui.study_alone import ANSWERS
    from ui.study_report import write
    from ui.study_run import run
    from ui.target import check_target

    known = load_study(source)
    target = out or PARENT / known.name
    if not target.name:
        raise UsageError(f"wanted --out as a folder to make, got {target}; give it a name")
    work = target.with_name(f"{target.name}.work")
    answer = Answer(as_json=as_json, quiet=quiet)
    if not plan:
        check_target(target, force=force, is_ours=lambda folder: (folder / RECORD).is_file())
    _check_work(work)
    if plan:
        _tell_plan(known, work, batch, answer)
        return
    found = None
    try:
        with bar("scoring", "question") as on_progress:
            found = run(known, work, batch=batch, on_note=answer.note, on_progress=on_progress)
    except KeyboardInterrupt:
        if not work.is_dir():  # nothing is kept
            raise
    if found is None:  # out here, or the interrupt would be told instead, as our error's context
        n_sets = len(list((work / ANSWERS).glob("*.json")))
        raise Cancelled(
            f"interrupted; {n_sets} sets of answers are kept in {work}, "
            "the same command goes on from there"
        )
    with build_folder(target, force=force) as building:
        document = write(found, building)
    for scoring in document["scorings"].values():
        answer.line(scoring["answer"])
        for sentence in scoring["summary"]:
            answer.line(f"- {sentence}")
    answer.end({"written": str(target), **document}, f"study written to {target}")


def _check_work(work: Path) -> None:
    """Raise OutputError unless the folder for answers is new or one of ours."""
    from ui.study_alone import ANSWERS
    from ui.target import check_target

    check_target(work, force=True, is_ours=lambda folder: (folder / ANSWERS).is_dir())


def _tell_plan(known: Study, work: Path, batch: int, answer: Answer) -> None:
    """Say what would be scored, and how long that would take here."""
    from ui.duration import duration
    from ui.study import matrix
    from ui.study_plan import estimate

    names = matrix(known)
    for name in names:
        strategy = known.models[name].strategy if name in known.models else ""
        answer.line(f"{name} ({strategy})" if strategy else name)
    found = estimate(known, work, batch=batch, on_note=answer.note)
    document: dict[str, Any] = {
        "study": known.model_dump(mode="json"),
        "matrix": names,
        **found._asdict(),
    }
    answer.end(
        document,
        f"plan: {len(names)} models and merges, {found.n_models} of them different, "
        f"{found.n_questions} questions each by {' and '.join(known.scorings)}, {found.n_known} "
        f"sets of answers known before; about {duration(found.merging_s)} of merging and "
        f"{duration(found.scoring_s)} of scoring",
    )
