from __future__ import annotations

from pathlib import Path

import pytest

from agents.generation import Sampling
from agents.script import PAPER_SAMPLING, SCRIPTS, check_script, list_scripts, load_script
from orbweave.errors import UsageError

GOOD = """
name: sample
system: You know {topic}.
fields: {topic: silk}
sampling: {temperature: 0.5}
turns:
  - name: one
    ask: What is {topic}? Write {{braces}}.
  - name: two
    ask: Shorter - {reply.one} - {reply.1}
    sampling: {top_k: 7}
    image: true
  - name: three
    ask: As JSON.
    json: {title: string, parts: [{name: string, "share?": number}]}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "script.yaml"
    path.write_text(text)
    return path


def test_every_shipped_script_loads():
    scripts = [load_script(name) for name in list_scripts()]
    assert len(scripts) == len(list(SCRIPTS.iterdir())) == 6
    assert all(script.about and script.source for script in scripts)
    assert [script.name for script in scripts] == list_scripts()


def test_the_papers_three_stages_and_json_summary_are_there():
    for name in ("microstructure", "architecture", "city"):
        turns = load_script(name).turns
        assert [turn.name for turn in turns] == ["principles", "prompt", "short"]
        assert [turn.image for turn in turns] == [False, True, True]
    assert load_script("collagen-leaf").turns[2].shape["components"] == ["string"]
    assert [len(load_script(f"prompt-{n}-turns").turns) for n in ("two", "three")] == [2, 3]


def test_turns_are_drawn_as_in_the_paper_unless_they_say_otherwise(tmp_path):
    assert PAPER_SAMPLING == Sampling(0.2, 0.9, 512, 1.1)
    shipped = load_script("collagen-leaf")
    assert shipped.sampling_of(shipped.turns[0]) == PAPER_SAMPLING
    assert shipped.max_new_tokens == 1024
    script = load_script(write(tmp_path, GOOD))
    assert script.sampling_of(script.turns[0]) == Sampling(0.5, 0.9, 512, 1.1)
    assert script.sampling_of(script.turns[1]) == Sampling(0.5, 0.9, 7, 1.1)


def test_places_are_filled_by_name_by_number_and_from_fields(tmp_path):
    script = load_script(write(tmp_path, GOOD), {"topic": "bone {x}"})
    assert script.system_of(script.turns[0], []) == "You know bone {x}."
    assert script.ask_of(script.turns[0], []) == "What is bone {x}? Write {braces}."
    assert (
        script.ask_of(script.turns[1], ["a {reply.1} b"])
        == "Shorter - a {reply.1} b - a {reply.1} b"
    )


def test_all_faults_come_in_one_list(tmp_path):
    text = """
name: bad
tuns: 3
sampling: {temperature: -1}
turns:
  - name: one
    ask: See {reply.two}, {reply.0}, {nothing} and {topic!r}
    image: true
    json: {a: text, b: []}
  - name: one
    ask: An open { brace
    colour: red
"""
    script, faults = check_script(write(tmp_path, text), {"topic": "x"})
    assert script is None
    told = "\n".join(faults)
    for wanted in (
        "at tuns: extra inputs are not permitted",
        "at sampling.temperature",
        "at turns.1.colour",
        "got topic",
        "with a format",
        "json.a: wanted one of string",
        "json.b: wanted a type",
        "got both; take two turns",
        "another turn is called one",
        "write {{ and }}",
    ):
        assert wanted in told, wanted


def test_a_faulty_turn_is_the_only_fault_told(tmp_path):
    text = "name: a\nturns: [{name: one, ask: x, colour: red}]\n"
    script, faults = check_script(write(tmp_path, text), {})
    assert script is None
    assert faults == ("at turns.0.colour: extra inputs are not permitted, got 'red'",)


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        ("{reply.two}", "wanted an earlier reply \\(none\\), got {reply.two}"),
        ("{reply.1}", "wanted an earlier reply"),
        ("{reply.}", "wanted an earlier reply"),
        ("{topic}", "wanted a field \\(none\\) .* write {{topic}} for braces that are meant"),
    ],
)
def test_a_reply_or_field_that_does_not_exist_is_named(tmp_path, place, fault):
    text = f"name: a\nturns:\n  - {{name: one, ask: 'Say {place}'}}\n"
    with pytest.raises(UsageError, match=fault):
        load_script(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("- just\n- a list", "wanted a script with name and turns"),
        ("name: [", "wanted YAML in .*, line 1, column 8: "),
        (
            "name: a\nturns: [{name: x, ask: y}]\nturns: []",
            "line 3: turns is given twice",
        ),
        ("name: a\nturns: []", r"at turns: wanted at least one, got '\[\]'"),
        ("name: a\nturns: [x]", "at turns.0: wanted keys and values, got 'x'"),
        ("name: ''\nturns: [{name: x, ask: y}]", "at name: "),
        ("name: a\nturns: [{name: x, ask: ' '}]", r"turn 1 \(x\): wanted a question in words"),
        ("name: a\nmodels: []\nturns: [{name: x, ask: y}]", "at models"),
        ("name: a\nturns: [{name: 'x y', ask: y}]", "wanted a name of letters"),
        ("x" * 1_100_000, "more than 1 MB"),
        ("name: a\nturns: " + "[" * 3_000, "nested too deeply"),
        ("name: a\nturns: [{name: x, ask: y, json: &own {b: *own}}]", "nested without end"),
    ],
)
def test_what_is_no_script_is_refused(tmp_path, text, fault):
    with pytest.raises(UsageError, match=fault):
        load_script(write(tmp_path, text))


def test_an_unknown_name_lists_the_shipped_ones():
    with pytest.raises(UsageError, match="shipped are architecture, city"):
        load_script("nothing-here")


def test_the_digest_follows_from_what_is_asked(tmp_path):
    script = load_script(write(tmp_path, GOOD))
    assert script.digest == load_script(write(tmp_path, GOOD + "about: words\n")).digest
    assert script.digest != load_script(write(tmp_path, GOOD), {"topic": "bone"}).digest
