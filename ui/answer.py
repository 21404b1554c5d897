"""What a command says and where: answers on stdout, notes on stderr, JSON alone."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

__all__ = ["Answer"]


@dataclass(frozen=True)
class Answer:
    """How one command speaks; `--json` and `--quiet` mean the same everywhere."""

    as_json: bool = False
    quiet: bool = False

    @property
    def is_terse(self) -> bool:
        """Whether only the last line or the document is wanted."""
        return self.as_json or self.quiet

    def line(self, text: str) -> None:
        """Print one line of the answer, unless only the end is wanted."""
        if not self.is_terse:
            print(text)

    def note(self, text: str) -> None:
        """Tell stderr what is going on."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def end(self, document: Any, last_line: str = "") -> None:
        """Print the JSON document, or else the last line, which names what was written."""
        if self.as_json:
            json.dump(document, sys.stdout, ensure_ascii=False, indent=2)
            sys.stdout.write("\n")
        elif last_line:
            print(last_line)
