"""What a person says to the team: text that is data, never an order to the frame.

Whatever it says, it stands quoted in the field that is meant for it, beside the concept, among
the notes or as feedback; the words that tell a role who it is are the team file's alone.
"""

from __future__ import annotations

import unicodedata

from orbweave.errors import UsageError, shown

__all__ = ["MAX_REMARK_CHARS", "MAX_TURN_CHARS", "clean_remark", "clean_turn", "quoted"]

MAX_REMARK_CHARS = 1_000
"""A remark is a wish in a few sentences; every later speaker reads it again."""
MAX_TURN_CHARS = 8_000
"""An edited turn; an expert's own has some 1,000 characters."""


def clean_remark(text: str) -> str:
    """Return a remark as one line of normalised text.

    Raises:
        UsageError: empty, longer than `MAX_REMARK_CHARS`, or with control characters.
    """
    return " ".join(_clean(text, "a remark", MAX_REMARK_CHARS).split())


def clean_turn(text: str) -> str:
    """Return the new text of a turn, normalised; line breaks stay.

    Raises:
        UsageError: empty, longer than `MAX_TURN_CHARS`, or with control characters.
    """
    return _clean(text, "the text of a turn", MAX_TURN_CHARS)


def quoted(text: str) -> str:
    """Return a text as data among a model's words: one line in quotation marks it cannot end."""
    return '"{}"'.format(" ".join(text.split()).replace('"', "'"))


def _clean(text: str, what: str, limit: int) -> str:
    plain = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\t", " ")).strip()
    bad = next((c for c in plain if c != "\n" and unicodedata.category(c) in {"Cc", "Cs"}), None)
    if bad is not None:
        raise UsageError(
            f"wanted {what} in plain text, got the control character U+{ord(bad):04X}; remove it"
        )
    if not plain:
        raise UsageError(f"wanted {what} in words, got {shown(text)}; say something")
    if len(plain) > limit:
        raise UsageError(
            f"wanted {what} of at most {limit:,} characters, got {len(plain):,}; shorten it"
        )
    return plain
