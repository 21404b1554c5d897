"""What is judged: answers out of interviews, designs, or a file of lines.

RUN        a folder of `orbweave converse`, a design folder, a folder of designs, or a JSONL
           file of {"model", "question", "answer"}
NAME=RUN   the same, with NAME in the place of its models
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from agents.judge import Answer
from agents.script import Script
from orbweave.errors import OrbweaveError, shown
from orbweave.records import Design
from ui.converse_folder import RUN, TURNS, is_run, read_turns
from ui.design import is_design

__all__ = ["read_answers"]


def read_answers(sources: Sequence[str], turn: str | None = None) -> tuple[list[Answer], list[str]]:
    """Return the answers of all sources and every fault found.

    Args:
        sources: As typed.
        turn: Of interviews only the reply to this turn; None takes all their turns together.
    """
    answers: list[Answer] = []
    faults: list[str] = []
    for source in sources:
        name, path = _split(source)
        try:
            found, wrong = _of_one(path, turn)
        except (OrbweaveError, OSError, UnicodeDecodeError) as err:
            found, wrong = [], [f"wanted answers in {path}, {shown(err, 200)}"]
        answers += [a.model_copy(update={"model": name}) if name else a for a in found]
        faults += wrong
    return answers, faults


def _split(source: str) -> tuple[str, Path]:
    name, equals, rest = source.partition("=")
    if equals and not Path(source).exists():
        return name.strip(), Path(rest)
    return "", Path(source)


def _of_one(path: Path, turn: str | None) -> tuple[list[Answer], list[str]]:
    if path.is_file():
        return _of_lines(path)
    if is_run(path):
        return _of_interviews(path, turn)
    folders = [path] if is_design(path) else [p.parent for p in sorted(path.rglob("design.json"))]
    if not folders:
        return [], [
            f"wanted a folder of interviews or designs or a JSONL file, got {shown(path)}; "
            f"{'nothing of the kind is in it' if path.is_dir() else 'there is no such place'}"
        ]
    found, faults = [], []
    for folder in folders:
        try:
            design = Design.model_validate_json((folder / "design.json").read_text("utf-8"))
            found.append(_of_design(design))
        except ValidationError as err:
            faults.append(f"wanted a design in {folder}, {shown(err, 120)}")
    return found, faults


def _of_lines(path: Path) -> tuple[list[Answer], list[str]]:
    found, faults = [], []
    for number, line in enumerate(path.read_text("utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            found.append(Answer.model_validate(json.loads(line)))
        except ValidationError as err:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in err.errors())
            faults.append(f"line {number} of {path}: {wrong}")
        except (ValueError, RecursionError) as err:
            faults.append(f"line {number} of {path}: {shown(err)}")
    return found, faults or ([] if found else [f"wanted answers in {path}, found none"])


def _of_interviews(path: Path, turn: str | None) -> tuple[list[Answer], list[str]]:
    """Return the answers of every model and seed whose turns are all there."""
    try:
        run = json.loads((path / RUN).read_text("utf-8"))
        script = Script.model_validate(run["script"])
    except (ValueError, KeyError, TypeError) as err:
        return [], [f"wanted the script of the interviews in {path / RUN}, {shown(err, 120)}"]
    names = [each.name for each in script.turns]
    if turn is not None and turn not in names:
        return [], [f"wanted a turn of {path} ({', '.join(names)}), got {shown(turn)}"]
    last = len(names) - 1 if turn is None else names.index(turn)
    places = [f"[reply {n}]" for n in range(1, len(names) + 1)]
    asks = [script.ask_of(each, places[:i]).strip() for i, each in enumerate(script.turns)]
    replies: dict[tuple[str, int], dict[int, str]] = {}
    for spoken in read_turns(path / TURNS):
        if spoken.is_finished:
            replies.setdefault((spoken.model, spoken.seed), {})[spoken.index] = spoken.reply
    found = [
        Answer(
            model=model,
            question=_numbered(asks[: last + 1]),
            answer=said[last].strip() if turn else _numbered([said[i] for i in range(last + 1)]),
            round=str(seed),
        )
        for (model, seed), said in replies.items()
        if all(i in said for i in range(last + 1))
    ]
    return found, [] if found else [f"wanted complete interviews in {path}, found none"]


def _of_design(design: Design) -> Answer:
    """Return what a team said, and the prompt it came to."""
    models = dict.fromkeys(turn.model for turn in design.turns)
    named = [(turn.speaker.replace("_", " ").capitalize(), turn.text) for turn in design.turns]
    said = [f"{speaker}: {text.strip()}" for speaker, text in named]
    final = design.prompts[-1].prompt if design.prompts else ""
    return Answer(
        model=", ".join(models),
        question=f"Design and describe: {design.brief.concept}",
        answer="\n\n".join([*said, f"Image prompt: {final}"]),
        round=str(design.brief.seed),
    )


def _numbered(texts: Sequence[str]) -> str:
    """Return texts under their numbers; a single one as it is."""
    if len(texts) == 1:
        return texts[0].strip()
    return "\n\n".join(f"{n}. {text.strip()}" for n, text in enumerate(texts, 1))
