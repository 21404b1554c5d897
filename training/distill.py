"""A corpus rewritten by a teacher model into rows to train on, each with its chunk.

    qa           question and answer                          prompt, completion
    record       a whole document in seven lists              title ... answers, and text
    properties   numbers of materials                         material, quantity, value, unit, text
    summary      a passage in few sentences                   text
    preference   a right answer and a wrong one on topic      prompt, chosen, rejected

    OUT/
        <kind>.jsonl      rows as `orbweave train` reads them
        failures.jsonl    what the teacher could not be brought to say well
        finished.jsonl    every request that is settled; an interrupted run goes on from it
        settings.json     teacher and seed, which all runs in one folder share

After Lu, Luu & Buehler (2025), who had five passes over each paper; the words are ours.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StringConstraints,
    ValidationError,
    model_validator,
)

from orbweave.errors import EngineError, OutputError, UsageError, shown
from orbweave.files import append_line, write_text
from training.chunks import Chunk
from training.corpus import read_chunks
from training.duplicates import claims_same, similarity
from training.rows import Turn
from training.teacher import Teacher, read_json

__all__ = [
    "KINDS",
    "WINDOW_CHARS",
    "Bill",
    "Kind",
    "Outcome",
    "approximate_tokens",
    "distill",
    "estimate",
    "is_distilled",
]

Kind = Literal["qa", "record", "properties", "summary", "preference"]
KINDS: tuple[Kind, ...] = ("qa", "record", "properties", "summary", "preference")
WINDOW_CHARS = 60_000
"""Text of one record at most, about 15,000 tokens; a longer document gives several records."""
COPY = 0.6
"""Share of common phrases from which two rows on one passage are copies; chosen by us."""
_STRIKES = 3
"""Failures of the teacher itself, one after the other, that end the run."""
FINISHED, FAILURES, SETTINGS = "finished.jsonl", "failures.jsonl", "settings.json"

Row = dict[str, Any]


class Bill(NamedTuple):
    """What was or will be asked of a teacher."""

    requests: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0

    def cost(self, per_million: tuple[float, float]) -> float:
        """Return the cost from (prompt, reply) prices of a million tokens."""
        return (self.prompt_tokens * per_million[0] + self.reply_tokens * per_million[1]) / 1e6


@dataclass(frozen=True)
class Outcome:
    """What a run left in its folder, earlier runs included."""

    rows: dict[Kind, int]
    failures: int
    bill: Bill
    """Of all runs; tokens by the caller's count."""
    files: tuple[Path, ...]


