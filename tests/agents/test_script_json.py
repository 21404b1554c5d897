from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.json_reply import read_json_reply, shape_faults

SHAPE = {"name": "string", "share": "number", "tags": ["string"], "count?": "integer"}
GOOD = '{"name": "web", "share": 0.5, "tags": ["a"]}'
VALUE = json.loads(GOOD)


def test_json_alone_is_valid():
    found = read_json_reply(f"\n {GOOD}\n", SHAPE)
    assert (found.status, found.value, found.problem) == ("valid", VALUE, "")


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (f"Here it is:\n```json\n{GOOD}\n```\nDone.", "text around"),
        (f"As [1] says, use {{braces}}: {GOOD}", "text around"),
        (f'{{"other": 1}} {GOOD}', "text around"),
        (GOOD[:-1] + ",}", "broken JSON"),
        (GOOD.replace('"', "'"), "broken JSON"),
        (GOOD[:-1], "broken JSON"),
        ('{name: "web", "share": 0.5, "tags": ["a"]}', "broken JSON"),
    ],
)
def test_what_had_to_be_mended_is_told_apart(reply, problem):
    found = read_json_reply(reply, SHAPE)
    assert (found.status, found.value) == ("repaired", VALUE)
    assert problem in found.problem


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ("", "no JSON"),
        ("I cannot.", "no JSON"),
        ("[]", "wanted an object at the JSON"),
        ("{}", "no name; no share; no tags"),
        (GOOD.replace("0.5", '"0.5"'), "wanted a number at share"),
        (GOOD.replace("0.5", "true"), "wanted a number at share"),
        (GOOD.replace("0.5", "1e999"), "wanted a number at share"),
        (GOOD.replace("0.5", "NaN"), "wanted a number at share"),
        (GOOD.replace('["a"]', '"a"'), "wanted a list at tags"),
        (GOOD.replace('["a"]', "[1]"), "wanted a string at tags[0]"),
        (GOOD[:-1] + ', "count": 1.5}', "wanted a integer at count"),
        ("[" * 5_000, "RecursionError"),
        ('So: {"other": "a, name: b", "share": 1, "tags": []}', "no name"),
    ],
)
def test_what_does_not_fit_is_invalid_and_says_where(reply, problem):
    found = read_json_reply(reply, SHAPE)
    assert (found.status, found.value) == ("invalid", None)
    assert problem in found.problem


def test_json_that_broke_off_is_not_completed():
    found = read_json_reply('{"name": "web", "tags": ["a"], "share": 0.', SHAPE, complete=False)
    assert found.status == "invalid"
    assert found.problem == "the JSON broke off at the token limit"


def test_a_part_of_broken_json_is_not_taken_for_the_whole():
    shape = {"name": "string"}
    found = read_json_reply('{"size": 1 "part": {"name": "inner"}}', shape)
    assert found.status == "invalid"


def test_whole_json_before_a_cut_remark_is_kept():
    assert read_json_reply(f"{GOOD} As you can", SHAPE, complete=False).status == "repaired"


@pytest.mark.parametrize(
    "shape", ["text", 3, [], ["string", "string"], {}, {"a": None}, {"?": "any"}]
)
def test_shapes_that_mean_nothing_are_faults(shape):
    assert shape_faults(shape)


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.none() | st.booleans() | st.integers() | st.text() | FLOATS
JSON = st.recursive(LEAVES, lambda s: st.lists(s) | st.dictionaries(st.text(), s), max_leaves=8)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(min_size=1).filter(lambda k: not k.endswith("?")), JSON))
def test_any_json_object_is_valid_by_its_own_keys(value):
    value = {"k": 1} | value
    found = read_json_reply(json.dumps(value), {"k": "any"})
    assert found.status == "valid"
    assert set(found.value) == set(value)


@settings(max_examples=60, deadline=None)
@given(st.text())
def test_any_text_has_a_status(text):
    assert read_json_reply(text, SHAPE).status in {"valid", "repaired", "invalid"}
