import json

import pytest

from training.items import ITEMS, SOURCES, shipped_rows
from ui.material import team_material


@pytest.fixture(scope="module")
def material():
    return team_material()


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_every_source_gives_rows_of_the_shape_its_stage_needs(material, source):
    rows = shipped_rows(source, material)
    assert len(rows) > 100
    if source in {"facts", "statements"}:
        assert all(row.text for row in rows)
    else:
        assert all(row.turns[-1].role == "assistant" for row in rows)
        assert all(turn.content.strip() for row in rows for turn in row.turns)
    assert all((row.rejected is not None) == (source in {"preference", "rivals"}) for row in rows)


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_layout_is_the_same_every_time(material, source):
    assert shipped_rows(source, material, 3) == shipped_rows(source, material, 3)


def test_rows_are_asked_in_the_very_words_of_the_team(material):
    from agents.roles import load_team

    form = load_team().prompt.model_copy(update={"examples": ()})
    row = shipped_rows("prompt", material)[0]
    assert row.turns[0].content == form.messages({"concept": "", "scale": "", "notes": ""})[0][1]
    assert row.turns[1].content.startswith("Concept: ")
    assert [line.split(":")[0] for line in row.turns[2].content.split("\n")] == [
        "Title",
        "Prompt",
        "Avoid",
    ]


def test_items_on_an_excluded_fact_are_left_out(material):
    excluded = "coll-0004"
    assert excluded not in material.facts
    lines = [line for f in ITEMS.glob("*.jsonl") for line in f.read_text("utf-8").splitlines()]
    resting = {item["id"] for item in map(json.loads, lines) if excluded in item["fact_ids"]}
    kept = {row.id for name in SOURCES for row in shipped_rows(name, material)}
    assert resting
    assert not {i for i in kept if any(i.startswith(r) for r in resting)}


def test_true_and_false_claims_are_balanced(material):
    replies = [row.turns[-1].content for row in shipped_rows("claims", material)]
    assert replies.count("True") == replies.count("False")


def test_the_right_letter_is_spread_over_all_places(material):
    rows = shipped_rows("listed", material)
    share = [sum(r.turns[-1].content == letter for r in rows) / len(rows) for letter in "ABCD"]
    assert all(0.22 < part < 0.28 for part in share)


def test_the_listed_letter_names_the_right_answer(material):
    by_id = {row.id: row.turns[-1].content for row in shipped_rows("choices", material)}
    for row in shipped_rows("listed", material)[:200]:
        line = next(
            x for x in row.turns[0].content.split("\n") if x.startswith(row.turns[1].content + ".")
        )
        assert line[3:] == by_id[row.id]


def test_rivals_are_never_the_right_answer(material):
    assert all(row.rejected != row.turns[-1].content for row in shipped_rows("rivals", material))


def test_a_single_fact_row_rests_on_the_fact_it_shows(material):
    rows = [r for r in shipped_rows("expert", material) if r.id.rpartition("-")[2].isdigit()]
    single = [r for r in rows if "principle-" in r.id]
    assert len(single) > 500
    assert all(r.turns[-2].content.count("\n- ") == 1 for r in single)


def test_item_ids_are_unique():
    lines = [line for f in ITEMS.glob("*.jsonl") for line in f.read_text("utf-8").splitlines()]
    ids = [json.loads(line)["id"] for line in lines]
    assert len(ids) == len(set(ids)) > 9_000
