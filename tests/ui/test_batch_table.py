from __future__ import annotations

import json
from pathlib import Path

import pytest

from orbweave.errors import UsageError
from ui.table import Fault, Row, TableFaults, read_table

COLUMNS = ("concept", "name", "seed", "steps", "domains")


def _read(tmp_path: Path, content: str | bytes, name: str = "t.csv") -> tuple[list[Row], list[str]]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    rows, faults = read_table(path, COLUMNS)
    return rows, [str(fault) for fault in faults]


@pytest.mark.parametrize(
    "content",
    [
        b"concept,seed\nsilk,1\n",
        b"\xef\xbb\xbfconcept,seed\r\nsilk,1\r\n",
        b"Concept ; SEED\n silk ;1\n",
        b"concept\tseed\nsilk\t1",
        "concept,seed\nsilk,1\n".encode("utf-16"),
        b'"concept","seed"\n"silk","1"\n\n,\n',
    ],
)
def test_spreadsheets_of_all_countries_are_read(tmp_path, content):
    assert _read(tmp_path, content) == ([Row(2, {"concept": "silk", "seed": "1"})], [])


def test_quotes_and_newlines_inside_a_cell_are_kept(tmp_path):
    rows, faults = _read(tmp_path, 'concept,seed\n"a ""web"",\nof silk",1\nleaf,2\n')
    assert rows == [
        Row(2, {"concept": 'a "web",\nof silk', "seed": "1"}),
        Row(3, {"concept": "leaf", "seed": "2"}),
    ]
    assert faults == []


def test_an_empty_cell_is_as_if_it_were_not_there(tmp_path):
    assert _read(tmp_path, "concept,seed\nsilk,\n")[0] == [Row(2, {"concept": "silk"})]


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        ("concept,stepz", "row 1, column stepz: is unknown; did you mean steps?"),
        ("concept,colour", "row 1, column colour: is unknown; known: concept, name"),
        ("concept,seed,seed", "row 1, column seed: is there twice"),
        ("seed,steps", "row 1, column concept: wanted this column, found none"),
        ("concept,,seed", "row 1, column number 2: wanted a name for the column"),
        ("concept,\x1b[31mred", "row 1, column [31mred: is unknown"),
    ],
)
def test_a_wrong_header_is_told(tmp_path, header, fault):
    _, faults = _read(tmp_path, header + "\n")
    assert faults[0].startswith(fault)


def test_everything_wrong_is_told_by_row_and_column_at_once(tmp_path):
    content = b"concept,seed\nsilk,1,9\nleaf\ncaf\xe9,3\nbone,4\n"
    rows, faults = _read(tmp_path, content)
    assert [row.number for row in rows] == [2, 3, 4, 5]
    assert faults == [
        "row 2: wanted 2 cells, got 3",
        "row 3: wanted 2 cells, got 1",
        "row 4, column concept: wanted UTF-8, got the byte 0xE9; save the file as UTF-8",
    ]


def test_an_open_quote_is_told_where_the_reading_ended(tmp_path):
    rows, faults = _read(tmp_path, 'concept,seed\nsilk,1\n"leaf,2\nbone,3\n')
    assert [row.number for row in rows] == [2]
    assert faults == ["row 3: unexpected end of data; is a quote left open? Reading ended here"]


@pytest.mark.parametrize("content", ["", "\n", "concept\n", "concept,seed\n,\n"])
def test_a_table_without_rows_is_told(tmp_path, content):
    rows, faults = _read(tmp_path, content)
    assert rows == []
    assert len(faults) == 1


def test_json_lines_hold_numbers_and_lists(tmp_path):
    lines = [
        {"concept": "silk", "seed": 3, "domains": ["leaf", "collagen"], "name": None},
        {"Concept": "leaf"},
    ]
    content = "\n".join(map(json.dumps, lines)) + "\n\n"
    assert _read(tmp_path, content, "t.jsonl") == (
        [
            Row(1, {"concept": "silk", "seed": "3", "domains": "leaf,collagen"}),
            Row(2, {"concept": "leaf"}),
        ],
        [],
    )


def test_faults_of_json_lines_are_told(tmp_path):
    content = '{"concept": "a"}\n{"concept": \n[1]\n{"concept": "b", "sed": 1, "steps": {"n": 2}}\n'
    rows, faults = _read(tmp_path, content, "t.jsonl")
    assert [row.number for row in rows] == [1, 4]
    assert [fault.split(":")[0] for fault in faults] == [
        "row 2",
        "row 3",
        "row 4, column sed",
        "row 4, column steps",
    ]


def test_a_key_of_half_a_character_or_that_comes_twice_is_told(tmp_path):
    lines = '{"concept": "silk", "k\\ud800": 1, "\\ud800": 2}\n{"Seed": 1, "seed": 2}\n'
    assert [fault.split(";")[0] for fault in _read(tmp_path, lines, "t.jsonl")[1]] == [
        "row 1, column k: is unknown",
        "row 1, column ' ': wanted a name for the column, got none",
        "row 2, column seed: is there twice",
    ]


def test_deeply_nested_json_is_told_and_not_fatal(tmp_path):
    _, faults = _read(tmp_path, '{"concept": ' + "[" * 100_000 + "\n", "t.jsonl")
    assert faults[0].startswith("row 1: wanted a JSON object")


def test_a_text_has_a_concept_on_every_line(tmp_path):
    rows, _ = _read(tmp_path, "silk, and leaf\r\n\n  bone \n", "concepts.txt")
    assert rows == [Row(1, {"concept": "silk, and leaf"}), Row(3, {"concept": "bone"})]


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(UsageError, match="could not read .*: No such file"):
        read_table(tmp_path / "nowhere.csv", COLUMNS)


def test_the_error_holds_all_faults_and_shows_the_first():
    faults = [Fault(2, "steps", "got '0'"), Fault(None, "", "wanted a row")]
    error = TableFaults("t.csv", faults)
    assert error.faults == tuple(faults)
    assert "t.csv has 2 faults, the first in row 2, column steps: got '0'" in str(error)
