"""Saved conversations: what is read back, and what is said of files that are broken or old."""

from __future__ import annotations

import json

import pytest

from agents.state import State, StateError, begin, read_state, write_state
from agents.steering import inject, reroll
from orbweave.errors import UsageError


@pytest.fixture
async def saved(table, tmp_path):
    """A finished conversation with alternatives, and its file."""
    whole = await table.resume(table.begin())
    state = await table.resume(inject(await table.resume(reroll(whole, 2)), "Thinner"))
    path = tmp_path / "state.json"
    write_state(state, path)
    return state, path


async def test_a_state_is_read_as_it_was_written(saved):
    state, path = saved
    assert read_state(path) == state


async def test_the_file_says_what_version_its_schema_has_and_what_came_of_the_run(saved):
    data = json.loads(saved[1].read_text())
    assert (data["schema_version"], data["outcome"]) == (1, "finished")
    assert data["steps"][0]["kind"] == "facts"


def test_no_rounds_are_refused(table):
    state = table.begin()
    with pytest.raises(UsageError, match="wanted at least 1 round"):
        begin(state.brief, team=state.team, rounds=0)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(StateError, match=r"wanted the saved conversation .*gone\.json"):
        read_state(tmp_path / "gone.json")


@pytest.mark.parametrize(
    ("version", "said"),
    [(0, "an older version"), (2, "a newer version"), (None, "another program")],
)
async def test_another_schema_is_named_and_the_file_left_alone(saved, version, said):
    _, path = saved
    data = json.loads(path.read_text())
    data["schema_version"] = version
    path.write_text(json.dumps(data))
    before = path.read_bytes()
    with pytest.raises(StateError, match=rf"wanted a conversation of schema 1 .*{said}.* go on"):
        read_state(path)
    assert path.read_bytes() == before


async def test_of_a_file_cut_short_anywhere_the_whole_steps_can_be_read(saved):
    state, path = saved
    content = path.read_bytes()
    n_readable = []
    for length in range(0, len(content), 61):
        path.write_bytes(content[:length])
        with pytest.raises(StateError, match="it is broken") as caught:
            read_state(path)
        readable = caught.value.readable
        if readable is None:  # the cut went through what stands before the steps
            assert b'"steps"' not in content[:length]
            assert "begin the design anew" in str(caught.value)
        else:
            n = len(readable.steps)
            assert (readable.team, readable.steps) == (state.team, state.steps[:n])
            assert readable.outcome == "failed"
            assert f"its first {n} steps can be read" in str(caught.value)
            n_readable.append(n)
    assert n_readable == sorted(n_readable)
    assert set(n_readable) == set(range(len(state.steps) + 1))


async def test_a_broken_step_in_the_middle_keeps_what_stands_before_it(saved):
    state, path = saved
    data = json.loads(path.read_text())
    del data["steps"][4]["pictures"]
    path.write_text(json.dumps(data))
    with pytest.raises(StateError, match=r"at steps.4.pictures.pictures: Field required") as caught:
        read_state(path)
    assert caught.value.readable is not None
    assert caught.value.readable.steps == state.steps[:4]


async def test_a_byte_that_is_no_json_keeps_what_stands_before_it(saved):
    state, path = saved
    text = path.read_text()
    at = text.index('"kind": "pictures"')
    path.write_text(f"{text[:at]}\x00{text[at:]}")
    with pytest.raises(StateError) as caught:
        read_state(path)
    assert caught.value.readable is not None
    assert caught.value.readable.steps == state.steps[:4]


async def test_what_could_be_read_can_be_gone_on_with(saved, table, bare):
    state, path = saved
    data = json.loads(path.read_text())
    data["steps"][3]["turn"]["role"] = "king"
    path.write_text(json.dumps(data))
    with pytest.raises(StateError) as caught:
        read_state(path)
    assert caught.value.readable is not None
    again = await table.resume(caught.value.readable)
    assert again.outcome == "finished"
    assert again.steps[:3] == state.steps[:3]


@pytest.mark.parametrize("content", ["", "null", "[]", "{}", "not json", '{"schema_version": 1}'])
def test_a_file_that_is_no_state_is_named(tmp_path, content):
    path = tmp_path / "state.json"
    path.write_text(content)
    with pytest.raises(StateError) as caught:
        read_state(path)
    assert caught.value.readable is None
    assert "wanted a" in str(caught.value)


async def test_steps_that_cannot_follow_each_other_are_refused(saved):
    state, _ = saved
    for steps in (
        state.steps[1:],
        (state.steps[0], *state.steps[3:]),
        (*state.steps[:3], *state.steps[4:]),
        (*state.steps[:2], state.steps[1]),
    ):
        with pytest.raises(ValueError, match="cannot stand where it does|stands there twice"):
            State.model_validate(dict(state) | {"steps": steps})
