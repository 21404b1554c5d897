"""What a judge has said so far, beside the folder it is to become, so that a call goes on.

    OUT.unfinished.jsonl    the digest of the call, then one mark or view a line

A killed process leaves all but the line it was writing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from agents.judge import Answer, Mark, Rubric, View
from orbweave.errors import OutputError, UsageError, shown
from orbweave.files import append_line, check_output

__all__ = ["JudgeJournal", "call_digest"]

ENDING = ".unfinished.jsonl"
_ANSWERED = ("judged", "unreadable")
"""Outcomes that would be the same if it was asked again; the others may have passed."""


class JudgeJournal:
    """The marks and views of one call; without a place nothing is kept."""

    def __init__(self, out: Path | None, digest: str, *, force: bool = False) -> None:
        """Read what an earlier run of the same call left.

        Args:
            out: The folder of the judgement; None keeps nothing.
            digest: Of the call, see `call_digest`.
            force: Forget what another call left.

        Raises:
            OutputError: another call left something and `force` is off, or nothing can be
                written there.
            UsageError: a line is broken.
        """
        self.path = None if out is None else out.with_name(out.name + ENDING)
        self.marks: list[Mark] = []
        self.views: list[View] = []
        self._head, self._whole = json.dumps({"call": digest}).encode(), 0
        if self.path is None:
            return
        check_output(self.path, force=True)
        content = self.path.read_bytes() if self.path.is_file() else b""
        first, *lines = content[: content.rfind(b"\n") + 1].splitlines() or [b""]
        if first and first != self._head and not force:
            raise OutputError(
                f"wanted to judge into {out}, {self.path} holds what was judged of another call; "
                "choose another --out, or use --force to forget it"
            )
        if first == self._head:
            self._read(self.path, lines)
            self._whole = content.rfind(b"\n") + 1

    def add(self, said: Mark | View) -> None:
        """Write one line to the disk; what failed is asked again by the next run.

        Raises:
            OutputError: the disk refused.
        """
        if self.path is None or said.outcome not in _ANSWERED:
            return
        if not self._whole:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._whole = append_line(self.path, self._head, 0)
        self._whole = append_line(self.path, said.model_dump_json().encode(), self._whole)

    def forget(self) -> None:
        """Remove the file: the judgement is whole."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _read(self, path: Path, lines: Sequence[bytes]) -> None:
        for number, line in enumerate(lines, 2):
            try:
                if b'"criterion"' in line:
                    self.marks.append(Mark.model_validate_json(line))
                else:
                    self.views.append(View.model_validate_json(line))
            except ValueError as err:
                raise UsageError(
                    f"wanted a mark or a view in line {number} of {path}, {shown(err, 120)}; "
                    "remove that line, it will be asked again"
                ) from err


def call_digest(
    judge: str, how: str, seed: int, rubric: Rubric, answers: Sequence[Answer], *, pairwise: bool
) -> str:
    """Return what tells calls apart whose marks must not be mixed; repeats may be added."""
    texts = [judge, how, str(seed), str(pairwise), rubric.model_dump_json()]
    texts += [answer.model_dump_json() for answer in answers]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
