from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from agents.fake import FakeEngine
from agents.judge import Answer, Mark, View, load_rubric, pairs_of
from orbweave.errors import EngineError, UsageError
from training.mix import read_rows
from ui.cli import run
from ui.converse import Plan, converse
from ui.design import write_record
from ui.judge import (
    conclude,
    document,
    preference_rows,
    preferences,
    read_picks,
    report,
    write_form,
    write_judgement,
    write_pairs,
)
from ui.judge_answers import read_answers

RUBRIC = load_rubric()
ANSWERS = [
    Answer(model=model, question=question, answer=f"{model} on {question}{' more' * extra}")
    for question in ("Q", "R", "S")
    for model, extra in (("alpha", 3), ("beta", 1), ("gamma", 0))
]


def lines_of(folder: Path, answers: list[Answer]) -> Path:
    path = folder / "answers.jsonl"
    rows = [answer.model_dump(exclude={"round"}) for answer in answers]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def both_orders(prefer: str, first_bonus: float = 0.0) -> list[View]:
    """Views of a judge that likes one model, and perhaps what comes first."""
    views = []
    for i, j in pairs_of(ANSWERS):
        for a, b in ((i, j), (j, i)):
            likes = (ANSWERS[a].model == prefer) - (ANSWERS[b].model == prefer)
            views.append(View(first=a, second=b, repeat=0, share=0.5 + 0.2 * likes + first_bonus))
    return views


def test_answers_of_interviews_are_whole_or_of_one_turn(tmp_path):
    from agents.script import Script

    script = Script.model_validate(
        {"name": "s", "fields": {"x": "silk"}, "turns": [
            {"name": "a", "ask": "Say {x}."}, {"name": "b", "ask": "Again {reply.a}."},
        ]}
    )  # fmt: skip

    def open_engine(model: str) -> FakeEngine:
        return FakeEngine(["one", "two"] if model == "m" else ["only"], model=model)

    converse(Plan(script, ("m", "half"), (4,)), tmp_path / "run", open_engine)
    (answer,), faults = read_answers([str(tmp_path / "run")])
    assert faults == []
    assert answer == Answer(
        model="m",
        question="1. Say silk.\n\n2. Again [reply 1].",
        answer="1. one\n\n2. two",
        round="4",
    )
    answers, _ = read_answers([f"mine={tmp_path / 'run'}"], turn="a")
    assert {(a.model, a.question, a.answer) for a in answers} == {
        ("mine", "Say silk.", "one"), ("mine", "Say silk.", "only"),
    }  # fmt: skip
    assert "wanted a turn of" in read_answers([str(tmp_path / "run")], turn="zzz")[1][0]


def test_designs_are_read_alone_and_from_a_folder_of_them(finished):
    record, folder = finished
    write_record(record, folder)
    (answer,), faults = read_answers([str(folder)])
    assert (faults, answer.model, answer.round) == ([], "base", "7")
    assert answer.question == f"Design and describe: {record.brief.concept}"
    assert answer.answer.endswith("Image prompt: golden orb web with Radial threads on black")
    assert read_answers([str(folder.parent)])[0] == [answer]


def test_every_fault_of_the_sources_is_told(tmp_path):
    bad = tmp_path / "bad.jsonl"
    lines = ['{"model": "a"}', "nope", '{"model":"a","question":"q","answer":"x","score":3}']
    bad.write_text("\n".join([*lines, "[" * 100_000]))
    answers, faults = read_answers([str(bad), str(tmp_path / "gone"), str(tmp_path)])
    assert len(answers) == 1 - 1
    told = "\n".join(faults)
    places = ("there is no such place", "nothing of the")
    for wanted in ("line 1", "line 2", "score: Extra", "line 4", *places):
        assert wanted in told


def marks_for(values: dict[tuple[int, int], float | None]) -> list[Mark]:
    return [
        Mark(
            answer=answer, criterion=criterion.name, repeat=repeat, value=value,
            outcome="judged" if value is not None else "unreadable", said="" if value else "hm",
        )
        for (answer, repeat), value in values.items()
        for criterion in RUBRIC.criteria
    ]  # fmt: skip


