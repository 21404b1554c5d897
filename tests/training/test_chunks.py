"""Pieces that fit, follow each other, lose nothing, and know their headings."""

from __future__ import annotations

import numpy as np
import pytest

from training.chunks import Chunk, chunk, sentence_ends
from training.sources import Document


def document(text: str) -> Document:
    return Document("d0", "Silk", text, "silk.pdf", "https://example.org", "0" * 64)


def span(piece: Chunk) -> tuple[int, int]:
    start, _, end = piece.id.partition(":")[2].partition("-")
    return int(start), int(end)


def article(seed: int = 0) -> str:
    """Headings, paragraphs of all lengths, a list, a table, code."""
    rng = np.random.default_rng(seed)

    def sentence() -> str:
        words = rng.choice(["silk", "bears", "load", "in", "fibres", "of", "protein"], 12)
        return " ".join(words).capitalize() + rng.choice([".", "?", "!"])

    blocks = ["# Silk"]
    for n in range(12):
        if n % 3 == 0:
            blocks.append(f"## Part {n}")
        blocks.append(" ".join(sentence() for _ in range(int(rng.integers(1, 14)))))
    blocks.append("- one\n- two\n- three")
    blocks.append("| a | b |\n|---|---|\n| 1 | 2 |")
    blocks.append("```\n# no heading\n\ncode = 1\n```")
    blocks += ["# Last", "End."]
    return "\n\n".join(blocks)


@pytest.mark.parametrize("max_chars", [40, 200, 700, 4_000, 100_000])
@pytest.mark.parametrize("seed", [0, 1])
def test_pieces_fit_do_not_overlap_and_leave_out_only_blanks(max_chars: int, seed: int) -> None:
    text = article(seed)
    end = 0
    for piece in chunk(document(text), max_chars):
        start, after = span(piece)
        assert text[start:after] == piece.text == piece.text.strip()
        assert 0 < len(piece.text) <= max_chars
        assert not text[end:start].strip()
        end = after

    assert not text[end:].strip()


def test_long_paragraphs_are_cut_after_sentences() -> None:
    text = " ".join(f"Sentence number {n} says that silk is strong." for n in range(60))

    pieces = chunk(document(text), 300)

    assert len(pieces) > 5
    assert all(piece.text.endswith(".") and piece.text.startswith("Sent") for piece in pieces)
    assert min(len(piece.text) for piece in pieces[:-1]) > 200


def test_a_sentence_longer_than_a_piece_is_cut_at_a_clause_or_a_word() -> None:
    words = "silk bears load " * 30

    at_words = chunk(document(words.strip()), 100)
    at_clauses = chunk(document("silk bears load in the web, " * 20 + "always"), 100)
    nowhere = chunk(document("x" * 250), 100)

    assert {word for piece in at_words for word in piece.text.split()} == {"silk", "bears", "load"}
    assert all(piece.text.endswith(",") for piece in at_clauses[:-1])
    assert [len(piece.text) for piece in nowhere] == [100, 100, 50]


def test_pieces_know_the_headings_above_them() -> None:
    text = "# A\n\n" + "One. " * 30 + "\n\n## B\n\n" + "Two. " * 30 + "\n\n### C\n\n"
    text += "Three. " * 30 + "\n\n## D\n\nFour."

    pieces = chunk(document(text), 160)

    assert [piece.headings for piece in pieces] == [
        ("A",),
        ("A", "B"),
        ("A", "B", "C"),
        ("A", "B", "C"),
        ("A", "D"),
    ]
    assert pieces[1].text.startswith("## B\n\nTwo.")
    assert {(p.document, p.source, p.url) for p in pieces} == {
        ("d0", "silk.pdf", "https://example.org")
    }


def test_a_heading_stays_with_what_follows_it() -> None:
    text = "\n\n".join(f"## Part {n}\n\n{'Silk is strong. ' * 6}".strip() for n in range(9))

    for piece in chunk(document(text), 230):
        assert not piece.text.rpartition("\n")[2].startswith("#")


def test_small_sections_share_a_piece() -> None:
    text = "\n\n".join(f"## Part {n}\n\nShort." for n in range(6))

    assert len(chunk(document(text), 1_000)) == 1


def test_a_comment_in_code_is_no_heading() -> None:
    (piece,) = chunk(document("```\n# no heading\n```\n\nText."))

    assert piece.headings == ()


def test_abbreviations_initials_and_decimals_end_no_sentence() -> None:
    text = (
        "Silk (see Fig. 3 and Smith et al. The web) has 1.1 GPa. It was measured by A. Smith. "
        "“Is it strong?” Yes, e.g. Nephila. N. clavipes too."
    )

    parts = [
        text[a:b].strip()
        for a, b in zip([0, *sentence_ends(text)], [*sentence_ends(text), len(text)], strict=True)
    ]

    assert parts == [
        "Silk (see Fig. 3 and Smith et al. The web) has 1.1 GPa.",
        "It was measured by A. Smith.",
        "“Is it strong?”",
        "Yes, e.g. Nephila.",
        "N. clavipes too.",
    ]


def test_ids_name_exactly_one_text() -> None:
    text = article()
    small, large = chunk(document(text), 300), chunk(document(text), 900)
    texts: dict[str, str] = {}

    for piece in [*small, *large]:
        assert texts.setdefault(piece.id, piece.text) == piece.text


def test_no_text_no_pieces_and_a_bound_below_one_is_refused() -> None:
    assert chunk(document("")) == []
    with pytest.raises(ValueError, match="at least 1, got 0"):
        chunk(document("Silk."), 0)
