"""A person compares answers two by two without seeing whose they are.

    data/<owner>/judgings/<name>/
        asked.json     where the answers come from, the seed of the order, whether it is over
        answers.jsonl  the answers with their models
        form.jsonl     what `orbweave judge --form` writes, and the picks so far
        pictures/      one for each answer that has one, under a hash of its words

Every pick is on the disk before the next pair is shown. Who wrote what is told at the end.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationError

from agents.judge import Answer, pairs_of
from orbweave.errors import UsageError, shown
from orbweave.files import build_folder, write_text
from orbweave.records import Design, Record
from ui.judge import Preferences, preference_rows, preferences, read_picks, write_form, write_pairs
from ui.judge_answers import read_answers
from ui.studio.desk import Desk
from ui.studio.drawer import Drawer
from ui.studio.sitting import Sitting

__all__ = ["MAX_BYTES", "MAX_PAIRS", "FILES", "Group", "Judging", "Judgings", "Pair", "Pick"]

RECORD = "asked.json"
FORM = "form.jsonl"
ANSWERS = "answers.jsonl"
EXPORT = "preferences.jsonl"
FILES = ("run.json", "turns.jsonl", ANSWERS)
"""What of a folder of `orbweave converse` or `orbweave judge` is read."""
MAX_BYTES = 5_000_000
"""Of all uploaded files together."""
MAX_PAIRS = 500
"""More than a person judges; the form is written anew with every pick."""
JUDGE = "people"
Pick = Literal["first", "second", "tie", "skip"]


class AskedJudging(Record):
    """What is judged."""

    name: str
    """What the person sees in the list."""
    seed: int
    at: float = Field(ge=0.0)
    """Seconds since 1970."""
    is_over: bool = False
    """From then on models are shown and picks are final."""


class Pair(NamedTuple):
    """One line of the form, as it is shown."""

    key: str
    question: str
    first: str
    second: str
    pictures: tuple[str, str]
    """Names of the pictures of both; empty where there is none."""
    number: int
    """From 1, in the order of the form."""


class Group(NamedTuple):
    """Designs of one concept and seed by different models, which can be compared."""

    key: str
    concept: str
    seed: int
    sittings: tuple[str, ...]
    n_pairs: int


@dataclass(frozen=True)
class Judging:
    """One judging on the disk."""

    folder: Path
    asked: AskedJudging

    @property
    def id(self) -> str:
        """Its name on the page."""
        return self.folder.name

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The form: key, question, first, second, pick; `skipped` where the person passed."""
        text = (self.folder / FORM).read_text("utf-8")
        return [json.loads(line) for line in text.split("\n") if line]

    @property
    def next_pair(self) -> Pair | None:
        """The first pair that was neither judged nor passed over; None at the end."""
        for number, line in enumerate(self.lines, start=1):
            if not _is_dealt_with(line):
                words = line["first"], line["second"]
                first, second = (self._picture(text) for text in words)
                return Pair(line["key"], line["question"], *words, (first, second), number)
        return None

    @property
    def tally(self) -> Mapping[str, int]:
        """How many pairs there are (`all`), and how many were judged (`picked`) and `skipped`."""
        lines = self.lines
        picked = sum(bool(line["pick"]) for line in lines)
        skipped = sum(bool(line.get("skipped")) for line in lines)
        return {"all": len(lines), "picked": picked, "skipped": skipped}

    @property
    def answers(self) -> list[Answer]:
        """What is judged, with the models."""
        text = (self.folder / ANSWERS).read_text("utf-8")
        return [Answer.model_validate_json(line) for line in text.split("\n") if line]

    @property
    def found(self) -> Preferences:
        """What the picks so far say, with intervals."""
        answers = self.answers
        views = read_picks(answers, self.folder / FORM)
        return preferences(answers, views, both_orders=False, seed=self.asked.seed)

    def _picture(self, words: str) -> str:
        name = f"{_hash(words)}.png"
        return name if (self.folder / "pictures" / name).is_file() else ""


