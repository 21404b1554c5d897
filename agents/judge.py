"""A model that judges answers: marks by a rubric, or which of two is better.

    marks = await mark(engine, load_rubric(), answers, how="probabilities")
    views = await compare(engine, load_rubric(), answers, pairs_of(answers), how="reply")

`probabilities` reads the expected mark, or the preference, from the judge's own probabilities
of what it could reply; `reply` lets it write and reads what it wrote. Every pair is shown in both
orders. A judge that answers nonsense, or whose window an answer does not fit, leaves a mark
without a value and with the reason.
"""

from __future__ import annotations

import asyncio
import math
import re
import string
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator

from agents.expert import seed_for
from agents.generation import Engine, Generation, Message, Sampling
from orbweave.errors import EngineError, UsageError, shown
from orbweave.records import Record

__all__ = [
    "RUBRICS",
    "Answer",
    "How",
    "Mark",
    "Rubric",
    "View",
    "compare",
    "load_rubric",
    "mark",
    "pairs_of",
    "read_choice",
    "read_mark",
]

Asked = tuple[int, int, int]
Found = TypeVar("Found")
RUBRICS = Path(__file__).with_name("rubrics")
"""The shipped rubrics."""
How = Literal["probabilities", "reply"]
"""How a judge is read."""
Outcome = Literal["judged", "unreadable", "timed out", "failed"]
"""What came of one question to the judge.

judged      there is a value
unreadable  it wrote nothing that is a mark or a choice, in all its tries
timed out   no reply within the time limit
failed      it could not answer, for instance because the text does not fit its window
"""
_TRIES = 2
"""Attempts at a written mark, each with its own seed."""
_AT_ONCE = 16
"""Questions under way at once; the engine answers so many in one batch."""
_REPLY_TOKENS = 48
_WRITTEN = Sampling(temperature=0.3, top_p=0.9, top_k=50, repetition_penalty=1.0)
_NUMBER = re.compile(r"(?<![\w.,-])\d{1,4}(?:\.\d+)?(?![\w%]|[.,]\d)")
_CHOICES = {"A": 1.0, "B": 0.0, "tie": 0.5, "Tie": 0.5, "TIE": 0.5}
_CHOICE = re.compile(rf"\b({'|'.join(_CHOICES)})\b")
_AFTER_NAME = r"(?:\w*[^\W_su]s|wrote|gave|did|had|can|could|would|may|and|or|over|because|since)\b"
"""What goes on behind the name A: a verb or a conjunction. Behind the article a noun does."""
_ARTICLE = re.compile(rf"(?:(?<![^\n])|(?<=[.!?:]\s))[*\"'(\[ ]*A(?= +(?!{_AFTER_NAME})[a-z])")
"""The capital A that opens a sentence and is no name."""


class Answer(Record):
    """One answer of one model to one question."""

    model: str
    """Who wrote it; never shown to a judge."""
    question: str
    answer: str
    round: str = ""
    """Answers are compared within one round, for instance one seed."""


class Criterion(Record):
    """One thing that is marked."""

    name: str
    meaning: str
    """In words, for the judge."""


