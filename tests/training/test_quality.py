"""The score falls with every fault of extraction, and stays high on clean text."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from training.quality import GATE, Quality, gate, quality

CLEAN = (
    "# Spider silk\n\n"
    "Dragline silk is the thread from which a spider hangs, and it carries a remarkable load for "
    "its weight. The strength of the thread is about 1.1 GPa, while its toughness is well above "
    "that of steel. This comes from small crystals in a soft matrix of the same protein.\n\n"
    "## Water\n\n"
    "When the thread takes up water, the soft matrix swells and the whole thread shrinks to half "
    "of its length. The crystals stay as they are, because water cannot enter them. In the web, "
    "dew tightens the threads in this way, and the spider has not to do it by herself.\n\n"
    "Collagen in tendons is built of fibrils that slide past each other under load. It is less "
    "strong than silk by a factor of ten, but it bears millions of cycles without breaking.\n"
)


def with_symbols(text: str, share: float) -> str:
    """Put an unknown symbol in place of a share of the letters."""
    letters = list(text)
    places = np.random.default_rng(0).permutation(len(letters))[: round(share * len(letters))]
    for place in places:
        letters[place] = "\ufffd"
    return "".join(letters)


def with_repeats(text: str, share: float) -> str:
    """Repeat a share of the words at the end."""
    words = text.split()
    return text + " " + " ".join(words[: round(share * len(words))])


def with_broken_lines(text: str, share: float) -> str:
    """End a line after a share of the words, with a blank line as page ends give it."""
    words = text.split(" ")
    breaks = np.random.default_rng(0).permutation(len(words))[: round(share * len(words))]
    return " ".join(w + "\n\n" * (i in breaks) for i, w in enumerate(words))


def with_foreign_words(text: str, share: float) -> str:
    """Put other words in place of a share of the words."""
    words = text.split(" ")
    places = np.random.default_rng(0).permutation(len(words))[: round(share * len(words))]
    return " ".join("seidenfaden" + "abc"[i % 3] if i in places else w for i, w in enumerate(words))


CORRUPTIONS: dict[str, tuple[Callable[[str, float], str], list[float]]] = {
    "symbols": (with_symbols, [0, 0.002, 0.005, 0.02, 0.1, 0.5]),
    "repeats": (with_repeats, [0, 0.1, 0.3, 0.6, 0.9]),
    "lines": (with_broken_lines, [0, 0.02, 0.05, 0.1, 0.3]),
    "language": (with_foreign_words, [0, 0.5, 0.6, 0.7, 0.9]),
}
"""Part of the score -> what lowers it, and growing shares of the text."""


def test_clean_text_is_near_one() -> None:
    assert quality(CLEAN).score > 0.95
    assert min(quality(CLEAN)) > 0.95


@pytest.mark.parametrize("part", CORRUPTIONS)
def test_each_corruption_lowers_the_score_and_its_own_part_step_by_step(part: str) -> None:
    corrupt, shares = CORRUPTIONS[part]

    found = [quality(corrupt(CLEAN, share)) for share in shares]

    for values in ([each.score for each in found], [getattr(each, part) for each in found]):
        assert all(a > b for a, b in pairwise(values)), values
    assert gate(found[0]) is None
    assert gate(found[-1]) is not None


def test_a_little_damage_passes_and_much_does_not() -> None:
    assert gate(quality(with_symbols(CLEAN, 0.002))) is None
    assert gate(quality(with_broken_lines(CLEAN, 0.01))) is None
    reason = gate(quality(with_symbols(CLEAN, 0.05)))
    assert reason is not None
    assert reason.startswith("quality: 0.")
    assert reason.endswith("most of all unknown symbols")


def test_the_gate_names_score_and_bound() -> None:
    spoilt = Quality(1.0, 0.5, 0.8, 1.0)

    assert spoilt.score == pytest.approx(0.4)
    assert gate(spoilt) == "quality: 0.40 is under 0.50, most of all repeats"
    assert gate(spoilt, 0.4) is None
    assert gate(Quality(0, 0, 0, 0), 0.0) is None
    assert GATE == 0.5


@pytest.mark.parametrize(
    "wreck",
    ["(cid:71)(cid:72)(cid:3)", "Ã¼Ã¤Ã¶ â€œ", "/g115/g112/g105", "\ue0b4\ue0c1\ue0d2\uf0b7", "□□□"],
)
def test_the_ways_in_which_glyphs_are_lost_are_known(wreck: str) -> None:
    assert quality(CLEAN + f" {wreck}" * 3).symbols < 0.9


def test_another_language_does_not_pass() -> None:
    german = (
        "Die Seide der Spinnen ist ein Faden, der sehr fest und dabei dehnbar ist. Er trägt mehr "
        "als Stahl von gleicher Masse. Im Wasser quillt die weiche Matrix auf, und der Faden wird "
        "kürzer. Die Kristalle bleiben, wie sie sind, weil kein Wasser in sie dringt. Kollagen in "
        "Sehnen ist aus Fibrillen gebaut, die unter Last aneinander gleiten."
    )

    assert quality(german).language < 0.5
    assert gate(quality(german)) is not None


def test_wrapped_lines_tables_and_lists_are_not_broken_lines() -> None:
    wrapped = CLEAN.replace(", ", ",\n")
    width = 80
    lines, line = [], ""
    for word in CLEAN.split():
        if len(line) + len(word) >= width:
            lines.append(line)
            line = ""
        line = f"{line} {word}".strip()
    table = "\n\n| silk | 1.1 GPa |\n|---|---|\n| tendon | 0.1 GPa |\n\n- one thing\n- two things\n"

    assert quality("\n".join([*lines, line])).lines > 0.95
    assert quality(CLEAN + table).lines > 0.95
    assert quality(wrapped).lines <= 1


def test_spaced_letters_and_words_run_together_count() -> None:
    assert quality(CLEAN + "T h e s p i d e r s i l k i s s t r o n g.").lines < 0.9
    assert quality(CLEAN + "thestrengthofthethreadisabouttwogigapascals.").lines < 0.9


@pytest.mark.parametrize("text", ["", "  \n", "123 456 ... 7", "=== --- ***"])
def test_a_text_without_words_is_zero(text: str) -> None:
    assert quality(text) == Quality(0, 0, 0, 0)


def test_one_true_sentence_passes_although_it_shows_little() -> None:
    assert (
        gate(quality("Minor ampullate silk fibres reach strains near 0.3 before failure.")) is None
    )
