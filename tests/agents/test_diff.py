"""What changed between two texts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agents.diff import Piece, word_diff

TEXT = st.text("ab ,.é\n", max_size=40)


def test_removed_words_stand_before_those_that_took_their_place() -> None:
    old = "Thick golden lines cross a dark sheet."
    assert word_diff(old, "Thin golden lines cross a dark, wet sheet.") == (
        Piece("Thick", "removed"),
        Piece("Thin", "added"),
        Piece(" golden lines cross a ", "same"),
        Piece("dark", "removed"),
        Piece("dark, wet", "added"),
        Piece(" sheet.", "same"),
    )


def test_words_that_changed_side_by_side_are_one_piece() -> None:
    assert word_diff("thin red lines", "wide blue lines") == (
        Piece("thin red", "removed"),
        Piece("wide blue", "added"),
        Piece(" lines", "same"),
    )


def test_a_new_text_is_all_added_and_the_same_one_all_same() -> None:
    assert word_diff("", "a b") == (Piece("a b", "added"),)
    assert word_diff("a b", "a b") == (Piece("a b", "same"),)
    assert word_diff("", "") == ()


@given(TEXT, TEXT)
def test_a_diff_loses_nothing_of_either_text(old: str, new: str) -> None:
    pieces = word_diff(old, new)
    assert "".join(p.text for p in pieces if p.change != "removed") == new
    assert "".join(p.text for p in pieces if p.change != "added") == old
