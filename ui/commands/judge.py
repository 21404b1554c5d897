"""`orbweave judge RUN...`: a model, or a person, judges what models said."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orbweave.errors import Cancelled, EngineError, UsageError
from ui.commands import options
from ui.commands.choice import one_of
from ui.commands.converse import engine_opener, listed, model_faults

if TYPE_CHECKING:
    from agents.judge import Answer as Given
    from agents.judge import How, Mark, Rubric, View
    from ui.answer import Answer
    from ui.judge import Judgement
    from ui.judge_journal import JudgeJournal

__all__ = ["judge"]

HOWS = ("auto", "probabilities", "reply")
_PICKED = "first, second or tie"


def judge(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Folders of converse or design, or JSONL files of model, question, answer; "
            "NAME=RUN puts NAME in the place of its models.",
            show_default=False,
        ),
    ],
    judge_: Annotated[
        str | None,
        typer.Option(
            "--judge", metavar="REF", help="Language model that judges.", show_default=False
        ),
    ] = None,
    pairwise: Annotated[
        bool, typer.Option("--pairwise", help="Compare answers two by two, in both orders.")
    ] = False,
    repeats: Annotated[
        int, typer.Option(min=1, max=100, help="Times each is asked, in other words.")
    ] = 1,
    by: Annotated[
        str,
        typer.Option(
            help="Read the judge's probabilities, its reply, or what suits it: auto takes replies "
            "from servers and probabilities from models in this process."
        ),
    ] = "auto",
    rubric: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="A shipped rubric or a YAML file.")
    ] = "paper",
    turn: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of interviews judge only the reply to this turn [default: all together].",
            show_default=False,
        ),
    ] = None,
    seed: options.Seed = 0,
    timeout: Annotated[
        float, typer.Option(min=0.01, help="Longest wait for one answer of the judge, in seconds.")
    ] = 300.0,
    form: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a blind form of all pairs for a person to fill in.",
            show_default=False,
        ),
    ] = None,
    picks: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Read a filled-in form in a judge's place.", show_default=False
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write decided pairs as JSONL of prompt, chosen, rejected for training.",
            show_default=False,
        ),
    ] = None,
    out: options.Out = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Mark answers by a rubric, or compare them two by two; show intervals and the judge's bias.

    Example: orbweave judge interviews/collagen-leaf --judge base --repeats 3 --pairwise
    """
    from agents.judge import load_rubric, pairs_of
    from ui.answer import Answer
    from ui.judge import document, report
    from ui.judge_journal import JudgeJournal, call_digest

    answers, faults = _checked(runs, turn, judge_, picks, form, export, pairwise)
    how = one_of("--by", by, HOWS)
    try:
        words = load_rubric(rubric)
    except UsageError as err:
        faults.append(str(err))
    faults += _blocked(out, form, export, force=force)
    if faults:
        raise UsageError(listed(faults))
    answer = Answer(as_json=as_json, quiet=quiet)
    if dry_run:
        _tell_plan(answers, judge_, pairwise, repeats, words, answer)
        return
    written: list[str] = []
    told: dict[str, Any] = {}
    if form is not None:
        told["form_lines"] = _form(answers, form, seed, force)
        written.append(str(form))
        answer.line(
            f"{told['form_lines']} pairs; write {_PICKED} behind each pick and give it to --picks"
        )
    if judge_ is not None or picks is not None:
        journal = None
        if picks is not None:
            found, marks, views = _people(answers, words, picks, seed)
        else:
            assert judge_ is not None
            pairs = pairs_of(answers) if pairwise else []
            method = _how(how, judge_)
            digest = call_digest(judge_, method, seed, words, answers, pairwise=pairwise)
            journal = JudgeJournal(out, digest, force=force)
            marks, views = _asked(
                judge_, words, answers, pairs, method, repeats, seed, timeout, answer, journal
            )
            found = _concluded(answers, words, judge_, method, marks, views, seed)
        answer.line(report(found))
        told |= document(found)
        written += _kept(found, marks, views, answers, out, export, force, answer)
        if journal is not None:
            journal.forget()
        if found.is_empty:
            answer.end(told | {"written": written}, "")
            raise EngineError(_nothing(found))
    answer.end(
        told | {"written": written},
        f"written to {', '.join(written)}" if written else f"judged {len(answers)} answers",
    )


def _nothing(found: Judgement) -> str:
    """Return why a model's judgement is empty, and what mends it."""
    wanted, outcomes = f"wanted a judgement of {found.judge}", {name for name, _ in found.unjudged}
    if outcomes == {"timed out"}:
        return f"{wanted}, {found.example}; see the server, or give a longer --timeout"
    if outcomes == {"failed"}:
        return f"{wanted}, none of its answers came: {found.example}"
    return (
        f"{wanted}, none of its answers could be read: {found.example[:200]!r}; take another "
        "judge, or --by probabilities"
    )


def _checked(
    runs: Sequence[str],
    turn: str | None,
    judge_: str | None,
    picks: Path | None,
    form: Path | None,
    export: Path | None,
    pairwise: bool,
) -> tuple[list[Given], list[str]]:
    """Return the answers and every fault of the call that needs no model to be seen."""
    from agents.judge import pairs_of
    from ui.judge_answers import read_answers

    answers, faults = read_answers(runs, turn)
    if judge_ is not None:
        faults += model_faults([judge_])
    if judge_ is not None and picks is not None:
        faults.append("wanted one judge, got --judge and --picks; give one of them")
    if judge_ is None and picks is None and form is None:
        faults.append("wanted a judge, got none; give --judge REF, --picks FILE or --form FILE")
    by_pairs = pairwise or picks is not None
    if export is not None and not by_pairs:
        faults.append("wanted pairs to export, got marks only; add --pairwise or --picks")
    if (by_pairs or form is not None) and answers and not pairs_of(answers):
        faults.append(
            "wanted two models that answered the same question, found none; "
            "give more runs, or name them with NAME=RUN"
        )
    return answers, faults


