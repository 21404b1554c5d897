"""Texts that say the same: copies among documents, and two texts compared.

Documents are compared by MinHash (Broder 1997) over phrases of five words: the share of equal
minima estimates the share of common phrases, with a standard error of 0.03 at 0.8. Bands of
the minima find the candidates, so that not every pair is looked at.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

__all__ = ["NEAR", "Copies", "claims_same", "signature", "similarity"]

NEAR = 0.8
"""Share of common phrases from which two documents count as one; chosen by us."""

_PERMUTATIONS, _BANDS = 128, 16
"""16 bands of 8 find a pair of similarity 0.8 with probability 0.95, one of 0.9 with 0.9999."""
_PHRASE = 5
"""Words in a phrase of a document."""
_PRIME = (1 << 31) - 1
"""Mersenne; products of two smaller numbers fit into 64 bits."""

Signature = NDArray[np.uint64]


class Copies:
    """The documents seen so far; the first of a group is the one that stays."""

    def __init__(self, near: float = NEAR) -> None:
        self._near = near
        self._seen: dict[str, Signature] = {}
        self._bands: defaultdict[tuple[int, bytes], list[str]] = defaultdict(list)

    def original_of(self, name: str, text: str) -> tuple[str, float] | None:
        """Return (name, similarity) of the nearest earlier text if it is near, else None.

        Only a text that is new is remembered, so a chain of small changes cannot wander off.
        """
        mine = signature(text)
        keys = [(i, band.tobytes()) for i, band in enumerate(np.split(mine, _BANDS))]
        candidates = {other for key in keys for other in self._bands.get(key, ())}
        shares = {other: float(np.mean(self._seen[other] == mine)) for other in candidates}
        near = {other: share for other, share in shares.items() if share >= self._near}
        if near:
            return max(near.items(), key=lambda pair: pair[1])
        self._seen[name] = mine
        for key in keys:
            self._bands[key].append(name)
        return None


def signature(text: str) -> Signature:
    """Return the 128 minima of a text's phrases under fixed random permutations."""
    phrases = _phrases(_words(text), _PHRASE)
    digests = (hashlib.blake2b(" ".join(p).encode(), digest_size=4).digest() for p in phrases)
    hashes = np.frombuffer(b"".join(digests), dtype=np.uint32).astype(np.uint64) % _PRIME
    rng = np.random.default_rng(1)
    factors = rng.integers(1, _PRIME, (_PERMUTATIONS, 1), dtype=np.uint64)
    offsets = rng.integers(0, _PRIME, (_PERMUTATIONS, 1), dtype=np.uint64)
    minima = np.full(_PERMUTATIONS, _PRIME, dtype=np.uint64)
    for part in np.array_split(hashes, 1 + len(hashes) // 10_000):  # bounds the memory
        minima = np.minimum(minima, ((factors * part + offsets) % _PRIME).min(axis=1))
    return minima


def similarity(a: str, b: str) -> float:
    """Return the share of common phrases of three words (Jaccard), 1 for equal texts."""
    first, second = (_phrases(_words(text), 3) for text in (a, b))
    return len(first & second) / len(first | second)


_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NEGATION = frozenset("not no never nor neither without cannot hardly none".split())
_EMPTY = frozenset(
    "a an the of to in on at by for with and or as is are was were be been it its that this which "
    "these those from into than then so do does can may will would has have had about".split()
)


def claims_same(a: str, b: str) -> bool:
    """Tell whether two answers make the same claim as far as words show.

    They do if one holds all words of the other, cut to their stems, and both have the same
    numbers and the same parity of negations. One other word (`stiffer`, `softer`) or number
    makes another claim. What words in another order mean (`a is stiffer than b`), and a
    paraphrase in other words, is not seen here.
    """
    first, second = (_content(text) for text in (a, b))
    if not first or not second:
        return first == second
    numbers = [sorted(n.replace(",", "") for n in _NUMBER.findall(text)) for text in (a, b)]
    negations = [sum(word in _NEGATION for word in _words(text)) % 2 for text in (a, b)]
    if numbers[0] != numbers[1] or negations[0] != negations[1]:
        return False
    return first <= second or second <= first


def _content(text: str) -> set[str]:
    """Return the words that carry meaning, cut to six letters."""
    words = _words(_NUMBER.sub(" ", text))
    return {word[:6] for word in words if word not in _EMPTY and word not in _NEGATION}


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower().replace("n't", " not"))


def _phrases(words: list[str], size: int) -> set[tuple[str, ...]]:
    """Return all runs of `size` words; a shorter text is one run."""
    return {tuple(words[i : i + size]) for i in range(max(1, len(words) - size + 1))}
