"""The folder of interviews: who may write there, what was asked, what was said so far.

    with held(plan, out, force=False):
        journal = Journal(out / TURNS)
        journal.add(turn)

Another process is kept out for as long, and a killed one leaves all but the line it was writing.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from agents.transcript import SpokenTurn
from orbweave.errors import OutputError, UsageError, shown
from orbweave.files import append_line, check_output, write_text
from ui.environment import environment

if TYPE_CHECKING:
    from ui.converse import Plan

__all__ = ["RUN", "TURNS", "Journal", "file_stem", "held", "is_run", "read_turns"]

RUN, TURNS = "run.json", "turns.jsonl"


class Journal:
    """The turns so far, one line each; a line that a crash cut off is dropped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.turns: dict[tuple[str, int, int], SpokenTurn] = {}
        content = path.read_bytes() if path.is_file() else b""
        self._whole = content.rfind(b"\n") + 1
        for number, line in enumerate(content[: self._whole].splitlines(), 1):
            try:
                self._take(SpokenTurn.model_validate_json(line))
            except ValueError as err:
                raise UsageError(
                    f"wanted a turn in line {number} of {path}, {shown(err, 120)}; "
                    "remove that line, its turn will be asked again"
                ) from err

    def add(self, turn: SpokenTurn) -> None:
        """Write one line to the disk.

        Raises:
            OutputError: the disk refused.
        """
        self._whole = append_line(self._path, turn.model_dump_json().encode(), self._whole)
        self._take(turn)

    def of(self, model: str, seed: int) -> list[SpokenTurn]:
        """Return the turns of an interview in order, the last perhaps without a reply."""
        found: list[SpokenTurn] = []
        while (turn := self.turns.get((model, seed, len(found)))) is not None:
            found.append(turn)
            if not turn.is_finished:
                break
        return found

    def finished(self, model: str, seed: int) -> list[SpokenTurn]:
        """Return the turns that need not be asked again."""
        return [turn for turn in self.of(model, seed) if turn.is_finished]

    def _take(self, turn: SpokenTurn) -> None:
        self.turns[turn.model, turn.seed, turn.index] = turn


@contextmanager
def held(plan: Plan, out: Path, *, force: bool) -> Iterator[None]:
    """Make or check the folder and hold it for this process."""
    check_output(out, force=True)
    if out.exists() and not (out.is_dir() and (is_run(out) or _is_bare(out))):
        raise OutputError(
            f"wanted a folder of interviews at {out}, found something else; choose another --out"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / ".lock", timeout=0):
            if force:
                _forget(out)
            _agree(plan, out)
            (out / "transcripts").mkdir(exist_ok=True)
            yield
    except Timeout as err:
        raise OutputError(f"wanted to write {out}, another process does; wait for it") from err


def _is_bare(folder: Path) -> bool:
    """Whether nothing but hidden files, such as the lock of a killed run, is in a folder."""
    return all(path.name.startswith(".") for path in folder.iterdir())


def _forget(out: Path) -> None:
    for name in ("transcripts", "images"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in (TURNS, RUN):  # last what shows that the folder is ours
        (out / name).unlink(missing_ok=True)


def _agree(plan: Plan, out: Path) -> None:
    """Write `run.json`, adding to what earlier runs with the same script asked."""
    models, seeds = list(plan.models), list(plan.seeds)
    if is_run(out):
        try:
            earlier = json.loads((out / RUN).read_text("utf-8"))
            digest, old_models, old_seeds = (earlier[k] for k in ("digest", "models", "seeds"))
        except (OSError, ValueError, KeyError, TypeError) as err:
            raise UsageError(
                f"wanted the settings of earlier interviews in {out / RUN}, {shown(err)}; "
                "mend the file, or begin anew with --force"
            ) from err
        if digest != plan.script.digest:
            raise UsageError(
                f"wanted to go on with the interviews in {out}, their script or its settings "
                "were others; choose another --out, or begin anew with --force"
            )
        models, seeds = [*dict.fromkeys([*old_models, *models])], sorted({*old_seeds, *seeds})
    run = {
        "schema_version": 1,
        "digest": plan.script.digest,
        "models": models,
        "seeds": seeds,
        "script": plan.script.model_dump(mode="json", by_alias=True),
        "environment": environment(),
    }
    write_text(out / RUN, json.dumps(run, ensure_ascii=False, indent=2) + "\n")


def is_run(folder: Path) -> bool:
    """Whether a folder holds interviews."""
    return (folder / RUN).is_file()


def read_turns(path: Path) -> list[SpokenTurn]:
    """Return the turns of a `turns.jsonl`, the latest of each place, in order of the script.

    Raises:
        UsageError: a whole line is damaged.
    """
    return list(Journal(path).turns.values())


def file_stem(model: str, seed: int) -> str:
    """Return a name for the files of an interview: ASCII, safe everywhere, one per model."""
    words = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")[:40].strip("-") or "model"
    return f"{words}-{hashlib.sha256(model.encode()).hexdigest()[:6]}-seed-{seed}"
