"""Every error a person can mend, as one tree.

OrbweaveError            exit code 1
├── UsageError           exit code 2: the call itself is wrong
│   └── ConceptError     a concept, prompt or brief cannot be used
├── OutputError          an output folder or file cannot be written
├── ModelError           a model is unknown, missing or damaged
├── EngineError          a model was loaded but could not answer
└── Cancelled            somebody asked to stop; exit code 130

A message has three parts: what was wanted, what came, what to do next. The process
edge prints it in one line without a traceback.
"""

from __future__ import annotations

__all__ = [
    "Cancelled",
    "ConceptError",
    "EngineError",
    "ModelError",
    "OrbweaveError",
    "OutputError",
    "UsageError",
    "shown",
]


class OrbweaveError(Exception):
    """Root of everything Orbweave raises on purpose."""

    exit_code = 1


class UsageError(OrbweaveError):
    """The call cannot be understood: a bad option, recipe or argument."""

    exit_code = 2


class ConceptError(UsageError):
    """A concept or prompt is empty, too long or not text."""


class OutputError(OrbweaveError):
    """A result cannot be written where it was asked for."""


class ModelError(OrbweaveError):
    """A model is unknown, missing, incomplete or damaged."""


class EngineError(OrbweaveError):
    """A loaded model failed to answer, or the request does not fit it."""


class Cancelled(OrbweaveError):
    """The work was stopped by request; nothing half made was kept."""

    exit_code = 130


def shown(value: object, limit: int = 60) -> str:
    """Quote a value for an error message: one line, printable, at most `limit` characters."""
    text = "".join(c if c.isprintable() else " " for c in str(value))
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")