def approximate_tokens(text: str) -> int:
    """Return about how many tokens an English text has: four characters each."""
    return -(-len(text) // 4)


def estimate(
    corpus: Path,
    out: Path,
    kinds: Sequence[Kind] = KINDS,
    passes: int = 1,
    *,
    window_chars: int = WINDOW_CHARS,
    force: bool = False,
    count_tokens: Callable[[str], int] = approximate_tokens,
) -> Bill:
    """Return what `distill` would still ask if every first reply were good; nothing is asked.

    Prompts of the first pass are counted as they will be sent; those of later passes grow by
    what earlier ones said, and replies are of a usual length.

    Raises:
        UsageError: no finished corpus, or fewer than one pass.
    """
    settled = {} if force else _Journal(out / FINISHED).entries
    requests = prompt = reply = 0
    for job in _jobs(read_chunks(corpus), kinds, passes, window_chars):
        left = sum(_key(job, number) not in settled for number in range(passes))
        asked = sum(count_tokens(turn.content) for turn in _request(job, ()))
        expected = _EXPECTED[job.kind] * (_n_items(job) or 1)
        judging = job.kind == "preference"
        requests += left * (1 + judging)
        prompt += left * (asked + judging * (asked + expected))
        reply += left * (expected + judging * 5 * _n_items(job))
    return Bill(requests, prompt, reply)


def distill(
    corpus: Path,
    teacher: Teacher,
    out: Path,
    kinds: Sequence[Kind] = KINDS,
    passes: int = 1,
    *,
    seed: int = 0,
    tries: int = 3,
    workers: int = 1,
    window_chars: int = WINDOW_CHARS,
    retry_failed: bool = False,
    force: bool = False,
    count_tokens: Callable[[str], int] = approximate_tokens,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Have a teacher rewrite a corpus; goes on where an earlier run in `out` stopped.

    Args:
        corpus: Made by `training.corpus.ingest`.
        teacher: See `training.teacher`.
        out: Folder of the rows.
        kinds: What to write.
        passes: Times each passage is rewritten; later passes must not copy earlier ones.
        seed: The seeds of all requests follow from it.
        tries: Requests at most for one reply, each with a seed of its own.
        workers: Requests under way at once; the rows do not depend on it.
        window_chars: Longest text of one record.
        retry_failed: Ask again for what failed in an earlier run, with further seeds.
        force: Forget what an earlier run wrote.
        count_tokens: Measures the bill.
        on_progress: Is told (passes settled, passes in all); one thread at a time.

    Raises:
        UsageError: no finished corpus, a setting out of range, or the folder belongs to
            another teacher or seed.
        EngineError: the teacher failed three times running; what it had said is kept.
        OutputError: the folder is something else or cannot be written.
    """
    if passes < 1 or tries < 1 or workers < 1 or window_chars < 1:
        raise UsageError(
            f"wanted passes, tries, workers and window of 1 or more, "
            f"got {passes}, {tries}, {workers} and {window_chars}"
        )
    jobs = list(_jobs(read_chunks(corpus), kinds, passes, window_chars))
    _claim(out, {"teacher": teacher.name, "seed": seed}, force=force)
    journal = _Journal(out / FINISHED)
    run = _Run(teacher, journal, passes, seed, tries, retry_failed, count_tokens, on_progress)
    n_settled = run.settle(jobs, workers)
    outcome = _write(out, journal, jobs, passes, run.broken)
    if run.broken and not n_settled:
        raise EngineError(run.broken[0].fault)
    return outcome


def is_distilled(folder: Path) -> bool:
    """Tell whether a folder holds rows that `distill` wrote, or began to."""
    return (folder / SETTINGS).is_file()


# ---------------------------------------------------------------- what is asked


@dataclass(frozen=True)
class _Job:
    """One passage to be rewritten in one way, once or more often."""

    kind: Kind
    chunks: tuple[Chunk, ...]
    """Neighbours of one document; a single one but for records."""

    @property
    def text(self) -> str:
        return "\n\n".join(chunk.text for chunk in self.chunks)

    @property
    def passage(self) -> str:
        """`<document>:<start>-<end>` of the whole passage."""
        return f"{self.chunks[0].id.rpartition('-')[0]}-{self.chunks[-1].id.rpartition('-')[2]}"


_SYSTEM = """\
You write training data for a language model from passages of scientific text. Use only what \
the passage says and never invent a number. Reply with JSON alone, without any other words."""

_STANDALONE = """\
It must be clear to a reader who has not seen the passage: name the material or structure, and \
never mention the passage, the text, the study or its authors."""

_ASKED: Mapping[Kind, str] = {
    "qa": """\
Write {n} pairs of question and answer that teach what the passage says. {standalone} An answer \
is one to three full sentences, with numbers and units where the passage gives them.
Form: [{"question": "...", "answer": "..."}]""",
    "record": """\
Distil the text into one record. "insights" say what follows for materials and design, "facts" \
state findings with their numbers, "details" give conditions, methods and mechanisms, \
"comparisons" say how materials or structures differ. "questions" and "answers" have the same \
length, and each answer belongs to the question at the same place. Every entry is a full \
sentence. {standalone}
Form: {"title": "...", "insights": ["..."], "facts": ["..."], "details": ["..."], \
"comparisons": ["..."], "questions": ["..."], "answers": ["..."]}""",
    "properties": """\
List every property of a material that the passage gives as a number. Copy value and unit \
exactly as they are written. If there is none, reply [].
Form: [{"material": "...", "quantity": "...", "value": "...", "unit": "..."}]""",
    "summary": """\
Summarise the passage in three to six full sentences, with its most important numbers. \
{standalone}
Form: {"summary": "..."}""",
    "preference": """\
Write {n} items of a question, a right answer and a wrong answer. The wrong answer keeps to \
the topic and is as long and as sure of itself as the right one, but its main claim is false: \
another mechanism, direction, material or number. {standalone}
Form: [{"prompt": "...", "chosen": "the right answer", "rejected": "the wrong answer"}]""",
}

_JUDGED = """\
Judge each of these answers by the passage and by established science: is its main claim right \
or wrong?

{answers}

Reply with a JSON list of one word for each, in order. Form: ["right", "wrong"]"""

_EXPECTED: Mapping[Kind, int] = {
    "qa": 70,
    "record": 1_500,
    "properties": 150,
    "summary": 150,
    "preference": 130,
}
"""Tokens of a usual reply, for `qa` and `preference` of one item; chosen by us."""
_CHARS_PER_ITEM: Mapping[Kind, int] = {"qa": 500, "preference": 1_000}
_MOST_ITEMS = 8
_AVOIDED = 30
"""Earlier rows that a later pass is shown at most."""


def _jobs(
    chunks: Sequence[Chunk], kinds: Sequence[Kind], passes: int, window_chars: int
) -> Iterator[_Job]:
    """Yield what there is to do, passage after passage.

    Raises:
        UsageError: fewer than one pass, or no kind.
    """
    if passes < 1 or not kinds:
        raise UsageError(f"wanted one pass and one kind or more, got {passes} and {list(kinds)}")
    for _, group in groupby(chunks, key=lambda chunk: chunk.document):
        pieces = list(group)
        for kind in dict.fromkeys(kinds):
            windows = _windows(pieces, window_chars) if kind == "record" else [(c,) for c in pieces]
            yield from (_Job(kind, window) for window in windows)


def _windows(chunks: Sequence[Chunk], window_chars: int) -> list[tuple[Chunk, ...]]:
    """Return neighbouring chunks in groups of at most `window_chars`, one chunk at least."""
    windows: list[list[Chunk]] = []
    for chunk in chunks:
        length = sum(len(c.text) + 2 for c in windows[-1]) if windows else window_chars
        if length + len(chunk.text) > window_chars:
            windows.append([])
        windows[-1].append(chunk)
    return [tuple(window) for window in windows]


def _n_items(job: _Job) -> int:
    """Return how many items to ask for; 0 where the kind has no number."""
    if job.kind not in _CHARS_PER_ITEM:
        return 0
    return min(_MOST_ITEMS, max(2, len(job.text) // _CHARS_PER_ITEM[job.kind]))


def _request(job: _Job, earlier: Sequence[Row]) -> list[Turn]:
    """Return the chat that asks for a job, telling what earlier passes said."""
    asked = _ASKED[job.kind].replace("{n}", str(_n_items(job)))
    asked = asked.replace("{standalone}", _STANDALONE)
    if earlier:
        said = "\n".join(f"- {_said(job.kind, row)[:150]}" for row in earlier[-_AVOIDED:])
        asked += f"\nThese exist already; write others and do not reword them:\n{said}"
    return [Turn("system", _SYSTEM), Turn("user", f"{_headed(job)}\n\n{asked}")]


def _headed(job: _Job) -> str:
    """Return the passage below its title and headings."""
    first = job.chunks[0]
    path = " / ".join(dict.fromkeys((first.title, *first.headings)))
    return f"Passage from: {path}\n\n{job.text}"


# ---------------------------------------------------------------- what is answered

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Plain = Annotated[Text, BeforeValidator(lambda v: str(v) if isinstance(v, int | float) else v)]


class _Answered(BaseModel):
    """A teacher's words; keys nobody asked for are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Pair(_Answered):
    question: Text
    answer: Text


class _Record(_Answered):
    title: Text
    insights: list[Text]
    facts: list[Text]
    details: list[Text]
    comparisons: list[Text]
    questions: list[Text]
    answers: list[Text]

    @model_validator(mode="after")
    def _aligned(self) -> _Record:
        if not self.facts or not self.questions:
            raise ValueError("a record without facts or questions")
        if len(self.questions) != len(self.answers):
            raise ValueError(f"{len(self.questions)} questions, {len(self.answers)} answers")
        return self


class _Property(_Answered):
    material: Text
    quantity: Text
    value: Plain
    unit: str = ""


class _Summary(_Answered):
    summary: Text


class _Preference(_Answered):
    prompt: Text
    chosen: Text
    rejected: Text


_POINTS_BACK = re.compile(
    r"\b(?:the|this|these|given|above)\s+(?:\w+\s+)?"
    r"(?:passage|text|excerpt|study|paper|article|authors?|researchers|section|figure)\b",
    re.I,
)
"""Words that mean nothing to somebody who has not read the passage."""
_Shape = TypeVar("_Shape", bound=_Answered)


def _rows_in(job: _Job, reply: str) -> list[Row]:
    """Return the rows of a reply.

    Raises:
        ValueError: it is no JSON, not in the form, or of no use; says why.
    """
    value = read_json(reply)
    if job.kind == "qa":
        pairs = [p for p in _many(value, _Pair) if not _POINTS_BACK.search(p.question)]
        return _some([{"prompt": p.question, "completion": p.answer} for p in pairs], "points back")
    if job.kind == "record":
        record = _one(value, _Record)
        return [{**record.model_dump(), "text": _written(record)}]
    if job.kind == "summary":
        return [{"text": _one(value, _Summary).summary}]
    if job.kind == "properties":
        if value == []:
            return []
        known = _numbers(job.text)
        held = [p for p in _many(value, _Property) if _numbers(p.value) <= known]
        held = [p for p in held if _numbers(p.value)]
        rows = [
            {**p.model_dump(), "text": f"{p.quantity} of {p.material}: {p.value} {p.unit}".strip()}
            for p in held
        ]
        return _some(rows, "no value stands in the passage")
    pairs_wrong = [p for p in _many(value, _Preference) if not _POINTS_BACK.search(p.prompt)]
    differing = [p for p in pairs_wrong if not claims_same(p.chosen, p.rejected)]
    return _some([p.model_dump() for p in differing], "the rejected answer says the same")


def _some(rows: list[Row], fault: str) -> list[Row]:
    if not rows:
        raise ValueError(f"no row is left: {fault}")
    return rows


def _many(value: Any, shape: type[_Shape]) -> list[_Shape]:
    """Return the items of a list that have the shape.

    Raises:
        ValueError: none has.
    """
    if isinstance(value, dict):
        inner = [part for part in value.values() if isinstance(part, list)]
        value = inner[0] if len(inner) == 1 else [value]
    found, fault = [], "an empty list"
    for item in value:
        try:
            found.append(shape.model_validate(item))
        except ValidationError as err:
            fault = _first_fault(err)
    if not found:
        raise ValueError(f"no item in the form: {fault}")
    return found


def _one(value: Any, shape: type[_Shape]) -> _Shape:
    """Return the one item; raises ValueError if it has not the shape."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    try:
        return shape.model_validate(value)
    except ValidationError as err:
        raise ValueError(f"not in the form: {_first_fault(err)}") from err


def _first_fault(err: ValidationError) -> str:
    fault = err.errors()[0]
    return f"{'.'.join(map(str, fault['loc'])) or 'the reply'}: {fault['msg']}"


def _written(record: _Record) -> str:
    """Return a record as Markdown, for continued pre-training."""
    lists = {"Insights": record.insights, "Facts": record.facts, "Details": record.details}
    lists |= {"Comparisons": record.comparisons}
    parts = [f"# {record.title}"]
    parts += [f"## {name}\n\n{' '.join(lines)}" for name, lines in lists.items() if lines]
    asked = zip(record.questions, record.answers, strict=True)
    parts.append("## Questions\n\n" + "\n\n".join(f"{q}\n{a}" for q, a in asked))
    return "\n\n".join(parts)


def _numbers(text: str) -> set[float]:
    """Return the numbers in a text; a comma before three digits groups thousands."""
    plain = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    return {float(n) for n in re.findall(r"\d+(?:\.\d+)?", plain)}


def _said(kind: Kind, row: Row) -> str:
    """Return the words by which two rows of a kind are compared."""
    if kind == "properties":
        return " ".join(str(row[key]) for key in ("material", "quantity", "value", "unit"))
    return str(row["prompt"] if kind in {"qa", "preference"} else row["text"])


def _fresh(kind: Kind, rows: Iterable[Row], earlier: Sequence[Row]) -> list[Row]:
    """Return the rows that copy neither an earlier one nor each other.

    Properties are facts: only the very same one is a copy.
    """
    limit = 1.0 if kind == "properties" else COPY
    fresh: list[Row] = []
    for row in rows:
        said = _said(kind, row)
        others = (_said(kind, other) for other in (*earlier, *fresh))
        if all(similarity(said, other) < limit for other in others):
            fresh.append(row)
    return fresh


# ---------------------------------------------------------------- asking


@dataclass(frozen=True)
class _Settled:
    """The end of one pass over one passage."""

    key: str
    rows: tuple[Row, ...] = ()
    fault: str = ""
    """Why there are no rows; empty if all is well."""
    reply: str = ""
    """The last reply, where it was of no use."""
    tries: int = 0
    bill: Bill = Bill()


class _Journal:
    """What is settled, one line each; a line that a crash cut off is dropped."""

    def __init__(self, path: Path) -> None:
        """Read what earlier runs settled.

        Raises:
            UsageError: a whole line is damaged.
        """
        self._path = path
        self._turn = threading.Lock()
        self.entries: dict[str, _Settled] = {}
        content = path.read_bytes() if path.is_file() else b""
        self._whole = content.rfind(b"\n") + 1
        for number, line in enumerate(content[: self._whole].splitlines(), 1):
            try:
                entry = json.loads(line)
                entry |= {"bill": Bill(*entry["bill"]), "rows": tuple(entry["rows"])}
                self.entries[entry["key"]] = _Settled(**entry)
            except (ValueError, KeyError, TypeError) as err:
                raise UsageError(
                    f"wanted a settled pass in line {number} of {path}, {shown(err)}; "
                    "remove that line, its pass will be asked for again"
                ) from err

    def add(self, settled: _Settled, then: Callable[[], None]) -> None:
        """Write one line to the disk, then call `then` before anybody else's turn."""
        line = json.dumps(vars(settled), ensure_ascii=False).encode()
        with self._turn:
            self._whole = append_line(self._path, line, self._whole)
            self.entries[settled.key] = settled
            then()


@dataclass
class _Run:
    """One run: jobs are shared out to workers, the passes of a job follow each other."""

    teacher: Teacher
    journal: _Journal
    passes: int
    seed: int
    tries: int
    retry_failed: bool
    count_tokens: Callable[[str], int]
    on_progress: Callable[[int, int], None]
    broken: list[_Settled] = field(default_factory=list)
    """Passes the teacher itself failed at; the next run asks for them again."""
    stopped: threading.Event = field(default_factory=threading.Event)
    done: int = 0
    total: int = 0

    def settle(self, jobs: Sequence[_Job], workers: int) -> int:
        """Settle every pass of every job; return how many were settled now.

        Raises:
            EngineError: the teacher failed at three jobs, one after the other.
        """
        self.total = len(jobs) * self.passes
        todo = [job for job in jobs if self._n_left(job)]
        before = self.done = self.total - sum(map(self._n_left, todo))
        self.on_progress(self.done, self.total)
        strikes = 0
        pool = ThreadPoolExecutor(workers)
        try:
            for future in as_completed([pool.submit(self._settle, job) for job in todo]):
                error = future.result()
                strikes = strikes + 1 if error else 0
                if error and strikes >= _STRIKES:
                    raise EngineError(
                        f"{error}; {self.done} of {self.total} passes are settled and kept, "
                        "the same command goes on from there"
                    ) from error
        finally:
            self.stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
        return self.done - before

    def _n_left(self, job: _Job) -> int:
        return sum(not self._is_settled(_key(job, number)) for number in range(self.passes))

    def _is_settled(self, key: str) -> bool:
        entry = self.journal.entries.get(key)
        return entry is not None and not (self.retry_failed and entry.fault)

    def _settle(self, job: _Job) -> EngineError | None:
        """Settle the passes of one job; return the teacher's own failure, if any."""
        earlier: list[Row] = []
        for number in range(self.passes):
            key = _key(job, number)
            if not self._is_settled(key):
                if self.stopped.is_set():
                    return None
                try:
                    settled = self._pass(job, key, earlier)
                except EngineError as err:
                    self.broken.append(_Settled(key, fault=str(err)))
                    return err
                self.journal.add(settled, self._count_up)
            earlier += self.journal.entries[key].rows
        return None

    def _count_up(self) -> None:
        self.done += 1
        self.on_progress(self.done, self.total)

    def _pass(self, job: _Job, key: str, earlier: Sequence[Row]) -> _Settled:
        """Ask until a reply can be used, at most `tries` times."""
        before = self.journal.entries.get(key, _Settled(key))
        bill, reply, fault = before.bill, "", ""
        for attempt in range(before.tries, before.tries + self.tries):
            seed = _seed(self.seed, key, attempt)
            messages = _request(job, earlier)
            reply = self.teacher(messages, seed)
            bill = self._billed(bill, messages, reply)
            try:
                found = _rows_in(job, reply)
                rows = _fresh(job.kind, found, earlier)
                if found and not rows and job.kind != "properties":
                    raise ValueError("a copy of what an earlier pass said")
                if job.kind == "preference":
                    messages = _judging(job, rows)
                    reply = self.teacher(messages, seed)
                    bill = self._billed(bill, messages, reply)
                    rows = _found_wrong(rows, read_json(reply))
            except ValueError as err:
                fault = str(err)
                continue
            return _Settled(key, tuple(rows), tries=attempt + 1, bill=bill)
        tried = before.tries + self.tries
        return replace(before, fault=fault, reply=reply, tries=tried, bill=bill)

    def _billed(self, bill: Bill, messages: Sequence[Turn], reply: str) -> Bill:
        asked = sum(self.count_tokens(turn.content) for turn in messages)
        said = self.count_tokens(reply)
        return Bill(bill.requests + 1, bill.prompt_tokens + asked, bill.reply_tokens + said)


def _judging(job: _Job, rows: Sequence[Row]) -> list[Turn]:
    """Return the chat that asks whether the rejected answers are wrong indeed."""
    answers = "\n".join(
        f"{n}. Question: {row['prompt']} Answer: {row['rejected']}" for n, row in enumerate(rows, 1)
    )
    asked = _JUDGED.format(answers=answers)
    return [Turn("system", _SYSTEM), Turn("user", f"{_headed(job)}\n\n{asked}")]


def _found_wrong(rows: Sequence[Row], verdicts: Any) -> list[Row]:
    """Return the rows whose rejected answer was judged wrong.

    Raises:
        ValueError: not one verdict for each row, or no row is left.
    """
    if not isinstance(verdicts, list) or len(verdicts) != len(rows):
        raise ValueError(f"wanted {len(rows)} verdicts, got {shown(verdicts)}")
    words = [str(verdict).strip().lower() for verdict in verdicts]
    if set(words) - {"right", "wrong"}:
        raise ValueError(f"wanted right or wrong, got {shown(words)}")
    kept = [row for row, word in zip(rows, words, strict=True) if word == "wrong"]
    return _some(kept, "the rejected answer was judged right")


def _key(job: _Job, number: int) -> str:
    return f"{job.kind} {job.passage} {number}"


def _seed(seed: int, key: str, attempt: int) -> int:
    """Return the seed of one request, 31 bits; it depends on nothing that runs beside it."""
    name = f"{seed} {key} {attempt}"
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) >> 1


# ---------------------------------------------------------------- the folder


def _claim(out: Path, settings: Mapping[str, Any], *, force: bool) -> None:
    """Make the folder ours, or check that it is and was begun in the same way.

    Raises:
        OutputError: it holds something else.
        UsageError: it was begun with another teacher or seed.
    """
    path = out / SETTINGS
    if path.is_file() and not force:
        try:
            known = json.loads(path.read_bytes())
        except ValueError as err:
            known = f"a damaged {SETTINGS}, {err}"
        if known != settings:
            raise UsageError(
                f"wanted to go on in {out} with {shown(dict(settings), 200)}, it was begun with "
                f"{shown(known, 200)}; choose another --out, or --force to begin anew"
            )
        return
    if out.exists() and not is_distilled(out) and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"wanted a new folder at {out}, found something else; choose another")
    for name in (SETTINGS, FINISHED, FAILURES, *(f"{kind}.jsonl" for kind in KINDS)):
        (out / name).unlink(missing_ok=True)
    write_text(path, json.dumps(settings, indent=2) + "\n")