class Rubric(Record):
    """What is marked and in which words a judge is asked."""

    name: str
    system: str
    lowest: int = 1
    highest: int = 10
    criteria: Annotated[tuple[Criterion, ...], Field(min_length=1)]
    wordings: Annotated[tuple[str, ...], Field(min_length=1)]
    """Ways to ask for a mark; places question, answer, meaning, lowest, highest."""
    pair_wordings: Annotated[tuple[str, ...], Field(min_length=1)]
    """Ways to ask which is better; places question, first, second."""

    @model_validator(mode="after")
    def _places_fit(self) -> Rubric:
        if self.lowest >= self.highest:
            raise ValueError(f"lowest {self.lowest} is not below highest {self.highest}")
        _check_places(self.wordings, {"question", "answer", "meaning", "lowest", "highest"})
        _check_places(self.pair_wordings, {"question", "first", "second"})
        return self

    def mark_chat(self, answer: Answer, criterion: Criterion, repeat: int) -> tuple[Message, ...]:
        """Return the chat that asks for one mark."""
        user = self.wordings[repeat % len(self.wordings)].format(
            question=_quoted(answer.question),
            answer=_quoted(answer.answer),
            meaning=criterion.meaning,
            lowest=self.lowest,
            highest=self.highest,
        )
        return Message("system", self.system), Message("user", user)

    def pair_chat(self, first: Answer, second: Answer, repeat: int) -> tuple[Message, ...]:
        """Return the chat that asks which of two is better; A is the first."""
        user = self.pair_wordings[repeat % len(self.pair_wordings)].format(
            question=_quoted(first.question),
            first=_quoted(first.answer),
            second=_quoted(second.answer),
        )
        return Message("system", self.system), Message("user", user)


class Mark(Record):
    """One mark for one answer."""

    answer: int
    """Index of the answer."""
    criterion: str
    repeat: int
    value: float | None
    """In [lowest, highest]; None if there is none."""
    outcome: Outcome = "judged"
    said: str = ""
    """What the judge wrote, or why there is no value."""


class View(Record):
    """Which of two answers a judge preferred, in one order."""

    first: int
    """Index of the answer shown first."""
    second: int
    repeat: int
    share: float | None
    """Preference for the first, in [0, 1]; 0.5 is a tie; None if there is none."""
    outcome: Outcome = "judged"
    said: str = ""


class _Said(NamedTuple):
    value: float | None
    outcome: Outcome
    said: str


