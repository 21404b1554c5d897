"""`orbweave batch FILE`: many designs from a table, each made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orbweave.records import SCALES
from ui.commands import options
from ui.commands.choice import one_of

if TYPE_CHECKING:
    from orbweave.job import Job, State
    from orbweave.jobs import Jobs
    from ui.answer import Answer
    from ui.batch import MakeRow
    from ui.matrix import BatchRow, Combine

__all__ = ["batch"]

PARENT = Path("batches")
"""Where batches go without --out."""
COMBINATIONS: tuple[Combine, ...] = ("product", "zip")
SHOWN = 20
"""Rows, faults or failures printed at most."""


def _values(text: str, name: str | None = None) -> Any:
    declarations = [name] if name else []
    return typer.Option(*declarations, help=f"{text} May be repeated.", show_default=False)


def batch(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="CSV or JSONL with a column `concept` and any of the options below as further "
            "columns, or a text with one concept a line.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder of the batch; run again, an unfinished one goes on "
            "[default: batches/ and the file's name].",
            show_default=False,
        ),
    ] = None,
    combine: Annotated[
        str,
        typer.Option(
            help="product: every row with every combination of the values below; zip: the first "
            "value with the first row, and so on."
        ),
    ] = "product",
    seed: Annotated[list[str] | None, _values("7, 1,2,3 or 0-9.")] = None,
    team: Annotated[list[str] | None, _values("A shipped team or a YAML file.")] = None,
    model: Annotated[list[str] | None, _values("Language model of every speaker.")] = None,
    image_model: Annotated[list[str] | None, _values("Image model.")] = None,
    structure: Annotated[list[str] | None, _values("Geometry: auto, none or a file.")] = None,
    strength: Annotated[list[str] | None, _values("Share of the denoising, above 0 to 1.")] = None,
    scheduler: Annotated[list[str] | None, _values("Sampler by its A1111 name.")] = None,
    steps: Annotated[list[str] | None, _values("Denoising steps.")] = None,
    guidance: Annotated[list[str] | None, _values("How strongly the words pull.")] = None,
    size: Annotated[list[str] | None, _values("Pixels as N or WxH.")] = None,
    scale: Annotated[list[str] | None, _values(f"One of {', '.join(SCALES)}.")] = None,
    domains: Annotated[list[str] | None, _values("Experts to ask, with commas between.")] = None,
    images: Annotated[list[str] | None, _values("Pictures of each version, default 2.")] = None,
    rounds: Annotated[list[str] | None, _values("Prompt versions at most, default 1.")] = None,
    at_once: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=256,
            help="Rows under way at the same time in this process; the results are the same "
            "[default: 8 a core, 1 a gigabyte of memory, at most 16].",
            show_default=False,
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Work on all machines of a Ray cluster: its address, auto, or local to start "
            "one here.",
            show_default=False,
        ),
    ] = None,
    engines_per_node: Annotated[
        int, typer.Option(min=1, max=64, help="With --ray: processes on each machine.")
    ] = 1,
    retry: Annotated[bool, typer.Option("--retry", help="Try failed rows again.")] = False,
    zipped: Annotated[
        bool, typer.Option("--zip", help="Pack the whole batch into one file too.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", "--dry-run", help="Show the rows and the time, do nothing.")
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a design of every row of a table; a column of the table comes before an option.

    Stopped in any way and run again it goes on where it was; Ctrl-C leaves the tables of what is
    done so far. Several processes may work on one batch. The exit code is 0 once all rows are done.

    Example: orbweave batch concepts.csv --seed 0-3 --model base --model generalist --plan
    """
    from ui.answer import Answer
    from ui.batch import check_batch_folder
    from ui.crew import usual_at_once
    from ui.matrix import parse_seeds

    given = {
        "seed": parse_seeds(seed or []),
        "team": team,
        "model": model,
        "image_model": image_model,
        "structure": structure,
        "strength": strength,
        "scheduler": scheduler,
        "steps": steps,
        "guidance": guidance,
        "size": size,
        "scale": scale,
        "domains": domains,
        "images": images,
        "rounds": rounds,
    }
    answer = Answer(as_json=as_json, quiet=quiet)
    values = {name: list(each) for name, each in given.items() if each}
    rows = _rows(file, values, one_of("--combine", combine, COMBINATIONS), answer)
    target = (out or PARENT / file.stem).absolute()
    check_batch_folder(target)
    n_at_once = at_once or usual_at_once()
    if plan:
        _plan(rows, target, n_at_once, answer)
        return
    asked = {"table": str(file.absolute()), "combine": combine, "options": values}
    hands = _Hands(n_at_once, ray, engines_per_node)
    _run(rows, target, asked, hands, answer, retry=retry, zipped=zipped)


