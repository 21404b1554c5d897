import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from orbweave.errors import UsageError
from training.items import Material
from training.mix import join_chats, mix, read_rows, take
from training.recipe import Recipe, Stage
from training.rows import Row, Turn, digest, split

NOTHING = Material(forms={}, facts={}, fields={})


def chat(i: int) -> Row:
    return Row(f"row-{i:04d}", "test", turns=(Turn("user", f"q{i}"), Turn("assistant", f"a{i}")))


def recipe(data: dict, method: str = "sft", **more) -> Recipe:
    stage = Stage(method=method, data=data, learning_rate=1e-4, **more)
    return Recipe(name="test", model="base", stages=(stage,))


def write(path: Path, rows: list) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    return str(path)


def test_a_fraction_of_two_takes_every_row_exactly_twice():
    rows = [chat(i) for i in range(31)]
    taken = take(rows, 2.0, np.random.default_rng(0))
    assert Counter(taken) == dict.fromkeys(rows, 2)


def test_a_fraction_in_between_adds_a_random_part_without_repeats():
    rows = [chat(i) for i in range(40)]
    counts = Counter(take(rows, 1.25, np.random.default_rng(0)))
    assert sorted(counts.values()) == [1] * 30 + [2] * 10


def test_held_out_rows_are_chosen_by_id_and_never_learnt(tmp_path):
    file = write(tmp_path / "d.jsonl", [{"prompt": f"q{i}", "completion": "a"} for i in range(400)])
    one = recipe({file: 3.0}).model_copy(update={"held_out": 0.1})
    rows = mix(one.stages[0], one, NOTHING)
    assert not {row.id for row in rows.learnt} & {row.id for row in rows.held_out}
    assert 20 <= len(rows.held_out) <= 60
    assert len(rows.learnt) == 3 * (400 - len(rows.held_out)) == rows.counts[file]


def test_the_split_does_not_depend_on_the_order():
    rows = [chat(i) for i in range(200)]
    assert {r.id for r in split(rows, 0.2)[1]} == {r.id for r in split(rows[::-1], 0.2)[1]}


def test_joined_chats_hold_every_exchange_once_and_keep_neighbours_apart():
    rows = [chat(i) for i in range(20)]
    joined = join_chats(rows, 4, np.random.default_rng(0))
    assert [len(row.turns) for row in joined] == [8] * 5
    assert Counter(t for r in joined for t in r.turns) == Counter(t for r in rows for t in r.turns)
    for row in joined:
        asked = sorted(int(turn.content[1:]) for turn in row.turns[::2])
        assert all(b - a > 1 for a, b in zip(asked, asked[1:], strict=False))


def test_chats_with_a_system_text_are_not_joined():
    lone = Row("x", "t", turns=(Turn("system", "s"), Turn("user", "q"), Turn("assistant", "a")))
    assert lone in join_chats([chat(0), lone, chat(1)], 4, np.random.default_rng(0))


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        {"prompt": "q", "completion": "a"},
        {"instruction": "q", "input": "", "output": "a"},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    ],
)
def test_common_chat_shapes_read_as_the_same_turns(tmp_path, record):
    (row,) = read_rows(Path(write(tmp_path / "d.jsonl", [record])))
    assert row.turns == (Turn("user", "q"), Turn("assistant", "a"))


def test_preferences_and_texts_are_read(tmp_path):
    pair, text = read_rows(
        Path(
            write(
                tmp_path / "d.jsonl",
                [{"prompt": "q", "chosen": "a", "rejected": "b"}, {"text": "plain"}],
            )
        )
    )
    assert (pair.turns[-1].content, pair.rejected, text.text) == ("a", "b", "plain")


@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_tables_are_read(tmp_path, ending):
    import pandas

    frame = pandas.DataFrame([{"prompt": "q", "completion": "a"}] * 3)
    path = tmp_path / f"d.{ending}"
    if ending == "csv":
        frame.to_csv(path, index=False)
    elif ending == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records")
    assert len(read_rows(path)) == 3


def test_a_row_of_no_known_shape_is_named(tmp_path):
    file = write(tmp_path / "d.jsonl", [{"text": "fine"}, {"question": "q"}])
    with pytest.raises(UsageError, match="row 2 of .*got question"):
        read_rows(Path(file))


def test_every_faulty_source_is_told_at_once(tmp_path):
    bad = write(tmp_path / "d.jsonl", [{"text": "no chat"}])
    one = recipe({bad: 1.0, "nonsense": 1.0, "./missing.jsonl": 1.0})
    with pytest.raises(UsageError) as caught:
        mix(one.stages[0], one, NOTHING)
    message = str(caught.value)
    assert "holds plain text" in message
    assert "nonsense" in message
    assert "missing.jsonl" in message


def test_chats_become_text_for_continued_pretraining(tmp_path):
    file = write(tmp_path / "d.jsonl", [{"prompt": "q", "completion": "a"}])
    one = recipe({file: 1.0}, "cpt").model_copy(update={"held_out": 0.0})
    assert [row.text for row in mix(one.stages[0], one, NOTHING).learnt] == ["q\na"]


def test_preference_training_refuses_rows_without_a_rejected_reply(tmp_path):
    file = write(tmp_path / "d.jsonl", [{"prompt": "q", "completion": "a"}])
    one = recipe({file: 1.0}, "orpo")
    with pytest.raises(UsageError, match="replies only"):
        mix(one.stages[0], one, NOTHING)


def test_the_digest_sees_every_change():
    rows = [chat(1), chat(2)]
    assert digest(rows) == digest([chat(1), chat(2)])
    assert digest(rows) != digest(rows[::-1])
    assert digest(rows) != digest([chat(1), Row("row-0002", "test", text="x")])
