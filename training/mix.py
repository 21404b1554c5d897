"""What a stage learns from: sources mixed by fraction.

A source is a name of `training.items.SOURCES` or a file: jsonl, json, csv or parquet, in the
shapes people have at hand (each row one of):

    {"text"}                                           a text
    {"messages": [{"role", "content"}]}                a chat (TRL)
    {"prompt", "completion"}                           a chat of one exchange (TRL)
    {"prompt", "chosen", "rejected"}                   a preference (TRL)
    {"instruction", "input", "output"}                 Alpaca
    {"conversations": [{"from", "value"}]}             ShareGPT
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from orbweave.errors import UsageError, shown
from training.items import SOURCES, Material, shipped_rows
from training.recipe import Recipe, Stage
from training.rows import Row, Turn, split

__all__ = ["Mixture", "join_chats", "mix", "read_rows", "take"]

_MOST_HELD = 100
"""Rows of one source that are held out at most; measuring them costs time in every epoch."""
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
_ROLES |= {"system": "system"}


class Mixture(NamedTuple):
    """The rows of one stage."""

    learnt: list[Row]
    held_out: list[Row]
    counts: dict[str, int]
    """Source -> rows learnt from, repeats included."""


def mix(stage: Stage, recipe: Recipe, material: Material) -> Mixture:
    """Return the rows of a stage, split by item before anything is repeated or joined.

    Raises:
        UsageError: every fault of every source, in one message.
    """
    learnt: list[Row] = []
    held: list[Row] = []
    counts: dict[str, int] = {}
    faults: list[str] = []
    for number, (source, fraction) in enumerate(stage.data.items()):
        try:
            rows = _rows_of(source, recipe, material)
            rows = [_fit(row, stage.method) for row in rows]
        except UsageError as err:
            faults.append(str(err))
            continue
        if not rows:
            faults.append(f"wanted rows from {shown(source)}, found none for this recipe")
            continue
        known, unseen = split(rows, recipe.held_out)
        taken = take(known, fraction, np.random.default_rng([recipe.seed, number]))
        counts[source] = len(taken)
        learnt += taken
        held += unseen[:_MOST_HELD]
    if faults:
        raise UsageError("; ".join(faults))
    if stage.method == "sft" and stage.join > 1:
        rng = np.random.default_rng([recipe.seed, stage.join])
        learnt, held = join_chats(learnt, stage.join, rng), join_chats(held, stage.join, rng)
    return Mixture(learnt, held, counts)


def take(rows: Sequence[Row], fraction: float, rng: np.random.Generator) -> list[Row]:
    """Return the rows `fraction` times: whole copies, then a random part without repeats."""
    whole, part = divmod(fraction, 1.0)
    extra = rng.permutation(len(rows))[: round(part * len(rows))]
    return [*(list(rows) * int(whole)), *(rows[i] for i in sorted(extra))]


def join_chats(rows: Sequence[Row], size: int, rng: np.random.Generator) -> list[Row]:
    """Join single exchanges without a system text into chats of `size`; leave other rows as is.

    Rows that rest on the same item do not meet in one chat where it can be helped: one would
    tell the answer of the other.
    """

    def is_single(row: Row) -> bool:
        return len(row.turns) == 2 and row.turns[0].role == "user"

    single = sorted((r for r in rows if is_single(r)), key=lambda r: r.id)
    n_chats = -(-len(single) // size)
    joined = []
    for first in rng.permutation(n_chats):
        hand = single[first::n_chats]  # a stride apart, so not from one item
        turns = (turn for i in rng.permutation(len(hand)) for turn in hand[i].turns)
        joined.append(replace(hand[0], source="joined", turns=tuple(turns)))
    return [*joined, *(r for r in rows if not is_single(r))]


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file.

    Raises:
        UsageError: no such file, not one of the formats, or a row of no known shape.
    """
    try:
        records = list(_records(path))
    except (OSError, ValueError, UnicodeDecodeError) as err:
        raise UsageError(f"wanted training data in {path}, {shown(err, 120)}") from err
    rows = []
    for number, record in enumerate(records, 1):
        row = _row(record, path.name, number)
        if row is None:
            keys = ", ".join(sorted(record)) if isinstance(record, dict) else shown(record)
            raise UsageError(
                f"wanted text, messages, prompt + completion, prompt + chosen + rejected, "
                f"instruction + output or conversations in row {number} of {path}, got {keys}"
            )
        rows.append(row)
    return rows


