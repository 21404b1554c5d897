"""Training examples before they become tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

__all__ = ["Row", "Turn", "digest", "split"]


class Turn(NamedTuple):
    """One chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Row:
    """One example: a text, a chat, or a chat with a reply that must not be given."""

    id: str
    """Unique within its source; what the held-out part is chosen by."""
    source: str
    text: str = ""
    """For continued pre-training; empty for chats."""
    turns: tuple[Turn, ...] = ()
    """Ends with the assistant's reply."""
    rejected: str | None = None
    """For preferences: the worse last reply."""
    domain: str = ""


def split(rows: Sequence[Row], share: float) -> tuple[list[Row], list[Row]]:
    """Return (rows to learn, rows held out); a row's id alone decides, whatever the order."""
    learnt: list[Row] = []
    held: list[Row] = []
    for row in rows:
        place = int(hashlib.sha256(row.id.encode()).hexdigest()[:8], 16) / 2**32
        (held if place < share else learnt).append(row)
    return learnt, held


def digest(rows: Iterable[Row]) -> str:
    """Return one SHA-256 of the rows' contents, order included."""
    total = hashlib.sha256()
    for row in rows:
        total.update(repr(asdict(row)).encode())
    return total.hexdigest()
