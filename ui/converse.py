"""A script put to models: turns x models x seeds, kept turn by turn.

    OUT/
        run.json       script, models and seeds; what a later run in this folder must agree with
        turns.jsonl    one line a turn, written to the disk before the next is asked
        transcripts/   NAME.jsonl, NAME.md and NAME.tex for each model and seed
        images/        pictures of the turns marked `image: true`, if asked for

A run that was killed goes on where it stopped; turns that failed are asked again. A model that
fails ends its own interviews and nobody else's.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.generation import Engine
from agents.interview import interview
from agents.latex import latex
from agents.script import Script
from agents.transcript import SpokenTurn, Transcript, markdown
from orbweave.errors import OrbweaveError, OutputError
from orbweave.files import write_text
from orbweave.records import clean_concept
from ui.converse_folder import TURNS, Journal, file_stem, held
from ui.rendering import Chooser, Renderer, RenderSettings

__all__ = [
    "Drawing",
    "Interviewed",
    "Plan",
    "converse",
    "document",
    "prompt_in",
]

_log = logging.getLogger(__name__)

AT_ONCE = 16
"""Interviews of one model that go on together; the engine answers so many in one batch."""


@dataclass(frozen=True)
class Plan:
    """What is asked of whom."""

    script: Script
    models: tuple[str, ...]
    """Model references, none twice."""
    seeds: tuple[int, ...]
    """One interview of each model for each seed, none twice."""
    timeout_s: float = 900.0
    """Longest wait for one reply."""


@dataclass(frozen=True)
class Drawing:
    """How the image prompts are drawn."""

    renderer: Renderer
    settings: RenderSettings
    structure: Chooser


@dataclass(frozen=True)
class Interviewed:
    """What became of one model with one seed."""

    model: str
    seed: int
    outcome: str
    """`complete`, or the outcome of the turn at which it ended."""
    error: str
    n_turns: int
    """Turns with a reply."""
    json_status: tuple[str, ...]
    """Of the turns that wanted JSON, in order."""
    transcript: Path
    """The Markdown file; .tex and .jsonl stand beside it."""
    pictures: tuple[Path, ...] = ()
    picture_errors: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether every turn has a reply and every picture was drawn."""
        return self.outcome == "complete" and not self.picture_errors


def converse(
    plan: Plan,
    out: Path,
    open_engine: Callable[[str], Engine],
    *,
    drawing: Drawing | None = None,
    note: Callable[[str], None] = lambda text: None,
    on_turn: Callable[[SpokenTurn, int], None] = lambda turn, total: None,
    force: bool = False,
) -> list[Interviewed]:
    """Interview every model with every seed into a folder; go on with one that is there.

    Args:
        plan: What is asked of whom.
        out: The folder; made if need be.
        open_engine: From a model reference to its engine; closed here.
        drawing: Draws the image prompts; None draws nothing.
        note: Told what is being waited for.
        on_turn: Told each new turn, and how many the script has.
        force: Forget what an earlier run left there.

    Returns:
        One entry per model and seed, in the plan's order.

    Raises:
        OutputError: the folder is something else, or somebody else writes there.
        UsageError: it holds another script.
    """
    with held(plan, out, force=force):
        journal = Journal(out / TURNS)
        for model in plan.models:
            asyncio.run(_ask(plan, model, open_engine, journal, note, on_turn))
            for seed in plan.seeds:
                _write(plan.script, model, seed, journal, out)
        return [
            _closed(plan.script, model, seed, journal, out, drawing, note)
            for model in plan.models
            for seed in plan.seeds
        ]


def prompt_in(reply: str) -> str:
    """Return the image prompt a reply holds: one line without quotes, marks or a label.

    Raises:
        ConceptError: there are no words, or too many.
    """
    text = "".join(c if c.isprintable() else " " for c in reply)
    text = re.sub(r"[*#`_]{2,}|`", " ", text).strip()
    text = re.sub(r"^(short(er)? |image |detailed )*prompt\s*:", "", text, flags=re.I).strip()
    if len(text) > 1 and (text[0], text[-1]) in {('"', '"'), ("“", "”"), ("'", "'")}:
        text = text[1:-1]
    return clean_concept(text)


async def _ask(
    plan: Plan,
    model: str,
    open_engine: Callable[[str], Engine],
    journal: Journal,
    note: Callable[[str], None],
    on_turn: Callable[[SpokenTurn, int], None],
) -> None:
    """Hold all interviews of one model that are not finished."""
    total = len(plan.script.turns)
    waiting = [seed for seed in plan.seeds if len(journal.finished(model, seed)) < total]
    if not waiting:
        return

    def keep(turn: SpokenTurn) -> None:
        journal.add(turn)
        begun[turn.seed] = time.perf_counter()
        on_turn(turn, total)

    def fail(seed: int, error: str) -> None:
        """Keep the next turn of an interview as one that failed."""
        index = len(journal.finished(model, seed))
        keep(
            SpokenTurn(
                model=model,
                seed=seed,
                index=index,
                turn=plan.script.turns[index].name,
                outcome="failed",
                error=error,
                seconds=round(time.perf_counter() - begun[seed], 3),
            )
        )

    note(f"loading the language model {model}")
    begun = dict.fromkeys(waiting, time.perf_counter())  # of the turn that is being asked
    try:
        engine = open_engine(model)
    except Exception as err:
        _tell_failure(model, err)
        for seed in waiting:
            fail(seed, _reason(err))
        return
    places = asyncio.Semaphore(AT_ONCE)

    async def hold(seed: int) -> None:
        async with places:
            begun[seed] = time.perf_counter()
            try:
                await interview(
                    plan.script,
                    engine,
                    seed=seed,
                    done=journal.finished(model, seed),
                    keep=keep,
                    timeout_s=plan.timeout_s,
                )
            except OutputError:
                raise
            except Exception as err:
                _tell_failure(model, err)
                fail(seed, _reason(err))

    try:
        ends = await asyncio.gather(*map(hold, waiting), return_exceptions=True)
        for end in filter(None, ends):
            raise end
    finally:
        await engine.close()


