"""What a person should know before merging, one sentence at a time."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple

__all__ = ["Finding", "fault", "mismatch", "note", "one_model", "some"]


class Finding(NamedTuple):
    """One thing a person should know before merging."""

    level: Literal["fault", "mismatch", "note"]
    """A fault stops the merge; a mismatch too, unless a partial merge is asked for."""
    text: str
    """What is wrong and what to do."""


def fault(text: str) -> Finding:
    """Return what stops any merge."""
    return Finding("fault", text)


def mismatch(why: str, mend: str, *, partial: bool) -> Finding:
    """Return what stops a merge, unless a partial one was asked for: then there is no mending."""
    return note(why) if partial else Finding("mismatch", f"{why}; {mend}")


def note(text: str) -> Finding:
    """Return what stops nothing."""
    return Finding("note", text)


def one_model(names: Collection[str]) -> Finding:
    """Return what is said of parents that are copies of one model."""
    return note(
        f"{' and '.join(names)} hold the same weights: a merge changes nothing; name another model"
    )


def some(names: Collection[str]) -> str:
    """Return the first of some names and how many more there are."""
    first, *rest = sorted(names)
    return f"{first} (and {len(rest)} more)" if rest else first