class Judgings:
    """All judgings of all people."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._drawer = Drawer(desk.data, "judgings", RECORD)
        self._lock = threading.Lock()

    def groups(self, owner: str) -> list[Group]:
        """Return which of the owner's finished designs can be compared, the latest first."""
        by_key: dict[str, list[tuple[Sitting, Answer]]] = {}
        for sitting in self._desk.sittings(owner):
            answer = _answer_of(sitting) if sitting.status == "done" else None
            if answer is not None:
                key = _hash(f"{answer.question}\n{answer.round}")
                by_key.setdefault(key, []).append((sitting, answer))
        groups = []
        for key, found in by_key.items():
            brief = found[0][0].asked.row.brief
            n_pairs = len(pairs_of([answer for _, answer in found]))
            if n_pairs:
                names = tuple(sitting.id for sitting, _ in found)
                groups.append(Group(key, brief.concept, brief.seed, names, n_pairs))
        return groups

    def begin(
        self, owner: str, keys: Sequence[str], files: Mapping[str, bytes], seed: int
    ) -> Judging:
        """Lay out the pairs of designs and of uploaded answers, in an order of the seed.

        Args:
            owner: Whose it will be.
            keys: Of groups of designs.
            files: By their names: `turns.jsonl` and `run.json` of interviews, or answers of
                `orbweave judge` or a person's own, one a line.
            seed: Of the order and of the sides.

        Raises:
            UsageError: there is nothing to compare, too much, or a file is damaged.
        """
        sittings = [
            self._desk.sitting(owner, name)
            for group in self.groups(owner)
            if group.key in keys
            for name in group.sittings
        ]
        place = self._drawer.new(owner)
        with build_folder(place) as folder:
            answers = _answers(sittings, files, folder / "source")
            n_pairs = len(pairs_of(answers))
            if not 1 <= n_pairs <= MAX_PAIRS:
                came = f"{n_pairs:,}" if n_pairs else "none"
                raise UsageError(
                    f"wanted 1 to {MAX_PAIRS} pairs of answers by two models to one question, "
                    f"found {came}; give "
                    + ("fewer" if n_pairs else "designs or interviews by other models too")
                )
            lines = "".join(answer.model_dump_json() + "\n" for answer in answers)
            (folder / ANSWERS).write_text(lines, encoding="utf-8")
            if not write_form(answers, folder / FORM, seed=seed):
                raise UsageError("wanted pairs that differ, all answers are the same")
            for sitting in sittings:
                _copy_picture(sitting, folder / "pictures")
            concepts = [sitting.asked.row.brief.concept for sitting in sittings]
            name = (concepts or sorted(files))[0]
            asked = AskedJudging(name=name[:200], seed=seed, at=time.time())
            (folder / RECORD).write_text(asked.model_dump_json(indent=2) + "\n", "utf-8")
        return Judging(place, asked)

    def find(self, owner: str, name: str) -> Judging:
        """Return one of the owner's judgings.

        Raises:
            UsageError: there is none of that name, or it is damaged.
        """
        return _read(self._drawer.find(owner, name))

    def all(self, owner: str) -> list[Judging]:
        """Return the owner's judgings that can be read, the latest first."""
        found = []
        for folder in self._drawer.all(owner):
            try:
                found.append(_read(folder))
            except UsageError:
                continue
        return found

    def pick(self, judging: Judging, key: str, pick: Pick) -> None:
        """Keep what a person chose of a pair; it is on the disk when this returns.

        A pair that was dealt with already keeps its pick: a key may be held down.

        Raises:
            UsageError: the judging is over, or has no such pair.
        """
        with self._lock:
            lines = _open_lines(judging)
            line = next((line for line in lines if line["key"] == key), None)
            if line is None:
                raise UsageError("wanted a pair of this judging, found none of that key")
            if not _is_dealt_with(line):
                line |= {"skipped": True} if pick == "skip" else {"pick": pick}
                _write(judging, lines)

    def undo(self, judging: Judging) -> None:
        """Take back the latest pick.

        Raises:
            UsageError: the judging is over, or nothing was picked yet.
        """
        with self._lock:
            lines = _open_lines(judging)
            dealt_with = [line for line in lines if _is_dealt_with(line)]
            if not dealt_with:
                raise UsageError("wanted a pick to take back, there is none yet")
            # Pairs are shown in the order of the form.
            dealt_with[-1]["pick"] = ""
            dealt_with[-1].pop("skipped", None)
            _write(judging, lines)

    def end(self, judging: Judging) -> Judging:
        """End it: from now on models are shown and no pick can be changed.

        Raises:
            UsageError: nothing was picked yet.
        """
        with self._lock:
            if not judging.tally["picked"]:
                raise UsageError("wanted at least one pick before the end, found none")
            rows = preference_rows(judging.answers, judging.found, JUDGE)
            write_pairs(rows, judging.folder / EXPORT, force=True)
            over = Judging(judging.folder, judging.asked.model_copy(update={"is_over": True}))
            write_text(over.folder / RECORD, over.asked.model_dump_json(indent=2) + "\n")
            return over

    def file(self, judging: Judging, path: str) -> Path | None:
        """Return a file of the judging that may be sent; None if there is none."""
        folder, _, name = path.rpartition("/")
        is_picture = folder == "pictures" and name.removesuffix(".png").isalnum()
        is_told = judging.asked.is_over and path in (EXPORT, FORM, ANSWERS)
        found = judging.folder / path
        return found if (is_picture or is_told) and found.is_file() else None