def load_rubric(source: str | Path = "paper") -> Rubric:
    """Return a shipped rubric by name, or one read from a YAML file.

    Raises:
        UsageError: there is none, or the file is none.
    """
    path = Path(source)
    if not path.suffix:
        path = RUBRICS / f"{source}.yaml"
    try:
        return Rubric.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except OSError as err:
        known = ", ".join(sorted(p.stem for p in RUBRICS.glob("*.yaml")))
        raise UsageError(
            f"wanted a rubric, got {shown(source)}: {err.strerror}; shipped are {known}"
        ) from err
    except ValidationError as err:
        faults = "; ".join(f"at {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in err.errors())
        raise UsageError(f"wanted a rubric in {shown(path)}; {faults}") from err
    except (yaml.YAMLError, ValueError, RecursionError) as err:  # a date such as 2024-13-45
        raise UsageError(f"wanted a rubric in {shown(path)}; {shown(err, 160)}") from err


def pairs_of(answers: Sequence[Answer]) -> list[tuple[int, int]]:
    """Return every pair of answers by two models to one question in one round, by index."""

    def comparable(a: Answer, b: Answer) -> bool:
        return (a.question, a.round) == (b.question, b.round) and a.model != b.model

    pairs = combinations(range(len(answers)), 2)
    return [(i, j) for i, j in pairs if comparable(answers[i], answers[j])]


async def mark(
    engine: Engine,
    rubric: Rubric,
    answers: Sequence[Answer],
    *,
    how: How,
    repeats: int = 1,
    seed: int = 0,
    timeout_s: float = 300.0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    known: Sequence[Mark] = (),
    keep: Callable[[Mark], None] = lambda mark: None,
) -> list[Mark]:
    """Return a mark for every answer, criterion and repeat, in this order.

    Args:
        engine: The judge.
        rubric: What is marked.
        answers: What is judged.
        how: How the judge is read.
        repeats: Times each is asked, in another wording and with another seed.
        seed: Of written replies.
        timeout_s: Longest wait for one reply.
        on_progress: Told (done, total).
        known: Marks of an earlier run of the same call; these are not asked for again.
        keep: Given each of the others as it comes.
    """
    there = {(each.answer, each.criterion, each.repeat): each for each in known}
    asked = list(product(range(len(answers)), range(len(rubric.criteria)), range(repeats)))

    async def one(answer: int, criterion: int, repeat: int) -> Mark:
        name = rubric.criteria[criterion].name
        if (answer, name, repeat) in there:
            return there[answer, name, repeat]
        chat = rubric.mark_chat(answers[answer], rubric.criteria[criterion], repeat)
        if how == "probabilities":
            work = _expected_mark(engine, rubric, chat)
        else:
            work = _written_mark(engine, rubric, chat, seed_for(seed, answer, criterion, repeat))
        value, outcome, said = await _named(work, timeout_s)
        made = Mark(
            answer=answer, criterion=name, repeat=repeat, value=value, outcome=outcome, said=said
        )
        keep(made)
        return made

    return await _all(one, asked, on_progress)


async def compare(
    engine: Engine,
    rubric: Rubric,
    answers: Sequence[Answer],
    pairs: Sequence[tuple[int, int]],
    *,
    how: How,
    repeats: int = 1,
    seed: int = 0,
    timeout_s: float = 300.0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    known: Sequence[View] = (),
    keep: Callable[[View], None] = lambda view: None,
) -> list[View]:
    """Return which of each pair is better, in both orders and for every repeat.

    Args and how errors are told are as in `mark`.
    """
    both = [(i, j, r) for i, j in pairs for r in range(repeats)]
    asked = [order for i, j, r in both for order in ((i, j, r), (j, i, r))]
    there = {(each.first, each.second, each.repeat): each for each in known}

    async def one(first: int, second: int, repeat: int) -> View:
        if (first, second, repeat) in there:
            return there[first, second, repeat]
        chat = rubric.pair_chat(answers[first], answers[second], repeat)
        if how == "probabilities":
            work = _preference(engine, chat)
        else:
            work = _written_choice(engine, chat, seed_for(seed, first, second, repeat))
        share, outcome, said = await _named(work, timeout_s)
        made = View(
            first=first, second=second, repeat=repeat, share=share, outcome=outcome, said=said
        )
        keep(made)
        return made

    return await _all(one, asked, on_progress)


def read_mark(text: str, lowest: int, highest: int) -> float | None:
    """Return the mark in a judge's reply; None if there is none, or more than one could be meant.

    `N/HIGHEST` counts first, then a number behind the word score, then the only number there is.
    A mark outside the scale is none.
    """
    over = re.findall(rf"({_NUMBER.pattern})\s*(?:/|out of)\s*{highest}\b", text, re.I)
    no_more = r"(?!\s*(?:[/\u2013-]|to\b|or\b|out of\b)\s*\d)"  # another scale, or a range
    after = re.findall(rf"\bscore\b\W{{0,6}}({_NUMBER.pattern}){no_more}", text, re.I)
    found = over or after or _NUMBER.findall(text)
    values = {float(number) for number in found}
    if len(values) != 1:
        return None
    value = values.pop()
    return value if lowest <= value <= highest else None


def read_choice(text: str) -> float | None:
    """Return the preference for A in a judge's reply: 1, 0 or 0.5; None if it is not clear.

    In "A better answer is B" the first word is no choice, but in "A clearer than B" it may be.
    """
    said = text.strip()
    if re.search(rf"{_ARTICLE.pattern}[^.!?\n]*\bthan\b", said):
        return None
    said = _ARTICLE.sub("", said).lstrip("*\"'([ ")
    opening = _CHOICE.match(said)
    found = {_CHOICES[word] for word in _CHOICE.findall(said)}
    if opening and not re.match(r"\s+\w+", said[opening.end() :]):
        return _CHOICES[opening[0]]
    return found.pop() if len(found) == 1 else None


async def _expected_mark(engine: Engine, rubric: Rubric, chat: Sequence[Message]) -> _Said:
    """Return the mean mark under the judge's own probabilities."""
    marks = range(rubric.lowest, rubric.highest + 1)
    # What follows the number keeps 1 from being the beginning of 10.
    shares = await _shares(engine, chat, [f"Score: {n}/{rubric.highest}" for n in marks])
    value = sum(n * share for n, share in zip(marks, shares, strict=True))
    return _Said(value, "judged", "")


async def _preference(engine: Engine, chat: Sequence[Message]) -> _Said:
    share, _ = await _shares(engine, chat, ["A", "B"])
    return _Said(share, "judged", "")


async def _shares(engine: Engine, chat: Sequence[Message], options: Sequence[str]) -> list[float]:
    """Return how likely each option is among these; they sum to 1.

    Raises:
        EngineError: the judge cannot tell.
    """
    logs = await engine.logprobs(chat, options)
    top = max(logs)
    weights = [math.exp(value - top) for value in logs]
    if not math.isfinite(sum(weights)):
        raise EngineError(f"wanted probabilities of {engine.model}, got {shown(logs)}")
    return [weight / sum(weights) for weight in weights]


async def _written_mark(
    engine: Engine, rubric: Rubric, chat: tuple[Message, ...], seed: int
) -> _Said:
    return await _written(
        engine, chat, seed, lambda text: read_mark(text, rubric.lowest, rubric.highest)
    )


async def _written_choice(engine: Engine, chat: tuple[Message, ...], seed: int) -> _Said:
    return await _written(engine, chat, seed, read_choice)


async def _written(
    engine: Engine, chat: tuple[Message, ...], seed: int, read: Callable[[str], float | None]
) -> _Said:
    """Return what the judge wrote, asked again if it cannot be read."""
    text = ""
    for attempt in range(_TRIES):
        reply = await engine.generate(
            Generation(chat, _WRITTEN, max_new_tokens=_REPLY_TOKENS, seed=seed_for(seed, attempt))
        )
        text = reply.text.strip()
        value = read(text)
        if value is not None:
            return _Said(value, "judged", text)
    return _Said(None, "unreadable", text)


async def _named(work: Awaitable[_Said], timeout_s: float) -> _Said:
    """Return what the judge said, or why it said nothing."""
    try:
        return await asyncio.wait_for(work, timeout_s)
    except TimeoutError:
        return _Said(None, "timed out", f"no reply within {timeout_s:g} s")
    except EngineError as err:
        return _Said(None, "failed", str(err))


async def _all(
    one: Callable[[int, int, int], Awaitable[Found]],
    asked: Sequence[Asked],
    on_progress: Callable[[int, int], None],
) -> list[Found]:
    """Return what `one` gives for everything asked, in order, a bounded number at a time."""
    places, n_done = asyncio.Semaphore(_AT_ONCE), 0

    async def placed(question: Asked) -> Found:
        nonlocal n_done
        async with places:
            found = await one(*question)
        n_done += 1
        on_progress(n_done, len(asked))
        return found

    return await asyncio.gather(*map(placed, asked))


def _quoted(text: str) -> str:
    """Return a text that cannot close the marks it stands between."""
    return re.sub(r"<<(?=<)|>>(?=>)", r"\g<0> ", text.strip())


def _check_places(wordings: Iterable[str], known: set[str]) -> None:
    """Raise ValueError for a wording that lacks a place, names another or gives one a format."""
    for wording in wordings:
        parsed = list(string.Formatter().parse(wording))
        if any(form or conversion for _, _, form, conversion in parsed):
            raise ValueError(f"wanted plain names in braces, got a format in {shown(wording)}")
        places = {place for _, place, _, _ in parsed if place}
        wanted = known - {"lowest", "highest"}
        if not wanted <= places <= known:
            raise ValueError(
                f"wanted the places {', '.join(sorted(wanted))} in a wording, "
                f"got {', '.join(sorted(places)) or 'none'}"
            )
