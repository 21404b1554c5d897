"""Answers judged: tables of marks and preferences, blind forms for people, pairs to train on.

OUT/
    judgement.json   tables, biases and what could not be judged
    marks.jsonl      every mark as the judge gave it
    views.jsonl      every comparison in the order it was shown
    report.md        the tables for reading
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.judge import Answer, Mark, Rubric, View, pairs_of
from agents.ranking import (
    Contest,
    Pace,
    Place,
    Standing,
    correlation,
    first_shown,
    rank,
    standings,
)
from orbweave.errors import UsageError, shown
from orbweave.files import build_folder, write_text
from orbweave.statistics import Interval
from ui.markdown import aligned_table

__all__ = [
    "Judgement",
    "Preferences",
    "conclude",
    "document",
    "is_judgement",
    "preference_rows",
    "preferences",
    "read_picks",
    "report",
    "write_form",
    "write_judgement",
    "write_pairs",
]

RECORD = "judgement.json"
PICKS = {"first": 1.0, "second": 0.0, "tie": 0.5}
"""What a person may write into a form."""


@dataclass(frozen=True)
class Preferences:
    """What comparisons say."""

    contests: tuple[Contest, ...]
    pairs: tuple[tuple[int, int], ...]
    """The answers of each contest, by index."""
    places: tuple[Place, ...]
    pace: Pace | None
    """How often the answer shown first was preferred."""
    length: float | None
    """Rank correlation of preference with the ratio of lengths in words."""
    n_turned: int
    """Pairs whose verdict turned with their order; they count as ties."""
    n_unjudged: int
    """Pairs without a verdict in every order that was shown."""


@dataclass(frozen=True)
class Judgement:
    """Everything a run of the judge found."""

    judge: str
    """Model reference, or `people`."""
    how: str
    rubric: str
    models: tuple[str, ...]
    n_answers: int
    criteria: tuple[str, ...] = ()
    standings: tuple[Standing, ...] = ()
    length: float | None = None
    """Rank correlation of an answer's total with its length in words."""
    preferences: Preferences | None = None
    unjudged: tuple[tuple[str, int], ...] = ()
    """(outcome, how many questions to the judge ended so)."""
    example: str = ""
    """What the judge said where it could not be read, once."""

    @property
    def judges_itself(self) -> bool:
        """Whether the judge is among the judged."""
        return self.judge in self.models

    @property
    def is_empty(self) -> bool:
        """Whether nothing could be judged at all."""
        compared = self.preferences is not None and self.preferences.contests
        return not self.standings and not compared


def conclude(
    answers: Sequence[Answer],
    rubric: Rubric,
    *,
    judge: str,
    how: str,
    marks: Sequence[Mark] = (),
    views: Sequence[View] = (),
    seed: int = 0,
) -> Judgement:
    """Return what marks and views say of the models.

    An answer counts in a repeat if it has a mark in every criterion there.
    """
    asked: list[Mark | View] = [*marks, *views]
    missing = [each for each in asked if each.outcome != "judged"]
    by_answer = _whole_repeats(answers, rubric, marks)
    by_model: dict[str, list[list[dict[str, float]]]] = {}
    for index, repeats in by_answer.items():
        by_model.setdefault(answers[index].model, []).append(repeats)
    totals = [float(np.mean([sum(r.values()) for r in rs])) for rs in by_answer.values()]
    return Judgement(
        judge=judge,
        how=how,
        rubric=rubric.name,
        models=tuple(dict.fromkeys(answer.model for answer in answers)),
        n_answers=len(answers),
        criteria=tuple(criterion.name for criterion in rubric.criteria),
        standings=tuple(standings(by_model, highest=rubric.highest, seed=seed)),
        length=correlation([_words(answers[i].answer) for i in by_answer], totals),
        preferences=preferences(answers, views, seed=seed) if views else None,
        unjudged=tuple(sorted(Counter(each.outcome for each in missing).items())),
        example=missing[0].said if missing else "",
    )


def preferences(
    answers: Sequence[Answer], views: Sequence[View], *, both_orders: bool = True, seed: int = 0
) -> Preferences:
    """Return what comparisons say; with `both_orders` a verdict needs both to agree."""
    seen: dict[tuple[int, int], tuple[list[float], list[float]]] = {}
    as_shown: dict[tuple[int, int], list[float]] = {}
    for view in views:
        orders = seen.setdefault(_sorted(view), ([], []))
        if view.share is not None:
            as_shown.setdefault(_sorted(view), []).append(view.share)
            is_forward = view.first < view.second
            orders[not is_forward].append(view.share if is_forward else 1 - view.share)
    contests, pairs, turned, leanings = [], [], 0, []
    for (i, j), orders in seen.items():
        shares = [float(np.mean(order)) for order in orders if order]
        if len(shares) < (2 if both_orders else 1):
            continue
        result = 1.0 if min(shares) > 0.5 else 0.0 if max(shares) < 0.5 else 0.5
        turned += min(shares) < 0.5 < max(shares)
        question = f"{answers[i].question}\n{answers[i].round}"
        contests.append(Contest(answers[i].model, answers[j].model, question, result))
        pairs.append((i, j))
        leanings.append(float(np.mean(shares)))
    ratios = [_words(answers[i].answer) / max(1, _words(answers[j].answer)) for i, j in pairs]
    return Preferences(
        contests=tuple(contests),
        pairs=tuple(pairs),
        places=tuple(rank(contests, seed=seed)),
        pace=first_shown(as_shown.values()),
        length=correlation(ratios, leanings),
        n_turned=turned,
        n_unjudged=len(seen) - len(contests),
    )