def _reason(err: Exception) -> str:
    """Return what went wrong; what we did not foresee seldom says so by itself."""
    return str(err) if isinstance(err, OrbweaveError) else f"{type(err).__name__}: {err}"


def _tell_failure(model: str, err: BaseException) -> None:
    """Log what we did not foresee with its traceback; what a person can mend is in the record."""
    if not isinstance(err, OrbweaveError):
        _log.error("%s failed", model, exc_info=err)


def _transcript(
    script: Script, model: str, seed: int, journal: Journal, pictures: Sequence[Path] = ()
) -> Transcript:
    by_turn: dict[str, list[str]] = {}
    for path in pictures:
        turn = next(t.name for t in script.turns if path.stem == _picture_name(model, seed, t.name))
        by_turn.setdefault(turn, []).append(f"../images/{path.name}")
    return Transcript(script.name, model, seed, tuple(journal.of(model, seed)), by_turn)


def _write(
    script: Script,
    model: str,
    seed: int,
    journal: Journal,
    out: Path,
    pictures: Sequence[Path] = (),
) -> Path:
    """Write the three forms of one transcript and return the Markdown's path."""
    transcript = _transcript(script, model, seed, journal, pictures)
    stem = out / "transcripts" / file_stem(model, seed)
    lines = "".join(turn.model_dump_json() + "\n" for turn in transcript.turns)
    write_text(Path(f"{stem}.jsonl"), lines)
    write_text(Path(f"{stem}.tex"), latex(transcript))
    write_text(Path(f"{stem}.md"), markdown(transcript))
    return Path(f"{stem}.md")


def _closed(
    script: Script,
    model: str,
    seed: int,
    journal: Journal,
    out: Path,
    drawing: Drawing | None,
    note: Callable[[str], None],
) -> Interviewed:
    """Return what became of an interview, after its pictures were drawn."""
    turns = journal.of(model, seed)
    finished = journal.finished(model, seed)
    last = turns[-1]
    is_whole = len(finished) == len(script.turns)
    errors: list[str] = []
    if drawing is not None:
        errors = _draw(script, finished, out / "images", drawing, note)
    pictures = _pictures(script, model, seed, out)
    return Interviewed(
        model=model,
        seed=seed,
        outcome="complete" if is_whole else last.outcome,
        error=last.error,
        n_turns=len(finished),
        json_status=tuple(t.json_reply.status for t in finished if t.json_reply is not None),
        transcript=_write(script, model, seed, journal, out, pictures),
        pictures=tuple(pictures),
        picture_errors=tuple(errors),
    )


def _draw(
    script: Script,
    finished: Sequence[SpokenTurn],
    folder: Path,
    drawing: Drawing,
    note: Callable[[str], None],
) -> list[str]:
    """Draw the image prompts whose pictures are not there yet; return what went wrong."""
    errors = []
    for turn in finished:
        name = _picture_name(turn.model, turn.seed, turn.turn)
        if not script.turns[turn.index].image or (folder / f"{name}.png").is_file():
            continue
        note(f"rendering {turn.turn} of {turn.model}, seed {turn.seed}")
        try:
            words = prompt_in(turn.reply)
            structure = drawing.structure(words, turn.seed)
            request = drawing.settings.request(words, "", structure, (turn.seed,))
            drawing.renderer.render(request, folder, name=name)
        except OrbweaveError as err:
            errors.append(f"{turn.turn}: {err}")
    return errors


def _picture_name(model: str, seed: int, turn: str) -> str:
    return f"{file_stem(model, seed)}-{turn}"


def _pictures(script: Script, model: str, seed: int, out: Path) -> list[Path]:
    names = [_picture_name(model, seed, turn.name) for turn in script.turns if turn.image]
    paths = [out / "images" / f"{name}.png" for name in names]
    return [path for path in paths if path.is_file()]


def document(plan: Plan, out: Path, held: Sequence[Interviewed]) -> dict[str, Any]:
    """Return what a run did, as JSON."""
    return {
        "written": str(out),
        "script": plan.script.name,
        "interviews": [
            {
                "model": each.model,
                "seed": each.seed,
                "outcome": each.outcome,
                "error": each.error,
                "turns": each.n_turns,
                "json": list(each.json_status),
                "transcript": str(each.transcript),
                "pictures": [str(path) for path in each.pictures],
                "picture_errors": list(each.picture_errors),
            }
            for each in held
        ],
        "incomplete": sum(not each.is_complete for each in held),
    }
