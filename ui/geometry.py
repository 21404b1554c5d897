"""The structure seeds of one design: chosen for its words, drawn bare, measured and fitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from orbweave.records import Structure, Targets
from ui.rendering import Chooser, Nearest

__all__ = ["DrawnGeometry"]


@dataclass(frozen=True)
class DrawnGeometry:
    """What `agents.targets.Geometry` asks for, by the procedural generator.

    A structure that a person gave is measured and never changed.
    """

    chooser: Chooser
    concept: str
    """Is read with every prompt."""
    size_px: tuple[int, int]
    """(width, height) of the pictures; targets are in their pixels."""
    strength: float
    """Render strength asked for, in (0, 1]."""
    timed: Callable[[], AbstractContextManager[None]] = nullcontext
    """Entered while it works."""

    def nearest(self, words: str, wanted: Targets) -> Mapping[str, str]:
        """Return the families near to the words and what one sees of each, nearest first."""
        if not isinstance(self.chooser, Nearest):
            return {}
        from imagegen.choose import nearest_families

        with self.timed():
            directed = wanted.direction_deg is not None
            return nearest_families(self._read(words), directed=directed)

    def look(self, family: str) -> str:
        """Return what one sees of a family, in plain words."""
        from imagegen.motifs import FAMILIES

        return FAMILIES[family].plain[0]

    def choose(self, words: str, seed: int, family: str | None) -> Structure | None:
        """Return the structure `--structure` asks for; None for none."""
        with self.timed():
            if isinstance(self.chooser, Nearest):
                return self.chooser(self._read(words), seed, family)
            return self.chooser(self._read(words), seed)

    def measure(self, structure: Structure) -> Targets:
        """Return what the structure measures as it is drawn."""
        from imagegen.fit import measure_drawn

        with self.timed():
            return measure_drawn(structure, self.size_px)

    def lasting(self, structure: Structure) -> Targets:
        """Return what of it a rendering will measure too."""
        from imagegen.fit import lasting

        with self.timed():
            return lasting(structure, self.size_px)

    def fit(self, structure: Structure, aims: Targets) -> Structure:
        """Return the structure with numbers that meet the aims; a person's own as it is."""
        if not isinstance(self.chooser, Nearest):
            return structure
        from imagegen.fit import fit

        with self.timed():
            return fit(structure, aims, self.size_px)

    def dress(self, structure: Structure, words: str) -> Structure:
        """Return the structure in the colours and the light of the words; likewise."""
        if not isinstance(self.chooser, Nearest):
            return structure
        from imagegen.choose import dressed

        return dressed(structure, self._read(words))

    def _read(self, words: str) -> str:
        return f"{self.concept}. {words}"
