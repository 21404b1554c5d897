"""Training rows that a benchmark would recognise: word for word, or in other words."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.rows import Row

__all__ = ["Embed", "Overlap", "find_overlaps", "remembered", "said"]

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts -> unit vectors (n, d)."""
_RUN = 8
"""Words in a row that two texts share when one is copied from the other; short questions
count as a whole. Brown et al. 2005.14165 take 13, for documents."""
PARAPHRASE = 0.9
"""Cosine of sentence embeddings (all-MiniLM-L6-v2) from which two questions ask the same;
chosen by reading the 60 nearest pairs of the shipped items."""


@dataclass(frozen=True)
class Overlap:
    """One training row that meets one benchmark question."""

    row: str
    source: str
    question: str
    """Text of the benchmark's question."""
    kind: str
    """`verbatim` or `paraphrase`."""
    similarity: float


def said(row: Row) -> list[str]:
    """Return what a row teaches, piece by piece: question and answer together, or the text."""
    if not row.turns:
        return [row.text]
    pieces = []
    for asked, answered in zip(row.turns, row.turns[1:], strict=False):
        if asked.role == "user" and answered.role == "assistant":
            pieces.append(f"{asked.content} {answered.content}")
    return pieces


def find_overlaps(
    rows: Sequence[Row],
    questions: Sequence[str],
    embed: Embed,
    paraphrase: float = PARAPHRASE,
) -> list[Overlap]:
    """Return the rows that repeat a question, nearest first; one line per row and kind.

    Args:
        rows: Training rows.
        questions: Each with its right answer behind it where there is one in words.
        embed: Measures how near two texts are in meaning.
        paraphrase: Cosine from which a row counts as a paraphrase.
    """
    pieces = [(row, text) for row in rows for text in said(row)]
    if not pieces or not questions:
        return []
    runs = {run: question for question in questions for run in _runs(question)}
    found = []
    known: dict[str, int] = {}
    for _, text in pieces:
        known.setdefault(text, len(known))
    vectors, asked = embed(list(known)), embed(questions)
    near = vectors @ asked.T
    for row, text in pieces:
        shared = next((runs[run] for run in _runs(text) if run in runs), None)
        scores = near[known[text]]
        best = int(scores.argmax())
        if shared is not None:
            found.append(Overlap(row.id, row.source, shared, "verbatim", 1.0))
        elif scores[best] >= paraphrase:
            similarity = round(float(scores[best]), 3)
            found.append(Overlap(row.id, row.source, questions[best], "paraphrase", similarity))
    unique = {(o.row, o.source, o.kind): o for o in sorted(found, key=lambda o: o.similarity)}
    return sorted(unique.values(), key=lambda o: (-o.similarity, o.row))


def remembered(embed: Embed) -> Embed:
    """Return the same embedding, which reads each text once however many stages ask for it."""
    known: dict[str, NDArray[np.float32]] = {}

    def looked_up(texts: Sequence[str]) -> NDArray[np.float32]:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, embed(new), strict=True))
        return np.stack([known[text] for text in texts])

    return looked_up


def _runs(text: str) -> set[tuple[str, ...]]:
    """Return every run of `_RUN` words of a text, or the whole of a shorter one."""
    words = tuple(re.findall(r"\w+", text.lower()))
    if len(words) <= _RUN:
        return {words} if len(words) > 3 else set()
    return {words[i : i + _RUN] for i in range(len(words) - _RUN + 1)}