# ---------------------------------------------------------------- people


def write_form(answers: Sequence[Answer], path: Path, *, seed: int, force: bool = False) -> int:
    """Write every pair for a person to pick from, without names, in an order of the seed.

    Each line holds key, question, first, second and an empty `pick`, which takes `first`,
    `second` or `tie`. Two equal answers are left out.

    Returns:
        The number of lines.
    """
    rng = np.random.default_rng(seed)
    shown_pairs = [(i, j) if rng.random() < 0.5 else (j, i) for i, j in pairs_of(answers)]
    lines = {}
    for place in rng.permutation(len(shown_pairs)):
        first, second = (answers[i] for i in shown_pairs[place])
        if first.answer.strip() != second.answer.strip():
            line = {"key": _key(first, second), "question": first.question}
            line |= {"first": first.answer, "second": second.answer, "pick": ""}
            lines[line["key"]] = json.dumps(line, ensure_ascii=False)
    write_text(path, "".join(line + "\n" for line in lines.values()), force=force)
    return len(lines)


def read_picks(answers: Sequence[Answer], path: Path) -> list[View]:
    """Return a person's picks; lines without a pick are passed over.

    Raises:
        UsageError: every line that is damaged or belongs to other answers, in one message.
    """
    known: dict[str, list[tuple[int, int]]] = {}
    for i, j in pairs_of(answers):
        known.setdefault(_key(answers[i], answers[j]), []).append((i, j))
        known.setdefault(_key(answers[j], answers[i]), []).append((j, i))
    views, faults = [], []
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as err:
        reason = getattr(err, "strerror", None) or "not a text file"
        raise UsageError(f"wanted a form with picks, got {shown(path)}: {reason}") from err
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            key, pick = row["key"], str(row["pick"]).strip().lower()
        except (ValueError, KeyError, TypeError, RecursionError) as err:
            faults.append(f"line {number}: wanted key and pick, {shown(err)}")
            continue
        if key not in known:
            faults.append(f"line {number}: its key belongs to other answers than these")
        elif pick and pick not in PICKS:
            faults.append(f"line {number}: wanted {', '.join(PICKS)} or nothing, got {shown(pick)}")
        elif pick:
            views += [View(first=i, second=j, repeat=0, share=PICKS[pick]) for i, j in known[key]]
    if faults:
        raise UsageError(f"wanted picks in {path}: {'; '.join(faults)}")
    return views


# ---------------------------------------------------------------- what is written


def preference_rows(answers: Sequence[Answer], found: Preferences, by: str) -> list[dict[str, str]]:
    """Return decided pairs as training reads them: prompt, chosen, rejected; ties are left out."""
    rows = []
    for (i, j), contest in zip(found.pairs, found.contests, strict=True):
        if contest.result != 0.5:
            good, bad = (i, j) if contest.result == 1.0 else (j, i)
            row = {"id": _key(answers[good], answers[bad]), "prompt": answers[i].question}
            row |= {"chosen": answers[good].answer, "rejected": answers[bad].answer}
            row |= {"chosen_model": answers[good].model, "rejected_model": answers[bad].model}
            rows.append(row | {"judge": by})
    return rows


