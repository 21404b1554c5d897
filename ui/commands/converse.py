"""`orbweave converse SCRIPT`: the same turns put to many models with many seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orbweave.errors import Cancelled, OrbweaveError
from ui.commands import options

if TYPE_CHECKING:
    from agents.generation import Engine
    from agents.transcript import SpokenTurn
    from ui.answer import Answer
    from ui.converse import Drawing, Interviewed, Plan
    from ui.rendering import RenderSettings

__all__ = ["converse", "engine_opener", "listed", "model_faults"]

PARENT = Path("interviews")
"""Where transcripts go without --out."""
MAX_SEED = 2**32


def converse(
    script: Annotated[
        str,
        typer.Argument(
            metavar="SCRIPT",
            help="A YAML file, or a shipped script: architecture, city, collagen-leaf, "
            "microstructure, prompt-three-turns, prompt-two-turns.",
            show_default=False,
        ),
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="REF",
            help="Language model to ask; may be repeated [default: the script's].",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(
            "--seed",
            help="One interview of each model for each; may be repeated [default: 0].",
            show_default=False,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=TEXT",
            help="Put a text into a field of the script; may be repeated.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder to write; an earlier run there is gone on with "
            "[default: interviews/SCRIPT].",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.01, help="Longest wait for one reply, in seconds.")
    ] = 900.0,
    render: Annotated[
        bool, typer.Option("--render", help="Draw the prompts of the turns marked as images.")
    ] = False,
    structure: options.StructureSource = "auto",
    strength: options.Strength = None,
    scheduler: options.Scheduler = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    size: options.Size = None,
    image_model: options.ImageModel = "loom",
    force: Annotated[
        bool, typer.Option("--force", help="Forget an earlier run in the folder.")
    ] = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Put a script's turns to models; write transcripts as JSONL, Markdown and LaTeX.

    Exits with 1 if an interview is not complete.
    Example: orbweave converse collagen-leaf -m base -m generalist --seed 0 --seed 1
    """
    from orbweave.errors import UsageError
    from orbweave.logbook import logged
    from ui.answer import Answer
    from ui.converse import converse as held_by
    from ui.converse import document
    from ui.progress import both
    from ui.rendering import RenderSettings, chooser_for, parse_size
    from ui.target import slug

    seeds = tuple(seed if seed else [0])
    plan, faults = _plan(script, model, seeds, set_ or [], timeout)
    try:
        settings = RenderSettings(
            image_model, strength, scheduler, steps, guidance, parse_size(size)
        )
        settings.request("checked before the long part", "", None, (0,))
        chooser_for(structure)
    except UsageError as err:
        faults.append(str(err))
    if plan is None or faults:
        raise UsageError(listed(faults))
    target = out or PARENT / slug(plan.script.name)
    answer = Answer(as_json=as_json, quiet=quiet)
    if dry_run:
        _tell_plan(plan, target, answer)
        return
    with logged("converse", plan.script.name, target) as entry:
        note = both(answer.note, entry.note)
        try:
            held = held_by(
                plan,
                target,
                engine_opener(note),
                drawing=_drawing(settings, structure) if render else None,
                note=note,
                on_turn=lambda turn, total: note(_turn_line(turn, total)),
                force=force,
            )
        except KeyboardInterrupt:
            held = None
        if held is None:  # out here, or the interrupt would be our error's context and be told
            raise Cancelled(
                f"interrupted; finished turns are kept in {target}, run it again to go on"
            )
    for each in held:
        answer.line(_line(each, len(plan.script.turns)))
    incomplete = [each for each in held if not each.is_complete]
    answer.end(document(plan, target, held), f"transcripts written to {target}")
    if incomplete:
        raise InterviewsIncomplete(
            f"wanted {len(held)} complete interviews, {len(incomplete)} are not: "
            f"{_reasons(incomplete)}; run it again to ask what is missing"
        )


class InterviewsIncomplete(OrbweaveError):
    """Some interview ended early or a picture is missing; all that was said is kept."""


