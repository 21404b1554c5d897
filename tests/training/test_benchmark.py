"""Loading benchmarks: what ships is sound, and a bad file's faults come all at once."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from orbweave.errors import UsageError
from training.benchmark import (
    GENERAL,
    counts,
    load_benchmark,
    load_texts,
    shipped_benchmarks,
)

GOOD = {
    "id": "q1",
    "domain": "d",
    "type": "mc",
    "category": "c",
    "question": "Which?",
    "options": ["x", "y"],
    "answer": 1,
    "fact_ids": ["f1"],
    "source_url": "https://example.org",
}


def file_of(tmp_path: Path, *rows: object) -> Path:
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows), "utf-8")
    return path


def fault_of(tmp_path: Path, *rows: object) -> str:
    with pytest.raises(UsageError) as caught:
        load_benchmark(file_of(tmp_path, *rows))
    return str(caught.value)


def test_the_shipped_sets_have_the_sizes_their_readme_says():
    sizes = {name: len(load_benchmark(name).questions) for name in shipped_benchmarks()}
    assert sizes == {"leaf-biocomposite": 120, "silk-collagen": 120, "general": 100}
    assert len(load_texts()) == 60


def test_the_general_set_is_spread_evenly():
    asked = load_benchmark(GENERAL).questions
    assert counts(asked).by_type == {"mc": 80, "tf": 20}
    assert counts(asked).by_domain == {"general": 100}
    answers = Counter((q.type, q.answer) for q in asked)
    assert {answers["mc", i] for i in range(4)} == {20}
    assert {answers["tf", i] for i in range(2)} == {10}
    assert all(len(q.options) == 4 for q in asked if q.type == "mc")
    assert len({q.question for q in asked}) == 100


def test_the_right_options_of_the_general_set_are_not_the_long_ones():
    asked = [q for q in load_benchmark(GENERAL).questions if q.type == "mc"]
    right = sum(len(q.options[q.answer]) for q in asked) / len(asked)
    every = sum(len(option) for q in asked for option in q.options) / (4 * len(asked))
    assert right == pytest.approx(every, rel=0.05)


def test_the_general_texts_have_sixty_to_a_hundred_words_each():
    assert all(60 <= len(row.text.split()) <= 100 for row in load_texts())


def test_every_domain_question_names_a_fact_and_a_source():
    for name in shipped_benchmarks():
        if name != GENERAL:
            asked = load_benchmark(name).questions
            assert all(q.fact_ids and q.source_url.startswith("http") for q in asked)


def test_counts_are_by_domain_type_and_category(tmp_path):
    rows = [GOOD | {"id": str(i), "domain": "ab"[i % 2], "category": "xyz"[i]} for i in range(3)]
    found = counts(load_benchmark(file_of(tmp_path, *rows)).questions)
    assert found == (3, {"a": 2, "b": 1}, {"mc": 3}, {"x": 1, "y": 1, "z": 1})


def test_a_file_is_named_by_its_stem_and_blank_lines_do_not_count(tmp_path):
    path = file_of(tmp_path, GOOD, "", GOOD | {"id": "q2"}, "")
    assert load_benchmark(path).name == "own"
    assert [q.id for q in load_benchmark(str(path)).questions] == ["q1", "q2"]


def test_a_file_with_a_byte_order_mark_and_windows_line_ends_is_read(tmp_path):
    path = tmp_path / "own.jsonl"
    text = "\r\n".join([json.dumps(GOOD), json.dumps(GOOD | {"id": "q2"})])
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert len(load_benchmark(path).questions) == 2


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"answer": 2}, "line 1: answer 2 is none of the 2 options"),
        ({"answer": -1}, "line 1: answer: "),
        ({"answer": "B"}, "line 1: answer: "),
        ({"answer": None}, "line 1: answer: "),
        ({"options": ["x"]}, "line 1: options: "),
        ({"options": ["x", " X "]}, "two options are the same"),
        ({"options": ["x", " "]}, "line 1: options.1: "),
        ({"type": "essay"}, "line 1: type: "),
        ({"type": "tf"}, "a tf question has the options True, False"),
        ({"question": ""}, "line 1: question: "),
        ({"topic": "silk"}, "line 1: topic: "),
    ],
)
def test_a_faulty_row_is_refused_with_its_line_and_field(tmp_path, change, fault):
    assert fault in fault_of(tmp_path, GOOD | change)


@pytest.mark.parametrize("missing", ["id", "domain", "type", "category", "question", "answer"])
def test_a_row_without_a_field_is_refused(tmp_path, missing):
    row = {key: value for key, value in GOOD.items() if key != missing}
    assert f"line 1: {missing}: Field required" in fault_of(tmp_path, row)


def test_all_faults_of_a_file_come_in_one_message(tmp_path):
    told = fault_of(
        tmp_path, GOOD, GOOD, GOOD | {"id": "q2", "answer": 9}, "{not json", GOOD | {"id": "q1"}
    )
    assert "found 4 faults" in told
    for fault in (
        "line 2: id 'q1' stands on line 1",
        "line 3: answer 9",
        "line 4: Invalid JSON",
        "line 5: id 'q1' stands on line 1",
    ):
        assert fault in told


def test_of_many_faults_the_first_are_told_and_the_rest_counted(tmp_path):
    told = fault_of(tmp_path, *[GOOD | {"id": str(i), "answer": 7} for i in range(50)])
    assert "found 50 faults" in told
    assert told.endswith("and 30 more")


def test_an_empty_file_is_refused(tmp_path):
    assert "it is empty" in fault_of(tmp_path, "")


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "b.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="could not read"):
        load_benchmark(tmp_path / "b.jsonl")


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="'silk'.*silk-collagen, general"):
        load_benchmark("silk")


def test_texts_are_refused_as_questions_and_questions_as_texts(tmp_path):
    with pytest.raises(UsageError, match="no name or file 'general-text'"):
        load_benchmark("general-text")
    with pytest.raises(UsageError, match="one text a line"):
        load_texts(file_of(tmp_path, GOOD))
