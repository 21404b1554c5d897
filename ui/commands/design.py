"""`orbweave design CONCEPT`: the main job."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orbweave.errors import Cancelled, EngineError, OrbweaveError, UsageError, shown
from orbweave.records import DOMAINS, SCALES, Brief, Design, Targets, clean_concept
from ui.commands import options
from ui.commands.choice import one_of

if TYPE_CHECKING:
    from agents.embedding import Embed
    from agents.events import Event
    from agents.roles import Team
    from orbweave.logbook import Entry
    from ui.answer import Answer
    from ui.design import Order
    from ui.unfinished import Unfinished

__all__ = ["design"]

PARENT = Path("designs")
"""Where designs go without --out."""
WITH_RESUME = frozenset({"resume", "model", "force", "dry_run", "as_json", "quiet"})
"""Options that make sense for a design that was begun; all others were fixed then."""


def design(
    context: typer.Context,
    concept: Annotated[
        str | None,
        typer.Argument(metavar="CONCEPT", help="What to design, in words.", show_default=False),
    ] = None,
    images: options.Images = 2,
    rounds: Annotated[
        int,
        typer.Option(min=1, max=10, help="Prompt versions at most; the critic may stop earlier."),
    ] = 1,
    seed: options.Seed = 0,
    out: options.Out = None,
    scale: Annotated[str, typer.Option(help=f"One of {', '.join(SCALES)}.")] = SCALES[0],
    domains: Annotated[
        str,
        typer.Option(
            help=f"Experts to ask, with commas between: {', '.join(DOMAINS)} "
            "[default: chosen by retrieval].",
            show_default=False,
        ),
    ] = "",
    solid_fraction: options.SolidFraction = None,
    direction: options.Direction = None,
    spacing: options.Spacing = None,
    structure: options.StructureSource = "auto",
    strength: options.Strength = None,
    scheduler: options.Scheduler = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    size: options.Size = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Language model of every speaker: a catalogue name, a folder or org/name "
            "[default: each role's own].",
            show_default=False,
        ),
    ] = None,
    team: Annotated[
        str, typer.Option(help="Who talks: a shipped team, for instance experts, or a YAML file.")
    ] = "default",
    facts: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="CORPUS",
            help="Facts of your own beside the shipped ones: a folder made by orbweave ingest, or "
            "a JSONL file of facts; may be given more than once.",
            show_default=False,
        ),
    ] = None,
    image_model: options.ImageModel = "loom",
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Go on with an unfinished design, as it was asked for then; --model lets "
            "another model speak from here on.",
            show_default=False,
        ),
    ] = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Let a team of experts talk about a concept, draw what they find, keep it in a folder.

    Example: orbweave design "a filter membrane that combines spider silk and leaf veins"
    """
    from agents.corpora import read_corpora
    from agents.embedding import MiniLM
    from agents.roles import load_team
    from imagegen.drawing import check_steps
    from orbweave.logbook import logged
    from orbweave.models import ModelRef
    from ui.answer import Answer
    from ui.design import Order
    from ui.rendering import RenderSettings, chooser_for, parse_size
    from ui.target import default_folder
    from ui.unfinished import Unfinished

    answer = Answer(as_json=as_json, quiet=quiet)
    if resume is not None:
        _refuse_others(context)
        _resume(resume, answer, model, force=force, dry_run=dry_run)
        return
    if concept is None:
        raise UsageError("wanted a CONCEPT, got none; say what to design, or give --resume DIR")
    brief = Brief(
        concept=clean_concept(concept),
        scale=one_of("--scale", scale, SCALES),
        domains=tuple(
            one_of("--domains", d.strip(), DOMAINS) for d in domains.split(",") if d.strip()
        ),
        targets=Targets(
            solid_fraction=solid_fraction,
            direction_deg=None if direction is None else direction % 180,
            spacing_px=spacing,
        ),
        seed=seed,
    )
    settings = RenderSettings(image_model, strength, scheduler, steps, guidance, parse_size(size))
    request = settings.request("checked before the long part", "", None, (seed,))
    if structure != "none":
        check_steps(request)
    if model is not None:
        ModelRef.parse(model)
    speakers = load_team(Path(team) if team.endswith((".yaml", ".yml")) else team)
    corpora = [path.absolute() for path in facts or ()]
    read_corpora(corpora)  # checked before the long part
    embed = MiniLM()
    order = Order(brief, rounds, images, settings, model, chooser_for(structure))
    target = out or default_folder(PARENT, brief.concept, seed)
    if dry_run:
        _plan(order, target, structure, corpora, answer)
        return
    asked = {
        "images": images,
        "model": model,
        "team": speakers.model_dump(mode="json"),
        "structure": structure
        if structure in ("auto", "none")
        else str(Path(structure).absolute()),
        "settings": asdict(settings),
        "facts": [str(path) for path in corpora],
    }
    work = Unfinished.begin(target, asked, force=force)
    with logged("design", brief.concept, target) as entry:
        _run(order, work, embed, answer, entry, speakers, force=force)


def _refuse_others(context: typer.Context) -> None:
    """Refuse options that were fixed when the design began."""
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name is not None and parameter.name not in WITH_RESUME
        if getattr(context.get_parameter_source(parameter.name), "name", "") == "COMMANDLINE"
    ]
    if given:
        raise UsageError(
            f"wanted --resume alone, got {', '.join(given)} too; these were fixed when the design "
            "began, leave them out"
        )


