"""Noise is seeded, grows with its level, and is what the quality score of ingest sees."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from orbweave.errors import UsageError
from training.noise import spoil
from training.quality import gate, quality

TEXT = (
    "Dragline silk is the thread from which a spider hangs, and it carries a remarkable load for "
    "its weight. The strength of the thread is about 1.1 GPa, while its toughness is well above "
    "that of steel. This comes from small crystals in a soft matrix of the same protein.\n\n"
    "When the thread takes up water, the soft matrix swells and the whole thread shrinks to half "
    "of its length. The crystals stay as they are, because water cannot enter them. In the web, "
    "dew tightens the threads in this way, and the spider has not to do it by herself."
)


def spoilt(level: float, seed: int = 0) -> str:
    return spoil(TEXT, level, np.random.default_rng(seed))


def test_the_same_seed_gives_the_same_faults_and_another_seed_others():
    assert spoilt(0.2) == spoilt(0.2)
    assert spoilt(0.2) != spoilt(0.2, seed=1)


def test_level_zero_changes_nothing():
    assert spoilt(0.0) == TEXT


@pytest.mark.parametrize("level", [-0.1, 1.5, float("nan")])
def test_a_level_outside_its_range_is_refused(level):
    with pytest.raises(UsageError, match=r"noise level in \[0, 1\]"):
        spoilt(level)


def test_the_quality_score_falls_with_the_level():
    levels = [0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8]
    means = [np.mean([quality(spoilt(a, seed)).score for seed in range(40)]) for a in levels]
    assert all(a > b for a, b in pairwise(means)), means
    assert gate(quality(TEXT)) is None
    assert gate(quality(spoilt(0.8))) is not None


def test_at_full_level_every_kind_of_fault_is_there():
    text = spoilt(1.0)
    assert "the" not in text  # e is read as c
    assert "-\n" in text
    assert "\ufffd" in spoil("a stiff fibre", 1.0, np.random.default_rng(0))
    assert any(head in text for head in ("Biomcd", "Down1oadcd", "Author"))
    short = "a b c d f g h k n p q t u v w x y z"
    assert len(spoil(short, 1.0, np.random.default_rng(0)).split()) < len(short.split())


def test_two_columns_are_read_straight_across():
    words = " ".join(f"w{i}" for i in range(24))

    class Only:
        """A generator that lets the first fault happen and no other."""

        draws = iter([0.0])

        def random(self) -> float:
            return next(self.draws, 1.0)

        def choice(self, options):
            return options[0]

    lines = spoil(words, 0.5, Only()).split("\n")
    assert lines == [
        "w0 w1 w2 w3 w4 w5 w12 w13 w14 w15 w16 w17",
        "w6 w7 w8 w9 w10 w11 w18 w19 w20 w21 w22 w23",
    ]


def test_no_word_is_invented_by_the_columns():
    for n in (1, 5, 6, 7, 12, 13, 18, 19, 25):
        words = [f"w{i}" for i in range(n)]
        text = spoil(" ".join(words), 0.0001, np.random.default_rng(0))
        assert sorted(text.split()) == sorted(words)