def _rows_of(source: str, recipe: Recipe, material: Material) -> list[Row]:
    if source in SOURCES:
        rows = shipped_rows(source, material, recipe.seed)
        return [r for r in rows if not recipe.domains or r.domain in recipe.domains]
    if "/" in source or Path(source).suffix:
        return read_rows(Path(source).expanduser())
    raise UsageError(
        f"wanted a data source, got {shown(source)}; give a file or one of {', '.join(SOURCES)}"
    )


def _fit(row: Row, method: str) -> Row:
    """Return the row as the method needs it.

    Raises:
        UsageError: it holds no chat, or no rejected reply.
    """
    if method == "cpt":
        return row if row.text else replace(row, text="\n".join(t.content for t in row.turns))
    if not row.turns:
        raise UsageError(f"wanted chats for {method}, {row.source} holds plain text")
    if method in {"dpo", "orpo"} and row.rejected is None:
        raise UsageError(f"wanted chosen and rejected for {method}, {row.source} has replies only")
    return row


def _records(path: Path) -> Iterable[Any]:
    """Return the raw records of a file by its ending."""
    ending = path.suffix.lower()
    if ending == ".jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line.strip()]
    if ending == ".json":
        value = json.loads(path.read_text("utf-8"))
        return value if isinstance(value, list) else [value]
    if ending in {".csv", ".parquet"}:
        import pandas

        frame = pandas.read_csv(path) if ending == ".csv" else pandas.read_parquet(path)
        return [dict(record) for record in frame.to_dict("records")]
    raise ValueError(f"it ends in {ending or 'nothing'}; jsonl, json, csv and parquet are read")


def _row(record: Any, name: str, number: int) -> Row | None:
    """Return one record as a row, None if it has no known shape."""
    if not isinstance(record, Mapping):
        return None
    head = (str(record.get("id") or f"{name}:{number}"), name)
    text, messages = record.get("text"), record.get("messages")
    if isinstance(text, str) and text.strip():
        return Row(*head, text=text)
    if messages is None and isinstance(record.get("conversations"), list):
        messages = [
            {"role": m.get("from"), "content": m.get("value")} for m in record["conversations"]
        ]
    if messages is not None:
        turns = _turns(messages)
        return Row(*head, turns=turns) if turns and turns[-1].role == "assistant" else None
    if "instruction" in record and _is_text(record.get("output")):
        given = record.get("input")
        asked = "\n".join(str(p) for p in (record["instruction"], given) if _is_text(p))
        return Row(*head, turns=(Turn("user", asked), Turn("assistant", record["output"])))
    asked_turns = _asked(record.get("prompt"))
    chosen = _reply(record.get("chosen", record.get("completion")))
    if not asked_turns or chosen is None:
        return None
    rejected = _reply(record.get("rejected"))
    if "chosen" in record and rejected is None:
        return None
    return Row(*head, turns=(*asked_turns, Turn("assistant", chosen)), rejected=rejected)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _turns(messages: Any) -> tuple[Turn, ...]:
    """Return messages as turns; empty if one of them is none."""
    try:
        return tuple(Turn(_ROLES[m["role"]], str(m["content"])) for m in messages)  # type: ignore[arg-type]
    except (KeyError, TypeError):
        return ()


def _asked(prompt: Any) -> tuple[Turn, ...]:
    """Return a prompt, text or messages, as turns."""
    if isinstance(prompt, str):
        return (Turn("user", prompt),) if prompt.strip() else ()
    return _turns(prompt) if isinstance(prompt, list) else ()


def _reply(value: Any) -> str | None:
    """Return a reply, text or a list of messages, as text."""
    if isinstance(value, list):
        turns = _turns(value)
        return turns[-1].content if turns else None
    return value if _is_text(value) else None