def _resume(place: Path, answer: Answer, model: str | None, *, force: bool, dry_run: bool) -> None:
    """Go on with an unfinished design, by another model if one is given."""
    from agents.embedding import MiniLM
    from orbweave.logbook import logged
    from ui.unfinished import Unfinished

    work = Unfinished.find(place, force=force)
    if model is not None:
        work = _by_another(work, model)
    assert work.state is not None
    embed = MiniLM()
    order = _order(work)
    if dry_run:
        steps = [step.kind for step in work.state.steps]
        plan = {"brief": order.brief.model_dump(mode="json"), "steps": steps}
        answer.line(f"there already: {', '.join(steps) or 'nothing'}")
        answer.end(plan | {"out": str(work.target)}, f"dry run: would write {work.target}")
        return
    with logged("design", order.brief.concept, work.target) as entry:
        _run(order, work, embed, answer, entry, work.state.team, force=force)


def _by_another(work: Unfinished, model: str) -> Unfinished:
    """Return an unfinished design whose turns that are still to come another model speaks.

    Raises:
        UsageError: the reference or the team that was asked for cannot be understood.
    """
    from pydantic import ValidationError

    from agents.roles import Team
    from orbweave.models import ModelRef
    from ui.design import team_with

    assert work.state is not None
    ModelRef.parse(model)
    try:
        # As it was read, with the examples that the models so far may have done without.
        team = Team.model_validate(work.asked["team"]) if "team" in work.asked else work.state.team
    except ValidationError as err:
        raise _broken_order(work, err) from err
    recasts = tuple(each.model_copy(update={"model": None}) for each in work.state.recasts)
    state = work.state.model_copy(update={"team": team_with(team, model), "recasts": recasts})
    return replace(work, state=state, asked={**work.asked, "model": model})


def _broken_order(work: Unfinished, err: Exception) -> UsageError:
    return UsageError(
        f"wanted what was asked for in {work.folder}, it is broken ({shown(err, 120)}); begin anew"
    )


def _order(work: Unfinished) -> Order:
    """Return the order of an unfinished design.

    Raises:
        UsageError: what was asked for cannot be understood, or its structure file is gone.
    """
    from ui.design import Order
    from ui.rendering import RenderSettings, chooser_for

    assert work.state is not None
    asked, state = work.asked, work.state
    try:
        size = asked["settings"]["size_px"]  # JSON has lists where we have tuples
        settings = RenderSettings(
            **asked["settings"] | {"size_px": None if size is None else (size[0], size[1])}
        )
        chooser = chooser_for(asked["structure"])
        return Order(state.brief, state.rounds, asked["images"], settings, asked["model"], chooser)
    except (KeyError, TypeError) as err:
        raise _broken_order(work, err) from err


def _plan(
    order: Order, target: Path, structure: str, corpora: Sequence[Path], answer: Answer
) -> None:
    """Say what a run would do, after all checks that need no model."""
    plan: dict[str, Any] = {
        "brief": order.brief.model_dump(mode="json"),
        "rounds": order.rounds,
        "images": order.n_images,
        "model": order.model,
        "image_model": order.settings.model,
        "structure": structure,
        "facts": [str(path) for path in corpora],
        "out": str(target),
    }
    for name, value in plan.items():
        answer.line(f"{name}: {value}")
    answer.end(plan, f"dry run: would write {target}")


def _run(
    order: Order,
    work: Unfinished,
    embed: Embed,
    answer: Answer,
    entry: Entry,
    team: Team,
    *,
    force: bool,
) -> None:
    from ui.unfinished import Busy

    failure: OrbweaveError | KeyboardInterrupt
    try:
        record = _made(order, work, embed, answer, entry, team, force=force)
    except Busy:
        raise  # what is kept there is another process's
    except (OrbweaveError, KeyboardInterrupt) as err:
        if not work.is_kept:
            raise
        failure = err
    else:
        _tell(record, work.target, answer)
        return
    # Out here, or the interrupt would hang on to our error as its context and be told instead.
    how = f"what was said so far is kept, go on with: orbweave design --resume {_quoted(work)}"
    if isinstance(failure, KeyboardInterrupt):
        raise Cancelled(f"interrupted; {how}")
    if isinstance(failure, EngineError):
        how = f"{how} (--model REF lets another model speak)"
    failure.args = (f"{failure}; {how}",)
    raise failure


def _quoted(work: Unfinished) -> str:
    return shlex.quote(str(work.folder))


def _tell(record: Design, target: Path, answer: Answer) -> None:
    for picture in record.pictures:
        answer.line(str(target / picture.path))
    answer.line(f"report: {target / 'report.html'}")
    answer.end(_document(record, target), f"design written to {target}")


def _made(
    order: Order,
    work: Unfinished,
    embed: Embed,
    answer: Answer,
    entry: Entry,
    team: Team,
    *,
    force: bool,
) -> Design:
    from ui.design import design as make
    from ui.design import workshop
    from ui.progress import both, told_to

    corpora = [Path(path) for path in work.asked.get("facts", ())]

    def run(note: Callable[[str], None], on_event: Callable[[Event], None]) -> Design:
        shop = workshop(note, embed, team, corpora)
        return make(order, work.target, shop, on_event=on_event, force=force, unfinished=work)

    told = told_to(entry.report)
    if answer.is_terse:
        return run(answer.note if answer.as_json else (lambda text: None), told)
    from ui.terminal import TerminalView

    with TerminalView() as view:
        view.begin(order.brief)
        if work.state is not None:
            from agents.recording import events_of

            for event in events_of(work.state):
                view.on_event(event)
        return run(view.note, both(view.on_event, told))


def _document(record: Design, target: Path) -> dict[str, Any]:
    return {"written": str(target), "design": record.model_dump(mode="json")}
