"""A model of a study that no merge is made of, and its answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from merging.digests import sha256
from merging.parent import Parent
from merging.plan import plan
from merging.sweep import Bench, Scores, check_scores, read_scores, write_scores
from merging.variants import alone

__all__ = ["ANSWERS", "Alone"]

ANSWERS = "answers"
"""Folder of kept answers inside the work folder."""
_SCHEMA = 1
"""Raised when kept answers mean something else."""


@dataclass(frozen=True)
class Alone:
    """A model that no merge is made of."""

    label: str
    parent: Parent

    def load(self, bench: Bench) -> None:
        """Put its weights into a bench."""
        from merging.stream import merge_into_memory
        from merging.tensors import open_weights

        steps = plan(alone(self.label), {self.label: self.parent})
        tensors = merge_into_memory(steps, {self.label: open_weights(self.parent)})
        bench.load(tensors, self.parent)

    def ask(self, work: Path, bench: Bench, on_progress: Callable[[int, int], None]) -> Scores:
        """Return how it scores every option, and keep that.

        Raises:
            ModelError: it gives NaN for a score.
        """
        self.load(bench)
        scores = bench.ask(lambda done: on_progress(done, len(bench.questions)))
        check_scores(scores, self.label)
        write_scores(self._file(work, bench), self.label, scores)
        return scores

    def kept(self, work: Path, bench: Bench) -> Scores | None:
        """Return the scores of an earlier run; None if there are none that are whole."""
        return read_scores(self._file(work, bench), bench)

    def _file(self, work: Path, bench: Bench) -> Path:
        text = f"{_SCHEMA} {self._content()} {bench.digest}"
        return work / ANSWERS / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"

    def _content(self) -> str:
        """Return one hash of everything that decides what the model answers."""
        parent = self.parent
        files = [*sorted(set(parent.files.values()))]
        for folder in (parent.folder, *(adapter.folder for adapter in parent.adapters)):
            for pattern in (
                "adapter_*",
                "config.json",
                "token*.*",
                "chat_template.*",
                "vocab.json",
            ):
                files += sorted(folder.glob(pattern))
        return hashlib.sha256(
            "\n".join(f"{path.name} {sha256(path)}" for path in files).encode()
        ).hexdigest()