@dataclass(frozen=True)
class _Hands:
    """Who works on the rows."""

    at_once: int
    """Rows under way at the same time in a process."""
    ray: str | None
    """Address of the cluster; None works in this process."""
    engines_per_node: int


def _rows(
    file: Path, values: Mapping[str, Sequence[str]], combine: Combine, answer: Answer
) -> list[BatchRow]:
    """Return the rows of the batch; tell all faults of the table before the start."""
    from ui.matrix import COLUMNS, expand
    from ui.table import TableFaults, read_table

    rows, faults = read_table(file, COLUMNS)
    made, more = expand(rows, values, combine)
    faults += more
    if not faults:
        return made
    faults.sort(key=lambda fault: fault.row or 0)
    if answer.as_json:
        answer.end({"faults": [fault._asdict() for fault in faults]})
    elif len(faults) > 1:
        for fault in faults[: SHOWN * 5]:
            answer.note(str(fault))
    raise TableFaults(str(file), faults)


def _plan(rows: Sequence[BatchRow], out: Path, at_once: int, answer: Answer) -> None:
    """Show the matrix and how long it will take, from past rows like these."""
    from ui.batch import DESIGNS
    from ui.design import is_design
    from ui.duration import duration

    left = [row for row in rows if not is_design(out / DESIGNS / row.folder)]
    seconds, unknown = _expected(left, at_once)
    n_images = sum(row.images * row.rounds for row in rows)
    matrix = _matrix(rows)
    answer.line(f"matrix: {matrix} = {len(rows):,} rows, at most {n_images:,} pictures")
    answer.line(f"to do: {len(left):,} rows, {len(rows) - len(left):,} are done")
    note = f"; no row like {unknown:,} of them was made before" if unknown else ""
    known = "unknown" if unknown == len(left) and left else duration(seconds)
    answer.line(f"time: {known} by one process, {at_once} rows at once{note}")
    for row in rows[:SHOWN]:
        answer.line(f"row {row.number}: {row.folder}  ({row.profile})")
    if len(rows) > SHOWN:
        answer.line(f"and {len(rows) - SHOWN:,} more")
    document: dict[str, Any] = {"out": str(out), "to_do": len(left), "pictures": n_images}
    document["seconds"] = None if unknown else seconds
    if answer.as_json:  # takes seconds for many rows
        document["rows"] = [
            {"row": row.number, "folder": row.folder, **row.settings()} for row in rows
        ]
    answer.end(document, f"plan: would write {out}")


def _expected(rows: Sequence[BatchRow], at_once: int) -> tuple[float, int]:
    """Return (seconds for the rows whose like was made before, how many others there are)."""
    from collections import Counter

    from orbweave.jobs import open_jobs
    from orbweave.store import store_exists
    from ui.batch import profile_of

    profiles = Counter(profile_of(row, at_once) for row in rows)
    if not rows or not store_exists():
        return 0.0, len(rows)
    jobs = open_jobs()
    each = {profile: jobs.typical_seconds(profile) for profile in profiles}
    seconds = sum((each[profile] or 0.0) * n for profile, n in profiles.items())
    beside = min(at_once, len(rows))
    return seconds / beside, sum(n for profile, n in profiles.items() if each[profile] is None)