def _blocked(out: Path | None, form: Path | None, export: Path | None, *, force: bool) -> list[str]:
    """Return which results cannot be written."""
    from orbweave.errors import OutputError
    from orbweave.files import check_output
    from ui.judge import is_judgement
    from ui.target import check_target

    faults = []
    for path in (form, export, out):
        try:
            if path is not None and path == out:
                check_target(path, force=force, is_ours=is_judgement)
            elif path is not None:
                check_output(path, force=force)
        except OutputError as err:
            faults.append(str(err))
    return faults


def _how(how: str, ref: str) -> How:
    from orbweave.models import ModelRef

    if how == "auto":
        return "reply" if ModelRef.parse(ref).kind == "endpoint" else "probabilities"
    return "reply" if how == "reply" else "probabilities"


def _asked(
    ref: str,
    rubric: Rubric,
    answers: Sequence[Given],
    pairs: Sequence[tuple[int, int]],
    how: How,
    repeats: int,
    seed: int,
    timeout: float,
    answer: Answer,
    journal: JudgeJournal,
) -> tuple[list[Mark], list[View]]:
    """Open the judge and ask what the journal does not hold; with pairs no marks are asked for.

    Raises:
        Cancelled: interrupted; says what is kept and how to go on.
    """
    from agents.judge import compare, mark
    from ui.bar import bar

    answer.note(f"loading the language model {ref}")
    engine = engine_opener(answer.note)(ref)

    async def ask() -> tuple[list[Mark], list[View]]:
        with bar("judging", "question") as shown:
            on_progress = (lambda done, total: None) if answer.quiet else shown
            try:
                if pairs:
                    views = await compare(
                        engine,
                        rubric,
                        answers,
                        pairs,
                        how=how,
                        repeats=repeats,
                        seed=seed,
                        timeout_s=timeout,
                        on_progress=on_progress,
                        known=journal.views,
                        keep=journal.add,
                    )
                    return [], views
                marks = await mark(
                    engine,
                    rubric,
                    answers,
                    how=how,
                    repeats=repeats,
                    seed=seed,
                    timeout_s=timeout,
                    on_progress=on_progress,
                    known=journal.marks,
                    keep=journal.add,
                )
                return marks, []
            finally:
                await engine.close()

    try:
        return asyncio.run(ask())
    except KeyboardInterrupt:
        pass
    # Out here, or the interrupt would be our error's context and be told.
    kept = "nothing is kept without --out"
    if journal.path is not None:
        kept = f"what was judged is kept in {journal.path}, run it again to go on"
    raise Cancelled(f"interrupted; {kept}")


def _concluded(
    answers: Sequence[Given],
    rubric: Rubric,
    ref: str,
    how: How,
    marks: Sequence[Mark],
    views: Sequence[View],
    seed: int,
) -> Judgement:
    from ui.judge import conclude

    return conclude(answers, rubric, judge=ref, how=how, marks=marks, views=views, seed=seed)


def _people(
    answers: Sequence[Given], rubric: Rubric, picks: Path, seed: int
) -> tuple[Judgement, list[Mark], list[View]]:
    from dataclasses import replace

    from ui.judge import conclude, preferences, read_picks

    views = read_picks(answers, picks)
    if not views:
        raise UsageError(f"wanted picks in {picks}, found none; write {_PICKED} behind a pick")
    found = conclude(answers, rubric, judge="people", how="picks", seed=seed)
    chosen = preferences(answers, views, both_orders=False, seed=seed)
    return replace(found, preferences=chosen), [], views


def _form(answers: Sequence[Given], form: Path, seed: int, force: bool) -> int:
    from ui.judge import write_form

    return write_form(answers, form, seed=seed, force=force)


def _kept(
    found: Judgement,
    marks: Sequence[Mark],
    views: Sequence[View],
    answers: Sequence[Given],
    out: Path | None,
    export: Path | None,
    force: bool,
    answer: Answer,
) -> list[str]:
    """Write what was asked for and return its names."""
    from ui.judge import preference_rows, write_judgement, write_pairs

    written = []
    if out is not None:
        write_judgement(found, marks, views, answers, out, force=force)
        written.append(str(out))
    if export is not None and found.preferences is not None:
        rows = preference_rows(answers, found.preferences, found.judge)
        write_pairs(rows, export, force=force)
        answer.line(f"{len(rows)} of {len(found.preferences.pairs)} pairs are decided and exported")
        written.append(str(export))
    return written


def _tell_plan(
    answers: Sequence[Given],
    judge_: str | None,
    pairwise: bool,
    repeats: int,
    rubric: Rubric,
    answer: Answer,
) -> None:
    from agents.judge import pairs_of

    n_pairs = len(pairs_of(answers))
    n_asked = 2 * n_pairs if pairwise else len(answers) * len(rubric.criteria)
    plan = {
        "judge": judge_,
        "models": list(dict.fromkeys(each.model for each in answers)),
        "answers": len(answers),
        "pairs": n_pairs,
        "questions_to_the_judge": n_asked * repeats if judge_ else 0,
    }
    for name, value in plan.items():
        answer.line(f"{name}: {value}")
    answer.end(plan, f"dry run: would judge {len(answers)} answers")