def _write(
    out: Path,
    journal: _Journal,
    jobs: Sequence[_Job],
    passes: int,
    broken: Sequence[_Settled],
) -> Outcome:
    """Write the rows of each kind and the failures, in the order of the corpus."""
    rows: dict[Kind, list[Row]] = {job.kind: [] for job in jobs}
    settled = [
        (job, number, journal.entries[key])
        for job in jobs
        for number in range(passes)
        if (key := _key(job, number)) in journal.entries
    ]
    model = json.loads((out / SETTINGS).read_bytes())["teacher"]
    for job, number, entry in settled:
        rows[job.kind] += [
            _labelled(row, job, number, place, model) for place, row in enumerate(entry.rows)
        ]
    failed = {entry.key: entry for _, _, entry in settled if entry.fault}
    failed |= {entry.key: entry for entry in broken}
    shown_faults = [
        {"task": e.key, "fault": e.fault, "tries": e.tries, "reply": e.reply}
        for e in failed.values()
    ]
    files = {out / f"{kind}.jsonl": found for kind, found in rows.items()}
    for path, found in {**files, out / FAILURES: shown_faults}.items():
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found))
    bills = [entry.bill for _, _, entry in settled]
    return Outcome(
        rows={kind: len(found) for kind, found in rows.items()},
        failures=len(failed),
        bill=Bill(*map(sum, zip(*bills, strict=True))) if bills else Bill(),
        files=(*files, out / FAILURES),
    )


def _labelled(row: Row, job: _Job, number: int, place: int, model: str) -> Row:
    """Return a row with its id, chunk, document, source and teacher."""
    first = job.chunks[0]
    label: Row = {
        "id": f"{job.kind}-{job.passage}-{number}-{place}",
        "chunk": first.id,
        "document": first.document,
        "source": first.source,
        "teacher": model,
        "pass": number,
    }
    if job.kind == "record":
        label["chunks"] = [chunk.id for chunk in job.chunks]
    return label | row
