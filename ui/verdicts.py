"""What holding a turn against its facts found, in words for every view.

`tally` says "3 sentences checked: 2 supported, 1 plausible"; `doubts` names those in doubt, as in
"plausible: Lines taper at the rim. (shares words with leaf-0001)".
"""

from __future__ import annotations

from collections import Counter

from orbweave.records import Check, Turn

__all__ = ["COMPARED", "doubts", "reason", "tally"]

COMPARED = (
    "Each sentence was held against the facts its speaker was given. Words and numbers are "
    "compared, not meanings: a supported sentence can still be wrong."
)

VERDICTS = ("supported", "plausible", "unsupported")


def tally(turn: Turn) -> str:
    """Return how many sentences got which verdict; empty if none was checked."""
    counts = Counter[str](check.verdict for check in turn.checks)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
    n = len(turn.checks)
    return f"{n} sentence{'s' if n > 1 else ''} checked: {told}" if told else ""


def reason(check: Check) -> str:
    """Return what a verdict rests on: the facts, or what is wrong."""
    named = ", ".join(check.facts)
    by = {"supported": f"by {named}", "plausible": f"shares words with {named}"}
    return check.why or by.get(check.verdict, "in no fact")


def doubts(turn: Turn, *verdicts: str) -> tuple[str, ...]:
    """Return the sentences with these verdicts, each with its verdict and why."""
    return tuple(
        f"{check.verdict}: {check.sentence} ({reason(check)})"
        for check in turn.checks
        if check.verdict in verdicts
    )
