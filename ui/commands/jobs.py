"""`orbweave jobs ...`: what is planned, under way and done; pause, resume, retry, cancel."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ui.commands import options

if TYPE_CHECKING:
    from orbweave.job import Job
    from orbweave.jobs import Jobs, Move

__all__ = ["application"]

LARGEST = 2**31 - 1
"""What PostgreSQL takes as an integer."""
Number = Annotated[int, typer.Argument(metavar="JOB", help="Its number in the list.", max=LARGEST)]
POLL_S = 1.0
"""How often `watch` looks."""
SHOWN_EVENTS = 20


def application() -> typer.Typer:
    """Return the group of commands about jobs."""
    app = typer.Typer(
        help="What is planned, under way and done: list, show, pause, resume, retry, cancel.",
        rich_markup_mode=None,
    )
    app.callback(invoke_without_command=True)(_group)
    app.command("list")(list_all)
    app.command("show")(show)
    app.command("pause")(pause)
    app.command("resume")(resume)
    app.command("retry")(retry)
    app.command("cancel")(cancel)
    app.command("move")(move)
    app.command("watch")(watch)
    app.command("rebuild")(rebuild)
    return app


def _group(context: typer.Context) -> None:
    """What is planned, under way and done."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def list_all(
    batch: Annotated[
        int | None,
        typer.Option(help="Show the rows of this batch.", max=LARGEST, show_default=False),
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(help="Only jobs in this state; may be repeated.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Lines at most; 0 shows all.")] = 50,
    as_json: options.Json = False,
) -> None:
    """List the jobs, a batch as one line.

    Example: orbweave jobs list --batch 3 --state failed
    """
    from orbweave.errors import UsageError
    from orbweave.job import STATES
    from ui.answer import Answer
    from ui.commands.choice import one_of

    states = [one_of("--state", name, STATES) for name in state or ()]
    jobs = _opened()
    if batch is not None and (known := jobs.get(batch)).kind != "batch":
        raise UsageError(
            f"wanted a batch, job {batch} is a {known.kind}; `orbweave jobs show {batch}` shows it"
        )
    found = jobs.find(batch=batch, states=states)
    shown = found[:limit] if limit else found
    answer = Answer(as_json=as_json)
    if not as_json:
        for job in shown:
            answer.line(_line(job, jobs))
    rest = f"; {len(found) - len(shown):,} more, --limit 0 shows all" if len(found) > limit else ""
    documents = [_document(job, jobs) for job in shown] if as_json else None
    answer.end(documents, f"{len(found):,} jobs in {jobs.store.place}{rest if limit else ''}")


def show(job: Number, as_json: options.Json = False) -> None:
    """Show everything that is known of a job.

    Example: orbweave jobs show 3
    """
    from ui.answer import Answer

    jobs = _opened()
    document = _document(jobs.get(job), jobs)
    document["events"] = [event._asdict() for event in jobs.events(job)[-SHOWN_EVENTS:]]
    answer = Answer(as_json=as_json)
    for name, value in document.items():
        if value not in (None, "", {}, []):
            answer.line(f"{name:<12}{_readable(name, value)}")
    answer.end(document)


def pause(job: Number, as_json: options.Json = False, quiet: options.Quiet = False) -> None:
    """Hold a job back; rows of a batch that are under way come to their end."""
    _steer(job, "pause", as_json=as_json, quiet=quiet)


def resume(job: Number, as_json: options.Json = False, quiet: options.Quiet = False) -> None:
    """Let a paused job, or the paused rows of a batch, go on."""
    _steer(job, "resume", as_json=as_json, quiet=quiet)


def retry(job: Number, as_json: options.Json = False, quiet: options.Quiet = False) -> None:
    """Put a failed or cancelled job, or such rows of a batch, into the queue again."""
    _steer(job, "retry", as_json=as_json, quiet=quiet)


def cancel(job: Number, as_json: options.Json = False, quiet: options.Quiet = False) -> None:
    """Give a job up; one that runs is stopped within seconds and leaves nothing half made."""
    _steer(job, "cancel", as_json=as_json, quiet=quiet)


