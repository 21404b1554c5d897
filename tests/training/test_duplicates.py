"""Estimates of likeness against the exact shares, and claims that are or are not the same."""

from __future__ import annotations

import numpy as np
import pytest

from training.duplicates import Copies, claims_same, signature, similarity


def words(n: int, seed: int = 0) -> list[str]:
    return [f"w{i}" for i in np.random.default_rng(seed).integers(0, 5_000, n)]


def changed(text: list[str], n: int) -> list[str]:
    """`n` words replaced by new ones."""
    out = list(text)
    for i in np.random.default_rng(1).permutation(len(text))[:n]:
        out[i] = f"new{i}"
    return out


def exact_share(a: list[str], b: list[str], size: int) -> float:
    first, second = ({tuple(t[i : i + size]) for i in range(len(t) - size + 1)} for t in (a, b))
    return len(first & second) / len(first | second)


@pytest.mark.parametrize("n_changed", [0, 20, 60, 150, 400])
def test_equal_minima_estimate_the_exact_share_of_phrases(n_changed: int) -> None:
    text = words(3_000)
    other = changed(text, n_changed)

    estimated = np.mean(signature(" ".join(text)) == signature(" ".join(other)))

    exact = exact_share(text, other, 5)
    error = np.sqrt(exact * (1 - exact) / 128)
    assert abs(estimated - exact) <= 4 * error + 1e-12


def test_the_first_of_a_group_is_the_original() -> None:
    copies = Copies()
    text = words(800)

    assert copies.original_of("first", " ".join(text)) is None
    assert copies.original_of("other", " ".join(words(800, seed=9))) is None
    assert copies.original_of("same", " ".join(text).upper()) == ("first", 1.0)
    found = copies.original_of("near", " ".join(changed(text, 8)))

    assert found is not None
    assert found[0] == "first"
    assert 0.85 < found[1] < 1


def test_a_chain_of_small_changes_does_not_wander_off() -> None:
    copies, text = Copies(), words(1_000)
    kept = 0
    for step in range(8):
        text = [*text[60:], *words(60, seed=100 + step)]
        kept += copies.original_of(str(step), " ".join(text)) is None

    assert 2 < kept < 8


def test_a_quotation_does_not_make_a_copy() -> None:
    copies, text = Copies(), words(600)
    copies.original_of("first", " ".join(text))

    assert copies.original_of("quotes", " ".join(text[:200] + words(400, seed=5))) is None


@pytest.mark.parametrize("short", ["", "silk", "silk is strong"])
def test_short_texts_are_compared_as_a_whole(short: str) -> None:
    copies = Copies()

    assert copies.original_of("a", short) is None
    assert copies.original_of("b", short) == ("a", 1.0)
    assert copies.original_of("c", short + " indeed") is None


def test_similarity_is_the_share_of_phrases_of_three_words() -> None:
    # Phrases: abc bcd cde and abc bcd cdx; two of four are common.
    assert similarity("a b c d e", "A b, c d x.") == pytest.approx(2 / 4)
    assert similarity("a b", "a b") == 1
    assert similarity("a b c", "d e f") == 0


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (
            "Silk is five times as strong as steel.",
            "Compared to steel, silk is five times as strong.",
        ),
        ("About 1,100 MPa.", "It is about 1100 MPa"),
        ("Water softens the matrix.", "The matrix softens in water."),
        ("It doesn't swell.", "It does not swell."),
    ],
)
def test_the_same_claim_in_other_order_is_seen(a: str, b: str) -> None:
    assert claims_same(a, b)
    assert claims_same(b, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Water makes dragline silk softer.", "Water makes dragline silk stiffer."),
        ("The strength is 1.1 GPa.", "The strength is 2.5 GPa."),
        ("The crystals swell in water.", "The crystals do not swell in water."),
        (
            "Load passes through shear in the protein, so long overlaps raise the strength.",
            "Load passes through tension in the protein, so long overlaps raise the strength.",
        ),
    ],
)
def test_another_word_number_or_a_not_is_another_claim(a: str, b: str) -> None:
    assert not claims_same(a, b)
    assert not claims_same(b, a)