def test_a_table_holds_totals_spread_length_bias_and_what_was_not_judged():
    values = {(0, 0): 9.0, (0, 1): 7.0, (1, 0): 5.0, (1, 1): 5.0, (2, 0): 2.0, (2, 1): None}
    found = conclude(ANSWERS[:3], RUBRIC, judge="alpha", how="reply", marks=marks_for(values))
    assert [(row.model, row.total, row.normalised) for row in found.standings] == [
        ("alpha", 32.0, 10.0), ("beta", 20.0, 6.25), ("gamma", 8.0, 2.5),
    ]  # fmt: skip
    assert found.standings[0].spread == pytest.approx(4 * 2**0.5)
    assert found.length == pytest.approx(1.0)
    assert found.unjudged == (("unreadable", 4),)
    assert found.judges_itself
    text = report(found)
    assert "The judge is among the judged" in text
    assert "| alpha | 1 | 8.00" in text
    assert "4 unreadable; for instance 'hm'" in text
    assert json.loads(json.dumps(document(found)))["standings"][1]["mean"] == 5.0


def test_a_verdict_needs_both_orders_to_agree():
    fair = preferences(ANSWERS, both_orders("beta"))
    assert [(p.model, p.win_rate) for p in fair.places][0] == ("beta", 1.0)
    assert (fair.n_turned, len(fair.contests)) == (0, 9)
    assert {c.result for c in fair.contests if "beta" not in c[:2]} == {0.5}
    biased = preferences(ANSWERS, both_orders("nobody", first_bonus=0.3))
    assert (biased.n_turned, {c.result for c in biased.contests}) == (9, {0.5})
    assert biased.pace is not None
    assert biased.pace.share == 1.0


def test_a_pair_judged_in_one_order_only_has_no_verdict():
    views = both_orders("beta")
    views[0] = views[0].model_copy(update={"share": None, "outcome": "failed"})
    found = preferences(ANSWERS, views)
    assert (found.n_unjudged, len(found.contests)) == (1, 8)


def test_length_bias_is_shown_where_the_longer_answer_is_liked():
    views = [
        View(
            first=a, second=b, repeat=0, share=0.8 if ANSWERS[a].answer > ANSWERS[b].answer else 0.2
        )
        for i, j in pairs_of(ANSWERS)
        for a, b in ((i, j), (j, i))
    ]
    longer = [v.model_copy(update={"share": 0.5 + 0.04 * (
        len(ANSWERS[v.first].answer.split()) - len(ANSWERS[v.second].answer.split())
    )}) for v in views]  # fmt: skip
    found = preferences(ANSWERS, longer).length
    assert found is not None
    assert found > 0.9


def test_a_form_names_nobody_is_shuffled_by_its_seed_and_is_read_back(tmp_path):
    form, other = tmp_path / "form.jsonl", tmp_path / "other.jsonl"
    neutral = [a.model_copy(update={"answer": f"text {i}"}) for i, a in enumerate(ANSWERS)]
    assert write_form(neutral, form, seed=1) == 9
    write_form(neutral, other, seed=2)
    assert not any(name in form.read_text() for name in ("alpha", "beta", "gamma"))
    rows = [json.loads(line) for line in form.read_text().splitlines()]
    assert rows != [json.loads(line) for line in other.read_text().splitlines()]
    assert len({row["first"] for row in rows}) > 3
    by_text = {a.answer: a.model for a in neutral}
    for row in rows[:-1]:
        models = {by_text[row["first"]]: "first", by_text[row["second"]]: "second"}
        row["pick"] = models.get("gamma", "tie").upper()
    form.write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)))
    found = preferences(neutral, read_picks(neutral, form), both_orders=False)
    assert found.places[0].model == "gamma"
    assert found.places[0].win_rate == 1.0
    assert len(found.contests) == 8


def test_a_damaged_form_tells_every_fault(tmp_path):
    form = tmp_path / "form.jsonl"
    write_form(ANSWERS, form, seed=0)
    rows = [json.loads(line) for line in form.read_text().splitlines()]
    rows[0]["pick"], rows[1]["key"] = "maybe", "zzz"
    del rows[2]["pick"]
    form.write_text("".join(json.dumps(row) + "\n" for row in rows) + "nope\n" + "[" * 100_000)
    with pytest.raises(UsageError) as caught:
        read_picks(ANSWERS, form)
    lines = ("line 1: wanted first", "line 2: its key", "line 3: wanted key", "line 10", "line 11")
    for wanted in lines:
        assert wanted in str(caught.value)


