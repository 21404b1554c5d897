"""Texts ranked by the words they share with a query: BM25.

Keywords(["Veins branch.", "Threads carry glue."]).scores("a branching vein")

Meanings are not seen: "a forked rib" shares no word with "veins branch".
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agents.claims import stems

__all__ = ["Keywords"]

_K1, _B = 1.2, 0.75
"""Saturation of repeated words and weight of a text's length, at their usual values."""


class Keywords:
    """An index of texts by their words of content, cut to stems.

    Source: Robertson and Zaragoza, Foundations and Trends in Information Retrieval 3 (2009) 333.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        """Count the words; texts that share none with a query score 0."""
        counted = [Counter(stems(text)) for text in texts]
        lengths = np.array([count.total() for count in counted], dtype=np.float32)
        mean = max(float(lengths.mean()), 1.0) if len(texts) else 1.0
        self._n = len(texts)
        self._damping = _K1 * (1 - _B + _B * lengths / mean)
        self._found: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for row, count in enumerate(counted):
            for stem, n in count.items():
                self._found[stem].append((row, n))

    def scores(self, query: str) -> NDArray[np.float32]:
        """Return how well each text fits, shape (n_texts,); 0 without a common word."""
        total = np.zeros(self._n, dtype=np.float32)
        for stem in dict.fromkeys(stems(query)):
            found = self._found.get(stem, [])
            rarity = np.log(1 + (self._n - len(found) + 0.5) / (len(found) + 0.5))
            for row, n in found:
                total[row] += rarity * n * (_K1 + 1) / (n + self._damping[row])
        return total