def _answers(sittings: Sequence[Sitting], files: Mapping[str, bytes], folder: Path) -> list[Answer]:
    """Return the answers of designs and of uploaded files, each once."""
    unknown = [name for name in files if name not in FILES and not name.endswith(".jsonl")]
    if unknown:
        raise UsageError(
            f"wanted {', '.join(FILES)} or a JSONL file of answers, got {shown(unknown[0])}"
        )
    if sum(map(len, files.values())) > MAX_BYTES:
        raise UsageError(f"wanted at most {MAX_BYTES // 10**6} MB of answers, got more")
    sources = [str(sitting.target) for sitting in sittings]
    if "run.json" in files:
        interviews = folder / "interviews"
        interviews.mkdir(parents=True)
        for name in ("run.json", "turns.jsonl"):
            (interviews / name).write_bytes(files.get(name, b""))
        sources.append(str(interviews))
    for number, (name, content) in enumerate(sorted(files.items())):
        if name not in ("run.json", "turns.jsonl"):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.jsonl").write_bytes(content)
            sources.append(str(folder / f"{number}.jsonl"))
    answers, faults = read_answers(sources)
    shutil.rmtree(folder, ignore_errors=True)
    if faults:
        # Where the files lie on the server is nobody's business.
        raise UsageError("; ".join(faults[:5]).replace(str(folder), "the upload"))
    return list({_identity(answer): answer for answer in answers}.values())


def _identity(answer: Answer) -> tuple[str, str, str, str]:
    return answer.model, answer.question, answer.round, answer.answer


def _answer_of(sitting: Sitting) -> Answer | None:
    """Return what a finished design says; None if it cannot be read."""
    record = sitting.target / "design.json"
    try:
        return _read_answer(sitting.target, record.stat().st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=1_024)
def _read_answer(target: Path, changed_ns: int) -> Answer | None:
    """Read a design; the time says when an earlier reading is stale."""
    answers, _ = read_answers([str(target)])
    return answers[0] if answers else None


def _copy_picture(sitting: Sitting, folder: Path) -> None:
    """Copy the first picture of a design's last version under the hash of its words."""
    answer, record = _answer_of(sitting), sitting.record
    if answer is None or record is None:
        return
    path = _last_picture(record)
    if path is not None and (sitting.target / path).is_file():
        folder.mkdir(exist_ok=True)
        shutil.copyfile(sitting.target / path, folder / f"{_hash(answer.answer)}.png")


def _last_picture(record: Design) -> str | None:
    last = max((picture.prompt_version for picture in record.pictures), default=0)
    return next((p.path for p in record.pictures if p.prompt_version == last), None)


def _open_lines(judging: Judging) -> list[dict[str, Any]]:
    """Return the form of a judging that may still be changed."""
    if _read(judging.folder).asked.is_over:
        raise UsageError("wanted to change a pick, this judging is over; begin another")
    return judging.lines


def _write(judging: Judging, lines: Sequence[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    write_text(judging.folder / FORM, text)


def _is_dealt_with(line: Mapping[str, Any]) -> bool:
    return bool(line["pick"] or line.get("skipped"))


def _read(folder: Path) -> Judging:
    try:
        text = (folder / RECORD).read_text("utf-8")
        return Judging(folder, AskedJudging.model_validate_json(text))
    except (OSError, ValidationError, UnicodeDecodeError) as err:
        raise UsageError(f"wanted the judging {folder.name}, it is damaged: {shown(err)}") from err


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