def test_exported_pairs_are_what_training_reads(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = preference_rows(ANSWERS, preferences(ANSWERS, both_orders("beta")), "base")
    write_pairs(rows, path)
    read = read_rows(path)
    assert len(read) == 6  # ties are left out
    for row in read:
        assert row.turns[0].content in {"Q", "R", "S"}
        assert row.turns[1].content.startswith("beta on")
        assert row.rejected is not None
        assert not row.rejected.startswith("beta")


def test_the_folder_of_a_judgement_is_whole(tmp_path):
    views = both_orders("beta")
    found = conclude(ANSWERS, RUBRIC, judge="base", how="reply", views=views)
    write_judgement(found, [], views, ANSWERS, tmp_path / "j")
    names = {path.name for path in (tmp_path / "j").iterdir()}
    assert names == {"judgement.json", "report.md", "answers.jsonl", "marks.jsonl", "views.jsonl"}
    told = json.loads((tmp_path / "j/judgement.json").read_text())
    assert told["preferences"]["ranking"][0]["model"] == "beta"
    assert "Position bias" in (tmp_path / "j/report.md").read_text()


def test_all_faults_of_a_call_come_before_anything_loads(tmp_path, capsys):
    path = lines_of(tmp_path, ANSWERS[:1])
    taken = tmp_path / "taken.jsonl"
    taken.write_text("x")
    call = ["judge", str(path), str(tmp_path / "gone"), "--judge", "nobody", "--pairwise"]
    assert run([*call, "--rubric", "zzz", "--export", str(taken)]) == 2
    told = capsys.readouterr().err
    for wanted in ("5 faults", "no such place", "nobody", "two models", "zzz", "exists already"):
        assert wanted in told
    assert run(["judge", str(path)]) == 2
    assert "wanted a judge, got none" in capsys.readouterr().err


def test_people_judge_through_the_command_line(tmp_path, capsys):
    path, form = lines_of(tmp_path, ANSWERS), tmp_path / "form.jsonl"
    assert run(["judge", str(path), "--form", str(form), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"form_lines": 9, "written": [str(form)]}
    rows = [json.loads(line) for line in form.read_text().splitlines()]
    for row in rows:
        row["pick"] = "first" if row["first"].startswith("alpha") else "second"
    form.write_text("".join(json.dumps(row) + "\n" for row in rows))
    export = tmp_path / "pairs.jsonl"
    assert run(["judge", str(path), "--picks", str(form), "--export", str(export), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["judge"], told["preferences"]["pairs"]) == ("people", 9)
    assert len(read_rows(export)) == 9


def test_a_form_says_how_to_fill_it_and_one_without_picks_is_told(tmp_path, capsys):
    path, form = lines_of(tmp_path, ANSWERS), tmp_path / "form.jsonl"
    assert run(["judge", str(path), "--form", str(form)]) == 0
    told = capsys.readouterr().out
    assert "9 pairs; write first, second or tie behind each pick and give it to --picks" in told
    assert run(["judge", str(path), "--picks", str(form)]) == 2
    told = capsys.readouterr().err
    assert f"wanted picks in {form}, found none; write first, second or tie" in told


class Interrupted(FakeEngine):
    """A judge that gives the same mark to all, until somebody presses Ctrl-C."""

    def __init__(self, n: int, said: str = "Score: 7/10") -> None:
        super().__init__(lambda request: said)
        self.left = n

    async def generate(self, request):
        if not self.left:
            await asyncio.sleep(0.1)  # the others are asked at once
            raise KeyboardInterrupt
        self.left -= 1
        return await super().generate(request)


@pytest.fixture
def judge_by(monkeypatch):
    """Lets an engine be the judge of the command."""

    def furnish(engine: FakeEngine) -> FakeEngine:
        monkeypatch.setattr("ui.commands.judge.engine_opener", lambda note: lambda ref: engine)
        return engine

    return furnish


@pytest.mark.parametrize(
    ("more", "said", "n_asked"), [([], "Score: 7/10", 36), (["--pairwise"], "A", 18)]
)
def test_a_judge_broken_off_goes_on_with_what_is_left(
    tmp_path, capsys, judge_by, more, said, n_asked
):
    path, out = lines_of(tmp_path, ANSWERS), tmp_path / "new" / "judged"
    call = ["judge", str(path), "--judge", "base", "--by", "reply", "--json", *more]
    judge_by(Interrupted(10, said))
    assert run([*call, "--out", str(out)]) == 130
    kept = out.with_name("judged.unfinished.jsonl")
    assert f"what was judged is kept in {kept}, run it again" in capsys.readouterr().err
    with kept.open("a") as file:
        file.write('{"cut')
    assert run([*call, "--seed", "1", "--out", str(out)]) == 1
    assert "holds what was judged of another call" in capsys.readouterr().err
    engine = judge_by(FakeEngine(lambda request: said))
    assert run([*call, "--out", str(out)]) == 0
    assert len(engine.requests) == n_asked - 10
    assert [each.name for each in out.parent.iterdir()] == ["judged"]
    whole = capsys.readouterr().out.replace(str(out), "")
    judge_by(FakeEngine(lambda request: said))
    assert run([*call, "--out", str(tmp_path / "whole")]) == 0
    assert capsys.readouterr().out.replace(str(tmp_path / "whole"), "") == whole


def test_without_a_place_an_interrupted_judge_says_that_nothing_is_kept(tmp_path, capsys, judge_by):
    path = lines_of(tmp_path, ANSWERS)
    judge_by(Interrupted(3))
    assert run(["judge", str(path), "--judge", "base", "--by", "reply"]) == 130
    assert "interrupted; nothing is kept without --out" in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["answers.jsonl"]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (EngineError("wanted an answer, it said 401; set KEY"), "came: wanted .* 401; set KEY$"),
        (None, "no reply within 0.05 s; see the server, or give a longer --timeout$"),
    ],
)
def test_a_judge_that_never_answers_is_told_from_one_that_cannot_be_read(
    tmp_path, capsys, judge_by, fault, told
):
    class Silent(FakeEngine):
        async def generate(self, request):
            if fault is not None:
                raise fault
            await asyncio.sleep(5)

    judge_by(Silent())
    path = lines_of(tmp_path, ANSWERS)
    call = ["judge", str(path), "--judge", "base", "--by", "reply", "--timeout", "0.05"]
    assert run([*call, "--quiet"]) == 1
    assert re.search(told, capsys.readouterr().err.strip())


def test_a_dry_run_counts_the_questions(tmp_path, capsys):
    path = lines_of(tmp_path, ANSWERS)
    call = ["judge", str(path), "--judge", "base", "--repeats", "3", "--dry-run", "--json"]
    assert run(call) == 0
    assert json.loads(capsys.readouterr().out)["questions_to_the_judge"] == 9 * 4 * 3
    assert run([*call, "--pairwise"]) == 0
    assert json.loads(capsys.readouterr().out)["questions_to_the_judge"] == 9 * 2 * 3


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_embedded_model_judges_and_a_judge_of_nonsense_is_a_failure(
    tmp_path, tiny_model, capsys
):
    path = lines_of(tmp_path, ANSWERS[:3])
    out = tmp_path / "judged"
    call = ["judge", str(path), "--judge", "base", "--repeats", "2", "--json"]
    assert run([*call, "--out", str(out)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["standings"]) == 3
    assert all(1 <= mark <= 10 for row in told["standings"] for mark in row["marks"].values())
    assert (out / "report.md").is_file()
    nonsense = ["judge", str(path), "--judge", str(tiny_model), "--by", "reply", "--json"]
    assert run(nonsense) == 1
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert told["standings"] == []  # no answer has all its marks
    # Two questions are too long for it; how many of the others hold a number by chance depends on
    # how the processor rounds.
    assert told["unjudged"]["failed"] == 2 and told["unjudged"]["unreadable"]
    assert "none of its answers could be read" in captured.err
