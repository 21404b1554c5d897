"""What a stage really learns from: a row as written, as templated, as tokens, what counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.mix import Mixture
from training.recipe import Stage
from training.rows import Row
from training.tokens import IGNORED, Encoded, encode_chat, encode_text, pair_texts

__all__ = ["Sample", "StagePreview", "preview_stage"]


@dataclass(frozen=True)
class Sample:
    """One row in its three forms."""

    source: str
    raw: str
    tokens: tuple[str, ...]
    """Every token as text."""
    counts: tuple[bool, ...]
    """Whether the token counts in the loss."""
    rejected: str | None = None

    @property
    def marked(self) -> str:
        """The templated text with the parts that count between ⟦ and ⟧."""
        parts, inside = [], False
        for token, counts in zip(self.tokens, self.counts, strict=True):
            if counts != inside:
                parts.append("⟦" if counts else "⟧")
                inside = counts
            parts.append(token)
        return "".join(parts) + ("⟧" if inside else "")


@dataclass(frozen=True)
class StagePreview:
    """A stage's rows in numbers, and a few of them in full."""

    name: str
    method: str
    counts: dict[str, int]
    length_quantiles: dict[str, int]
    """Tokens of a row: shortest, median, 95 %, longest."""
    counting_share: float
    """Tokens that count in the loss, of all."""
    duplicates: int
    """Rows that say word for word what an earlier row of the same source says, beyond the
    copies a fraction above 1 asks for."""
    too_long: int
    samples: tuple[Sample, ...]


def preview_stage(
    name: str, stage: Stage, rows: Mixture, tokenizer: Any, n_samples: int = 1
) -> StagePreview:
    """Return the preview of a stage, with `n_samples` rows of each source in full.

    Raises:
        UsageError: the template cannot write a chat of the rows.
    """
    encoded = [_encoded(tokenizer, row, stage) for row in rows.learnt]
    lengths = np.array([len(e.input_ids) for e in encoded])
    counting = sum(label != IGNORED for e in encoded for label in e.labels)
    by_source: dict[str, list[int]] = {}
    for index, row in enumerate(rows.learnt):
        by_source.setdefault(row.source, []).append(index)
    picked = [i for places in by_source.values() for i in places[:n_samples]]
    return StagePreview(
        name=name,
        method=stage.method,
        counts=rows.counts,
        length_quantiles={
            "shortest": int(lengths.min()),
            "median": int(np.median(lengths)),
            "95 %": int(np.quantile(lengths, 0.95)),
            "longest": int(lengths.max()),
        },
        counting_share=round(counting / int(lengths.sum()), 3),
        duplicates=_duplicates(rows.learnt),
        too_long=int((lengths > stage.max_length).sum()) if stage.method != "cpt" else 0,
        samples=tuple(_sample(tokenizer, rows.learnt[i], encoded[i], stage) for i in picked),
    )


def _encoded(tokenizer: Any, row: Row, stage: Stage) -> Encoded:
    if stage.method == "cpt":
        return encode_text(tokenizer, row.text)
    return encode_chat(tokenizer, row.turns, loss_on=stage.loss_on)


def _sample(tokenizer: Any, row: Row, encoded: Encoded, stage: Stage) -> Sample:
    raw = row.text or "\n".join(f"{turn.role}: {turn.content}" for turn in row.turns)
    is_pair = stage.method in {"dpo", "orpo"}
    return Sample(
        source=row.source,
        raw=raw,
        tokens=tuple(tokenizer.decode([i]) for i in encoded.input_ids),
        counts=tuple(label != IGNORED for label in encoded.labels),
        rejected=pair_texts(tokenizer, row)["rejected"] if is_pair else None,
    )


def _duplicates(rows: Sequence[Row]) -> int:
    """Count rows whose content a row of another id of the same source already had."""
    ids: dict[Any, set[str]] = {}
    for row in rows:
        ids.setdefault((row.source, row.text, row.turns, row.rejected), set()).add(row.id)
    return sum(len(known) - 1 for known in ids.values())
