import numpy as np
import pytest

from training.overlap import find_overlaps, remembered
from training.rows import Row, Turn

QUESTIONS = [
    "How much stiffer is dry nacre than wet nacre when it is bent? About a seventh",
    "Which protein gives a mussel thread its stretch? Pre-collagen with an elastin-like part",
]


def chat(name: str, asked: str, answered: str = "Yes.") -> Row:
    return Row(name, "test", turns=(Turn("user", asked), Turn("assistant", answered)))


def bag_of_words(texts):
    """Unit vectors of word counts: an embedding whose cosines can be checked by eye."""
    words = sorted({w for t in [*texts, *QUESTIONS] for w in t.lower().split()})
    known = {w: i for i, w in enumerate(words)}
    vectors = np.zeros((len(texts), 4096), np.float32)
    for row, text in enumerate(texts):
        for word in text.lower().split():
            vectors[row, known[word] if len(words) < 4096 else hash(word) % 4096] += 1
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_question_copied_word_for_word_is_reported():
    rows = [chat("copied", QUESTIONS[0]), chat("other", "What colour is chalk on a board?")]
    found = find_overlaps(rows, QUESTIONS, bag_of_words)
    assert [(o.row, o.kind) for o in found] == [("copied", "verbatim")]


@pytest.mark.slow
def test_a_planted_paraphrase_is_reported_and_a_neighbour_is_not():
    from agents.embedding import MiniLM

    rows = [
        chat(
            "planted",
            "By how much does dry nacre exceed wet nacre in stiffness in bending?",
            "About one seventh",
        ),
        chat("neighbour", "What do the pillars between nacre tablets do?", "They resist sliding."),
    ]
    found = find_overlaps(rows, QUESTIONS, MiniLM())
    assert [(o.row, o.kind) for o in found] == [("planted", "paraphrase")]


def test_no_rows_and_no_questions_give_nothing():
    assert find_overlaps([], QUESTIONS, bag_of_words) == []
    assert find_overlaps([chat("a", "b")], [], bag_of_words) == []


def test_a_text_is_embedded_once_however_often_it_is_asked_for():
    read: list[str] = []

    def embed(texts):
        read.extend(texts)
        return np.array([[len(text), 1] for text in texts], np.float32)

    once = remembered(embed)
    np.testing.assert_array_equal(once(["aa", "b", "aa"]), [[2, 1], [1, 1], [2, 1]])
    np.testing.assert_array_equal(once(["b", "ccc"]), [[1, 1], [3, 1]])
    assert read == ["aa", "b", "ccc"]