def _plan(
    script: str,
    models: list[str] | None,
    seeds: Sequence[int],
    given: Sequence[str],
    timeout: float,
) -> tuple[Plan | None, list[str]]:
    """Return the plan, or None and every fault of the call."""
    from agents.script import check_script
    from ui.converse import Plan

    faults: list[str] = []
    fields: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if equals and name.strip():
            fields[name.strip()] = value
        else:
            faults.append(f"wanted --set FIELD=TEXT, got {text!r}")
    found, script_faults = check_script(script, fields)
    faults += script_faults
    refs = tuple(models) if models is not None else (found.models if found else ())
    faults += model_faults(refs)
    strange = [seed for seed in seeds if not 0 <= seed < MAX_SEED]
    if strange:
        faults.append(f"wanted seeds from 0 to {MAX_SEED - 1:,}, got {strange[0]}")
    if len(set(seeds)) < len(seeds):
        faults.append("wanted each --seed once, got one twice")
    if found is None or faults:
        return None, faults
    return Plan(found, refs, tuple(seeds), timeout), []


def model_faults(refs: Sequence[str]) -> list[str]:
    """Return what is wrong with model references, before any is opened."""
    from orbweave.models import ModelRef

    faults = []
    for ref in refs:
        try:
            ModelRef.parse(ref)
        except OrbweaveError as err:
            faults.append(str(err))
    if len({ref.strip() for ref in refs}) < len(refs):
        faults.append("wanted each model once, got one twice")
    return faults


def listed(faults: Sequence[str]) -> str:
    """Return all faults in one message, numbered if there are several."""
    if len(faults) == 1:
        return faults[0]
    numbered = "; ".join(f"({i}) {fault}" for i, fault in enumerate(faults, 1))
    return f"{len(faults)} faults: {numbered}"


def engine_opener(note: Callable[[str], None]) -> Callable[[str], Engine]:
    """Return what opens a model reference; the libraries are imported at the first call."""

    def open_engine(model: str) -> Engine:
        from agents.embedding import MiniLM
        from ui.design import workshop

        return workshop(note, MiniLM()).open_engine(model)

    return open_engine


def _drawing(settings: RenderSettings, structure: str) -> Drawing:
    from imagegen.pipeline import Renderer
    from ui.converse import Drawing
    from ui.rendering import chooser_for

    return Drawing(Renderer(), settings, chooser_for(structure))


def _tell_plan(plan: Plan, target: Path, answer: Answer) -> None:
    told = {
        "script": plan.script.name,
        "turns": [turn.name for turn in plan.script.turns],
        "fields": dict(plan.script.fields),
        "models": list(plan.models),
        "seeds": list(plan.seeds),
        "out": str(target),
    }
    for name, value in told.items():
        answer.line(f"{name}: {value}")
    answer.end(told, f"dry run: would write {len(plan.models) * len(plan.seeds)} transcripts")


def _turn_line(turn: SpokenTurn, total: int) -> str:
    from agents.transcript import said_of

    said = said_of(turn) or "answered"
    spent = f"{turn.seconds:.1f} s"
    spent = f", {turn.n_tokens} tokens in {spent}" if turn.is_finished else f" (after {spent})"
    return f"{turn.model}, seed {turn.seed}, {turn.index + 1}/{total} {turn.turn}: {said}{spent}"


def _line(held: Interviewed, total: int) -> str:
    json = f", JSON {' '.join(held.json_status)}" if held.json_status else ""
    drawn = f", {len(held.pictures)} pictures" if held.pictures else ""
    why = "" if held.is_complete else f" ({_why(held)})"
    return f"{held.transcript}: {held.n_turns}/{total} turns{json}{drawn}, {held.outcome}{why}"


def _reasons(incomplete: Sequence[Interviewed]) -> str:
    """Return every different reason, the commonest first, with whom it befell."""
    befell: dict[str, list[str]] = {}
    for held in incomplete:
        befell.setdefault(_why(held), []).append(f"{held.model}, seed {held.seed}")
    return "; ".join(
        f"{who[0]}{f' and {len(who) - 1} more' if len(who) > 1 else ''}: {why}"
        for why, who in sorted(befell.items(), key=lambda item: -len(item[1]))
    )


def _why(held: Interviewed) -> str:
    return held.error or "; ".join(held.picture_errors) or held.outcome