def _matrix(rows: Sequence[BatchRow]) -> str:
    """Return what varies and how often, for instance `10 concepts, 2 models, 2 seeds`."""
    distinct: dict[str, set[Any]] = {}
    for row in rows:
        for name, value in row.settings().items():
            distinct.setdefault(name, set()).add(value)
    varied = [f"{len(values):,} x {name}" for name, values in distinct.items() if len(values) > 1]
    return ", ".join(varied) or "1 design"


def _run(
    rows: list[BatchRow],
    out: Path,
    asked: Mapping[str, object],
    hands: _Hands,
    answer: Answer,
    *,
    retry: bool,
    zipped: bool,
) -> None:
    from contextlib import closing

    from orbweave.jobs import open_jobs
    from ui.batch import plan_batch
    from ui.batch_report import write_report

    jobs = open_jobs()
    with closing(jobs.store):
        number = plan_batch(jobs, out, rows, asked, at_once=hands.at_once)
        rows.clear()  # the store has them now
        if retry and {"failed", "cancelled"} & jobs.tally(number).keys():
            jobs.steer(number, "retry")
        answer.note(f"batch {number}: {_told(jobs.tally(number))}; `orbweave jobs watch {number}`")
        try:
            tally = _work(jobs, number, hands, quiet=answer.quiet)
        except KeyboardInterrupt:
            if jobs.tally(number).get("done"):
                answer.note("stopped; writing the tables of what is done")
                write_report(jobs, number, out)
            raise
        written = write_report(jobs, number, out, zipped=zipped)
        failures = jobs.find(batch=number, states=["failed"])
    for job in failures[:SHOWN]:
        answer.note(f"row {job.parameters['number']} failed: {job.error}")
    answer.end(_document(number, out, tally, failures, written), _last_line(out, tally))
    if tally.get("done", 0) < sum(tally.values()):
        raise typer.Exit(1)


def _work(jobs: Jobs, batch: int, hands: _Hands, *, quiet: bool) -> dict[State, int]:
    """Make the rows here or on a cluster; return how many are in each state."""
    from ui.bar import bar

    with bar("batch", "row") as drawn:

        def on_progress(done: int, total: int, eta_s: float | None) -> None:
            if not quiet:
                drawn(done, total)

        if hands.ray is None:
            from ui.batch import work_on

            return work_on(jobs, batch, maker(), at_once=hands.at_once, on_progress=on_progress)
        from ui.cluster import work_on_cluster

        return work_on_cluster(
            jobs,
            batch,
            maker,
            address=hands.ray,
            per_node=hands.engines_per_node,
            at_once=hands.at_once,
            on_progress=on_progress,
        )


def maker() -> MakeRow:
    """Return what makes rows; nothing is loaded before the first."""
    from agents.embedding import MiniLM
    from ui import design
    from ui.maker import Maker

    return Maker(design.workshop(lambda text: None, MiniLM()))


def _told(tally: Mapping[State, int]) -> str:
    """Return the states of the rows, for instance `40 rows: 38 done, 2 failed`."""
    states = ", ".join(f"{n:,} {state}" for state, n in tally.items())
    return f"{sum(tally.values()):,} rows: {states}"


def _last_line(out: Path, tally: Mapping[State, int]) -> str:
    again = " and ".join(state for state in ("failed", "cancelled") if tally.get(state))
    hint = f"; --retry tries {again} rows again" if again else ""
    if tally.get("paused"):
        hint += "; `orbweave jobs resume` lets paused rows go on"
    return f"{_told(tally)}; batch written to {out}{hint}"


def _document(
    number: int,
    out: Path,
    tally: Mapping[State, int],
    failures: Sequence[Job],
    written: Sequence[Path],
) -> dict[str, Any]:
    return {
        "written": str(out),
        "job": number,
        "rows": dict(tally),
        "failures": [{"row": job.parameters["number"], "error": job.error} for job in failures],
        "files": [str(path) for path in written],
    }
