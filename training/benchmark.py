"""Closed questions with known answers: multiple choice and true/false.

A benchmark is a JSONL file, one `Question` a line. The shipped ones have names; any file of
the same form is named by its path. What counts as one file's faults is told all at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeVar

from pydantic import Field, ValidationError, model_validator

from orbweave.errors import UsageError, shown
from orbweave.records import Record

__all__ = [
    "GENERAL",
    "GENERAL_TEXT",
    "Benchmark",
    "Counts",
    "Question",
    "Text",
    "counts",
    "load_benchmark",
    "load_texts",
    "shipped_benchmarks",
]

_FOLDER = Path(__file__).with_name("benchmarks")
GENERAL = "general"
"""The shipped set on no domain of ours; what it loses in training is forgetting."""
GENERAL_TEXT = "general-text"
"""Shipped paragraphs on everyday topics, for the perplexity beside it; no questions."""
_MAX_FAULTS = 20
"""Faults told of one file; more are counted."""

Row = TypeVar("Row", "Question", "Text")
Filled = Annotated[str, Field(pattern=r"\S")]


class Question(Record):
    """One closed question."""

    id: Filled
    domain: Filled
    type: Literal["mc", "tf"]
    """Multiple choice, or a statement that is true or false."""
    category: Filled
    """What it asks of the reader, for instance numerical or reasoning."""
    question: Filled
    options: Annotated[tuple[Filled, ...], Field(min_length=2, max_length=26)]
    """For tf exactly True and False, in this order."""
    answer: Annotated[int, Field(ge=0, strict=True)]
    """Index of the right option."""
    fact_ids: tuple[str, ...] = ()
    """The facts of the knowledge base that it rests on."""
    source_url: str = ""

    @model_validator(mode="after")
    def _fits_together(self) -> Question:
        if self.answer >= len(self.options):
            raise ValueError(f"answer {self.answer} is none of the {len(self.options)} options")
        if len({" ".join(option.split()).casefold() for option in self.options}) < len(
            self.options
        ):
            raise ValueError("two options are the same")
        if self.type == "tf" and self.options != ("True", "False"):
            raise ValueError(f"a tf question has the options True, False, not {self.options}")
        return self


class Text(Record):
    """One paragraph to measure perplexity on."""

    id: Filled
    domain: Filled
    text: Filled


class Benchmark(NamedTuple):
    """A named set of questions."""

    name: str
    questions: tuple[Question, ...]


class Counts(NamedTuple):
    """How many questions there are of each kind, largest kind first."""

    total: int
    by_domain: dict[str, int]
    by_type: dict[str, int]
    by_category: dict[str, int]


def shipped_benchmarks() -> tuple[str, ...]:
    """Return the names of the shipped question sets, the domains' first."""
    names = sorted(path.stem for path in _FOLDER.glob("*.jsonl"))
    return (*(name for name in names if name not in {GENERAL, GENERAL_TEXT}), GENERAL)


def load_benchmark(name: str | Path) -> Benchmark:
    """Return a shipped benchmark by its name, or any by its file.

    Raises:
        UsageError: no such name or file, or the file has faults; all of them are told.
    """
    path = _located(str(name), shipped_benchmarks())
    return Benchmark(path.stem, _load(path, Question))


def load_texts(name: str | Path = GENERAL_TEXT) -> tuple[Text, ...]:
    """Return paragraphs by their shipped name or their file, as `load_benchmark` does.

    Raises:
        UsageError: as there.
    """
    return _load(_located(str(name), [GENERAL_TEXT]), Text)


def counts(questions: Sequence[Question]) -> Counts:
    """Return how many questions there are by domain, type and category."""
    by = [
        Counter(str(getattr(q, key)) for q in questions) for key in ("domain", "type", "category")
    ]
    return Counts(len(questions), *(dict(counter.most_common()) for counter in by))


def _located(name: str, shipped: Sequence[str]) -> Path:
    path = _FOLDER / f"{name}.jsonl" if name in shipped else Path(name).expanduser()
    if not path.is_file():
        raise UsageError(
            f"wanted a benchmark, found no name or file {shown(name)}; "
            f"give a JSONL file or one of {', '.join(shipped)}"
        )
    return path


def _load(path: Path, kind: type[Row]) -> tuple[Row, ...]:
    """Return the rows of a file.

    Raises:
        UsageError: it cannot be read, or has faults.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as err:
        raise UsageError(f"wanted a benchmark in UTF-8, could not read {path}: {err}") from err
    rows: list[Row] = []
    faults: list[str] = []
    first_line: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = kind.model_validate_json(line)
        except ValidationError as err:
            faults += [f"line {number}: {fault}" for fault in _told(err)]
            continue
        if row.id in first_line:
            faults.append(f"line {number}: id {shown(row.id)} stands on line {first_line[row.id]}")
        first_line.setdefault(row.id, number)
        rows.append(row)
    if not (rows or faults):
        faults.append("it is empty")
    if faults:
        more = len(faults) - _MAX_FAULTS
        told = faults[:_MAX_FAULTS] + ([f"and {more} more"] if more > 0 else [])
        raise UsageError(
            f"wanted one {kind.__name__.lower()} a line in {path}, found {len(faults)} "
            f"fault{'s' * (len(faults) != 1)} to mend: " + "; ".join(told)
        )
    return tuple(rows)


def _told(err: ValidationError) -> Iterator[str]:
    """Yield each fault of one line in words."""
    for fault in err.errors():
        place = ".".join(str(part) for part in fault["loc"])
        came = "" if fault["type"] == "missing" else f", got {shown(fault['input'])}"
        message = fault["msg"].removeprefix("Value error, ")
        yield f"{place}: {message}{came}" if place else message
