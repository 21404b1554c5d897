"""A1111's brackets, against the examples its wiki gives."""

from __future__ import annotations

import pytest

from imagegen.prompt_weights import read_weights, without_weights
from orbweave.errors import UsageError


def spans(prompt: str) -> list[tuple[str, float]]:
    """Runs of equal weight."""
    (text,), (weights,) = read_weights(prompt)
    runs: list[tuple[str, float]] = []
    for letter, weight in zip(text, weights, strict=True):
        if runs and runs[-1][1] == round(weight, 6):
            runs[-1] = (runs[-1][0] + letter, runs[-1][1])
        else:
            runs.append((letter, round(weight, 6)))
    return runs


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a web", [("a web", 1)]),
        ("a (web)", [("a ", 1), ("web", 1.1)]),
        ("a ((web))", [("a ", 1), ("web", 1.21)]),
        ("a [web]", [("a ", 1), ("web", 0.909091)]),
        ("(web:1.5) x", [("web", 1.5), (" x", 1)]),
        ("(web: 0.25)", [("web", 0.25)]),
        ("(web:.5)", [("web", 0.5)]),
        ("(a (b:2):0.5)", [("a ", 0.5), ("b", 1)]),
        (r"\(web\)", [("(web)", 1)]),
        (r"(a\)b)", [("a)b", 1.1)]),
        ("web) x", [("web) x", 1)]),
        ("(web x", [("web x", 1.1)]),
        ("ratio 2:1", [("ratio 2:1", 1)]),
        ("", []),
        ("((()))", []),
    ],
)
def test_brackets_weigh_as_with_a1111(prompt: str, expected: list[tuple[str, float]]) -> None:
    assert spans(prompt) == expected


def test_break_starts_a_chunk() -> None:
    read = read_weights("a (web:2) BREAK leaf")
    assert read.chunks == ("a web ", " leaf") and read.weights[1] == (1.0,) * 5
    assert not read.is_plain and read_weights("a BREAKDOWN").is_plain
    assert read_weights("BREAK").chunks == ("",)


def test_words_alone_are_left_for_models_that_cannot_weigh() -> None:
    assert without_weights(r"(a:2) [b] BREAK \(c\)") == "a b (c)"


@pytest.mark.parametrize("prompt", ["(web:11)", "(web:-11)", "(" * 30 + "web"])
def test_weights_no_picture_survives_are_refused(prompt: str) -> None:
    with pytest.raises(UsageError, match="wanted weights between -10 and 10"):
        read_weights(prompt)


def test_a_flood_of_brackets_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="at most 32 brackets within each other"):
        read_weights("(" * 1_000_000)