def write_pairs(rows: Sequence[dict[str, str]], path: Path, *, force: bool = False) -> None:
    """Write preference pairs, one line each."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(path, "".join(lines), force=force)


def is_judgement(folder: Path) -> bool:
    """Whether a folder holds what a judge found."""
    return (folder / RECORD).is_file()


def write_judgement(
    found: Judgement,
    marks: Sequence[Mark],
    views: Sequence[View],
    answers: Sequence[Answer],
    out: Path,
    *,
    force: bool = False,
) -> None:
    """Write the folder, whole or not at all."""
    with build_folder(out, force=force) as folder:
        text = json.dumps(document(found), ensure_ascii=False, indent=2)
        (folder / RECORD).write_text(text + "\n", encoding="utf-8")
        (folder / "report.md").write_text(report(found), encoding="utf-8")
        for name, rows in (("answers", answers), ("marks", marks), ("views", views)):
            lines = "".join(row.model_dump_json() + "\n" for row in rows)
            (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def document(found: Judgement) -> dict[str, Any]:
    """Return a judgement as JSON."""
    told: dict[str, Any] = {
        "judge": found.judge,
        "how": found.how,
        "rubric": found.rubric,
        "judges_itself": found.judges_itself,
        "answers": found.n_answers,
        "standings": [_plain(row._asdict()) for row in found.standings],
        "length_correlation": found.length,
        "unjudged": dict(found.unjudged),
        "unjudged_example": found.example,
    }
    if found.preferences is not None:
        chosen = found.preferences
        told["preferences"] = {
            "ranking": [_plain(place._asdict()) for place in chosen.places],
            "pairs": len(chosen.contests),
            "turned_with_order": chosen.n_turned,
            "unjudged_pairs": chosen.n_unjudged,
            "first_shown": _plain(chosen.pace._asdict()) if chosen.pace else None,
            "length_correlation": chosen.length,
        }
    return told


def report(found: Judgement) -> str:
    """Return the tables as Markdown."""
    parts = [
        f"# Judged by {found.judge}\n",
        f"{found.n_answers} answers, read by {found.how}, rubric {found.rubric}.\n",
    ]
    if found.judges_itself:
        parts.append("The judge is among the judged: models tend to prefer their own answers.\n")
    if found.standings:
        head = ["model", "n", *found.criteria, "total", "mean", "normalised", "spread"]
        parts.append(aligned_table(head, [_standing_cells(row) for row in found.standings]))
        parts.append(
            "Total with its 95 % interval over answers; spread: standard deviation of the total "
            f"over repeats. Length bias: {_number(found.length, '+.2f')} "
            "(rank correlation of total and words).\n"
        )
    if found.preferences is not None:
        parts += _preference_parts(found.preferences)
    if found.unjudged:
        told = ", ".join(f"{n} {outcome}" for outcome, n in found.unjudged)
        parts.append(f"Not judged: {told}; for instance {shown(found.example, 120)}.\n")
    return "\n".join(parts)


def _preference_parts(found: Preferences) -> list[str]:
    head = ["model", "wins", "ties", "losses", "win rate", "strength"]
    rows = [
        [p.model, str(p.wins), str(p.ties), str(p.losses), _percent(p), f"{p.strength:+.2f}"]
        for p in found.places
    ]
    pace = found.pace
    first = "no clear preference"
    if pace is not None:
        first = (
            f"the answer shown first was preferred in {100 * pace.share:.0f} % "
            f"({100 * pace.interval.low:.0f} to {100 * pace.interval.high:.0f}) of the views of "
            f"{pace.n} pairs, each pair counted once"
        )
    return [
        aligned_table(head, rows),
        f"{len(found.contests)} pairs; {found.n_turned} verdicts turned with the order and count "
        f"as ties; {found.n_unjudged} pairs have none. Position bias: {first}. Length bias: "
        f"{_number(found.length, '+.2f')} (rank correlation of preference and ratio of words). "
        "Win rates with 95 % intervals over questions; strength is Bradley-Terry's.\n",
    ]


def _standing_cells(row: Standing) -> list[str]:
    marks = [f"{value:.2f}" for value in row.marks.values()]
    total = f"{row.total:.2f}{_bounds(row.interval, 1)}"
    end = [f"{row.mean:.2f}", f"{row.normalised:.1f}", _number(row.spread, ".2f")]
    return [row.model, str(row.n), *marks, total, *end]


def _percent(place: Place) -> str:
    return f"{100 * place.win_rate:.0f} %{_bounds(place.interval, 100)}"


def _bounds(interval: Interval | None, scale: int) -> str:
    if interval is None:
        return ""
    form = ".0f" if scale == 100 else ".2f"
    return f" ({scale * interval.low:{form}} to {scale * interval.high:{form}})"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a record with its intervals as [low, high]."""
    return {k: list(v) if isinstance(v, Interval) else v for k, v in fields.items()}


def _whole_repeats(
    answers: Sequence[Answer], rubric: Rubric, marks: Sequence[Mark]
) -> dict[int, list[dict[str, float]]]:
    """Return answer -> its repeats that have a mark in every criterion."""
    cells: dict[tuple[int, int], dict[str, float]] = {}
    for each in marks:
        if each.value is not None:
            cells.setdefault((each.answer, each.repeat), {})[each.criterion] = each.value
    whole: dict[int, list[dict[str, float]]] = {}
    for (answer, _), found in sorted(cells.items(), key=lambda item: item[0]):
        if len(found) == len(rubric.criteria):
            whole.setdefault(answer, []).append(found)
    return whole


def _sorted(view: View) -> tuple[int, int]:
    return min(view.first, view.second), max(view.first, view.second)


def _words(text: str) -> int:
    return len(text.split())


def _key(first: Answer, second: Answer) -> str:
    """Return what tells a pair in this order, and nothing of who wrote it."""
    texts = "\0".join([first.question, first.round, first.answer, second.answer])
    return hashlib.sha256(texts.encode()).hexdigest()[:16]
