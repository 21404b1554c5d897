"""`orbweave env`: versions and places, for a bug report."""

from __future__ import annotations

from ui.commands import options

__all__ = ["env"]


def env(as_json: options.Json = False) -> None:
    """Show the versions of Orbweave and its libraries, the machine and the cache folder."""
    from ui.answer import Answer
    from ui.environment import machine

    answer = Answer(as_json=as_json)
    found = machine()
    width = max(len(name) for name in found)
    for name, value in found.items():
        answer.line(f"{name:<{width}}  {value}")
    answer.end(found)
