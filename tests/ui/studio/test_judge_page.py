"""The judge page: blind, durable, and only at the end with names."""

from __future__ import annotations

import json

import pytest

from agents.judge import Answer
from orbweave.errors import UsageError
from ui.judge import read_picks
from ui.studio.judge_room import JudgeRoom
from ui.studio.judging import MAX_PAIRS, Judgings
from ui.studio.rooms import Ask, Upload

from .conftest import EVIL, obedient, wait_until, wish

MODELS = ("model-alpha", "model-beta")
QUESTIONS = ("Why is silk tough?", "Why do leaves fold?", f"What is {EVIL}?")


def lines(n: int = 3) -> bytes:
    answers = [
        Answer(
            model=model, question=q, answer=f"Words number {i}{'x' * (model == MODELS[0])} {EVIL}"
        )
        for i, q in enumerate(QUESTIONS[:n])
        for model in MODELS
    ]
    return "".join(answer.model_dump_json() + "\n" for answer in answers).encode()


@pytest.fixture
def judgings(desk) -> Judgings:
    return Judgings(desk)


def shown(judgings: Judgings, name: str, owner: str = "ann") -> str:
    return "".join(p.html for p in JudgeRoom(judgings).look(owner, Ask(at=name)).parts)


def winner_of(pair) -> str:
    """Return which side the longer answers of the first model are on."""
    return "first" if "x" in pair.first.split(" <")[0] else "second"


def test_picks_are_kept_at_once_and_names_come_at_the_end(judgings, desk):
    room = JudgeRoom(judgings)
    upload = Upload(name="answers.jsonl", data="data:;base64," + _base64(lines()))
    name = room.act("ann", Ask(do="add", files=(upload,), fields={"seed": "5"}))
    told = []
    for _ in QUESTIONS:
        judging = Judgings(desk).find("ann", name)  # as after a restart
        html = shown(judgings, name)
        told.append(html)
        pair = judging.next_pair
        room.act("ann", Ask(at=name, do=winner_of(pair), value=pair.key))
        row = next(r for r in judging.lines if r["key"] == pair.key)
        assert row["pick"] == winner_of(pair)
    assert not any(model in html for html in told for model in MODELS)
    assert "<script>alert" not in "".join(told)
    assert judgings.file(judging, "answers.jsonl") is None
    assert "All pairs were shown" in shown(judgings, name)

    room.act("ann", Ask(at=name, do="end"))
    html = shown(judgings, name)
    assert all(model in html for model in MODELS)
    over = judgings.find("ann", name)
    best = over.found.places[0]
    assert (best.model, best.wins, best.win_rate) == ("model-alpha", 3, 1.0)
    assert best.interval is not None
    rows = [
        json.loads(row) for row in judgings.file(over, "preferences.jsonl").read_text().splitlines()
    ]
    assert len(rows) == 3
    assert all(row["chosen_model"] == "model-alpha" and row["chosen"] for row in rows)
    assert len(read_picks(over.answers, judgings.file(over, "form.jsonl"))) == 3
    with pytest.raises(UsageError, match="this judging is over"):
        room.act("ann", Ask(at=name, do="undo"))


def test_sides_and_order_follow_from_the_seed(judgings):
    def order(seed: int) -> list[tuple[str, str]]:
        found = judgings.begin("ann", (), {"a.jsonl": lines()}, seed).lines
        return [(line["question"], line["first"]) for line in found]

    assert order(1) == order(1)
    assert len({str(order(seed)) for seed in range(8)}) > 3


def test_pass_over_tie_and_take_back(judgings):
    judging = judgings.begin("ann", (), {"a.jsonl": lines()}, 0)
    first = judging.next_pair
    with pytest.raises(UsageError, match="at least one pick"):
        judgings.end(judging)
    judgings.pick(judging, first.key, "skip")
    judgings.pick(judging, first.key, "first")  # a key that was held down
    second = judging.next_pair
    judgings.pick(judging, second.key, "tie")
    assert judging.tally == {"all": 3, "picked": 1, "skipped": 1}
    judgings.undo(judging)
    judgings.undo(judging)
    assert judging.tally == {"all": 3, "picked": 0, "skipped": 0}
    assert judging.next_pair == first
    with pytest.raises(UsageError, match="there is none yet"):
        judgings.undo(judging)
    with pytest.raises(UsageError, match="none of that key"):
        judgings.pick(judging, "0" * 16, "tie")


def test_designs_of_one_concept_by_two_models_are_compared_with_their_pictures(
    judgings, desk, parts
):
    for model in ("base", "silk"):
        parts.answer = lambda asked, model=model: obedient(asked).replace("Web of", f"{model} and")
        made = desk.start("ann", wish(model=model).row())
        wait_until(lambda made=made: made.status == "done", "the design is done")
    alone = desk.start("ann", wish(concept="a bone that floats").row())
    wait_until(lambda: alone.status == "done", "the third design is done")
    (group,) = judgings.groups("ann")
    assert (group.n_pairs, len(group.sittings)) == (1, 2)
    assert judgings.groups("eve") == []
    with pytest.raises(UsageError, match="found none"):
        judgings.begin("eve", [group.key], {}, 0)
    judging = judgings.begin("ann", [group.key], {}, 0)
    assert "Image prompt:" in judging.next_pair.first
    for picture in judging.next_pair.pictures:
        assert judgings.file(judging, f"pictures/{picture}").is_file()
    assert judgings.file(judging, "pictures/../answers.jsonl") is None
    with pytest.raises(UsageError, match="found none of that name"):
        shown(judgings, judging.id, owner="eve")


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({}, "wanted 1 to 500 pairs of answers by two models to one question, found none"),
        ({"a.jsonl": b"nope\n"}, "line 1 of the upload"),
        ({"a.exe": b"MZ"}, "wanted run.json, turns.jsonl"),
        ({"run.json": b"{}", "turns.jsonl": b""}, "wanted the script of the interviews"),
        ({"a.jsonl": lines(1) + b"\xff\n"}, "wanted answers in the upload"),
        ({"a.jsonl": b"x" * 5_000_001}, "wanted at most 5 MB"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_words_and_leaves_nothing(
    judgings, desk, files, wanted
):
    with pytest.raises(UsageError, match=wanted) as told:
        judgings.begin("ann", (), files, 0)
    assert str(desk.data) not in str(told.value)
    assert not list(desk.data.glob("ann/judgings/*"))


def test_nobody_is_asked_for_more_picks_than_he_can_make(judgings):
    answers = [
        Answer(model=f"m{i}", question="Why?", answer=f"Because {i}.")
        for i in range(MAX_PAIRS // 10)
    ]
    content = "".join(answer.model_dump_json() + "\n" for answer in answers).encode()
    with pytest.raises(UsageError, match="found 1,225; give fewer"):
        judgings.begin("ann", (), {"a.jsonl": content}, 0)


def _base64(content: bytes) -> str:
    import base64

    return base64.b64encode(content).decode()