def move(
    job: Number,
    priority: Annotated[
        int | None,
        typer.Option(
            help="Put it among these; the smallest first.",
            min=-LARGEST,
            max=LARGEST,
            show_default=False,
        ),
    ] = None,
    first: Annotated[
        bool | None,
        typer.Option("--first/--last", help="Put it before or behind all others there."),
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Put a job elsewhere in the order.

    Example: orbweave jobs move 7 --first
    """
    from orbweave.errors import UsageError
    from ui.answer import Answer

    if priority is None and first is None:
        raise UsageError("wanted a place for the job, got none; give --first, --last or --priority")
    jobs = _opened()
    moved = jobs.move(job, priority=priority, first=first)
    document = _document(moved, jobs)
    jobs.store.close()
    answer = Answer(as_json=as_json, quiet=quiet)
    answer.end(document, f"job {job} has priority {moved.priority}")


def watch(job: Number, as_json: options.Json = False, quiet: options.Quiet = False) -> None:
    """Follow a job until it rests; the exit code is 1 if it failed.

    Example: orbweave jobs watch 3
    """
    from ui.answer import Answer
    from ui.bar import bar

    jobs = _opened()
    answer = Answer(as_json=as_json, quiet=quiet)
    with bar(f"job {job}", "step") as drawn:
        last = ""
        for known in _until_at_rest(job, jobs):
            line, (done, total) = _line(known, jobs), _progress(known, jobs)
            if total and not quiet:
                drawn(done, total)
            if line != last and not answer.is_terse:
                answer.note(line)
            last = line
    answer.end(_document(known, jobs), _line(known, jobs))
    if known.state == "failed":
        raise typer.Exit(1)


def rebuild(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[DIR]...",
            help="Folders with designs [default: those noted beside the store].",
            show_default=False,
        ),
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Read the whole store for damage, and put designs into it that it does not know.

    A store that is found damaged, here or by another command, is moved aside and filled anew.

    Example: orbweave jobs rebuild designs batches/silk
    """
    from orbweave.errors import UsageError
    from orbweave.jobs import rebuild as fill
    from ui.answer import Answer

    for folder in folders or ():
        if not folder.is_dir():
            raise UsageError(f"wanted a folder with designs, found none at {folder}")
    jobs = _opened(check=True)
    meant = [folder.absolute() for folder in folders or ()] or jobs.store.folders()
    if not meant:
        raise UsageError(
            f"wanted folders with designs, none is noted beside {jobs.store.place}; name them"
        )
    n = sum(fill(jobs, folder) for folder in meant)
    jobs.store.close()
    answer = Answer(as_json=as_json, quiet=quiet)
    document = {"found": n, "store": jobs.store.place, "folders": [str(each) for each in meant]}
    answer.end(document, f"{n} designs are in {jobs.store.place}")


def _opened(*, check: bool = False) -> Jobs:
    """Return the jobs as they are, those of dead workers back in the queue."""
    from orbweave.jobs import open_jobs
    from orbweave.leases import Leases
    from orbweave.worker import reap_dead

    jobs = open_jobs(check=check)
    reap_dead(Leases(jobs.store))
    return jobs


def _steer(job: int, how: Move, *, as_json: bool, quiet: bool) -> None:
    from ui.answer import Answer

    jobs = _opened()
    n = jobs.steer(job, how)
    known = jobs.get(job)
    document = _document(known, jobs)
    jobs.store.close()
    answer = Answer(as_json=as_json, quiet=quiet)
    rows = f" ({n} rows)" if known.kind == "batch" else ""
    asked = f", asked to {known.asked}" if known.asked else ""
    waits = how in ("resume", "retry") and known.kind in ("batch", "batch-row")
    hint = "; run the same `orbweave batch` again if no process is at it" if waits else ""
    answer.end(document, f"{how} job {job}{rows}: it is {known.state}{asked}{hint}")


def _until_at_rest(job: int, jobs: Jobs) -> Iterator[Job]:
    """Yield the job as it stands, every `POLL_S` seconds, last when nothing moves it any more."""
    while True:
        known = jobs.get(job)
        yield known
        if known.state not in ("queued", "running"):
            return
        time.sleep(POLL_S)


def _progress(job: Job, jobs: Jobs) -> tuple[int, int]:
    """Return (done, total); total is 0 where nobody knows."""
    if job.kind == "batch":
        tally = jobs.tally(job.id)
        return sum(tally.get(state, 0) for state in ("done", "failed")), sum(tally.values())
    latest = jobs.latest(job.id)
    return (latest.done, latest.total) if latest else (0, 0)


def _line(job: Job, jobs: Jobs) -> str:
    return f"{job.id:>6}  {job.kind:<9}  {job.state:<9}  {_how_far(job, jobs)}{_plain(job.label)}"


def _how_far(job: Job, jobs: Jobs) -> str:
    """Return how far a job is, with two blanks behind; empty where there is nothing to say."""
    from ui.duration import duration

    parts = []
    if job.kind == "batch":
        tally = jobs.tally(job.id)
        parts.append(f"{tally.get('done', 0)}/{sum(tally.values())}")
        parts += [f"{tally[name]} {name}" for name in ("failed", "paused") if tally.get(name)]
    if job.state == "running" and (latest := jobs.latest(job.id)):
        if job.kind != "batch" and latest.total:
            parts.append(f"{latest.done}/{latest.total}")
        if latest.note:
            parts.append(_plain(latest.note))
        if latest.eta_s is not None:
            parts.append(f"about {duration(latest.eta_s)} left")
    elif job.seconds is not None:
        parts.append(duration(job.seconds))
    if job.error:
        parts.append(_plain(job.error))
    return f"{', '.join(parts)}  " if parts else ""


def _document(job: Job, jobs: Jobs) -> dict[str, Any]:
    from dataclasses import asdict

    document = asdict(job)
    if job.kind == "batch":
        document["rows"] = jobs.tally(job.id)
    latest = jobs.latest(job.id) if job.state == "running" else None
    document["progress"] = latest._asdict() if latest else None
    return document


def _readable(name: str, value: Any) -> str:
    import json
    from datetime import datetime

    if name in {"created", "started", "finished", "lease_until"}:
        return datetime.fromtimestamp(value).isoformat(" ", "seconds")
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    return _plain(value)


def _plain(value: object) -> str:
    """Return a text without what could repaint a terminal."""
    return "".join(c if c.isprintable() else " " for c in str(value))
