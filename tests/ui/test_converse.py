from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from agents.fake import FakeEngine
from agents.generation import Generation
from agents.script import Script, list_scripts
from agents.transcript import SpokenTurn
from orbweave.errors import ConceptError, ModelError, OutputError, UsageError
from ui.cli import run
from ui.converse import Drawing, Plan, converse, document, prompt_in
from ui.converse_folder import file_stem, read_turns
from ui.rendering import RenderSettings

ROOT = Path(__file__).parents[2]
SCRIPT = Script.model_validate(
    {
        "name": "two things",
        "turns": [
            {"name": "one", "ask": "Name a silk."},
            {"name": "prompt", "ask": "Draw {reply.one}.", "image": True},
            {"name": "sum", "ask": "As JSON.", "json": {"name": "string"}},
        ],
    }
)
PLAN = Plan(SCRIPT, ("org/a", "b_%$"), (0, 5))


def answered(request: Generation) -> str:
    """Reply by the question and the seed, whatever the order of the questions."""
    asked = request.messages[-1].content
    if asked == "As JSON.":
        return '{"name": "web"}'
    return f"**Prompt:** lines of {asked} {request.seed % 97}"


class Opener:
    """Opens fakes and remembers them; a model called `broken` cannot be opened."""

    def __init__(self) -> None:
        self.engines: list[FakeEngine] = []

    def __call__(self, model: str) -> FakeEngine:
        if model == "broken":
            raise ModelError("wanted the model broken, found none")
        self.engines.append(FakeEngine(answered, model=model))
        return self.engines[-1]

    @property
    def n_asked(self) -> int:
        return sum(len(engine.requests) for engine in self.engines)


def spoken(out: Path) -> list[dict[str, object]]:
    turns = [turn.model_dump(exclude={"seconds"}) for turn in read_turns(out / "turns.jsonl")]
    return sorted(turns, key=lambda t: (t["model"], t["seed"], t["index"]))


def test_turns_times_models_times_seeds_in_three_forms(tmp_path):
    opener = Opener()
    held = converse(PLAN, tmp_path / "run", opener)
    assert [(h.model, h.seed, h.outcome) for h in held] == [
        ("org/a", 0, "complete"), ("org/a", 5, "complete"),
        ("b_%$", 0, "complete"), ("b_%$", 5, "complete"),
    ]  # fmt: skip
    assert opener.n_asked == 12
    assert all(engine.closed for engine in opener.engines)
    assert {h.json_status for h in held} == {("valid",)}
    lines = (tmp_path / "run/turns.jsonl").read_text().splitlines()
    assert len([SpokenTurn.model_validate_json(line) for line in lines]) == 12
    for each in held:
        assert each.transcript.is_file()
        assert "Draw **Prompt:** lines of Name a silk." in each.transcript.read_text()
        assert r"\end{document}" in each.transcript.with_suffix(".tex").read_text("ascii")
        assert len(each.transcript.with_suffix(".jsonl").read_text().splitlines()) == 3


def test_a_second_run_asks_nothing_and_a_wider_one_only_what_is_new(tmp_path):
    converse(PLAN, tmp_path / "run", Opener())
    again = Opener()
    before = (tmp_path / "run/turns.jsonl").read_bytes()
    converse(PLAN, tmp_path / "run", again)
    assert again.engines == []
    assert (tmp_path / "run/turns.jsonl").read_bytes() == before
    converse(replace(PLAN, seeds=(0, 9)), tmp_path / "run", again)
    assert again.n_asked == 2 * 3
    run_file = json.loads((tmp_path / "run/run.json").read_text())
    assert run_file["seeds"] == [0, 5, 9]


def test_a_run_cut_anywhere_goes_on_to_the_same_end(tmp_path):
    converse(PLAN, tmp_path / "whole", Opener())
    content = (tmp_path / "whole/turns.jsonl").read_bytes()
    for cut in (0, 10, len(content) // 2, len(content) - 3):
        out = tmp_path / f"cut-{cut}"
        converse(replace(PLAN, models=("org/a",), seeds=(0,)), out, Opener())
        (out / "turns.jsonl").write_bytes(content[:cut])
        opener = Opener()
        converse(PLAN, out, opener)
        assert spoken(out) == spoken(tmp_path / "whole")
        assert opener.n_asked == 12 - content[:cut].count(b"\n")


def test_a_failing_model_stops_no_other_and_is_asked_again(tmp_path):
    plan = replace(PLAN, models=("broken", "org/a"), seeds=(0,))
    held = converse(plan, tmp_path / "run", Opener())
    assert [(h.outcome, h.n_turns) for h in held] == [("failed", 0), ("complete", 3)]
    assert "found none" in held[0].error
    assert document(plan, tmp_path, held)["incomplete"] == 1
    assert "found none" in held[0].transcript.read_text()
    mended = converse(plan, tmp_path / "run", lambda model: FakeEngine(answered, model=model))
    assert [h.outcome for h in mended] == ["complete", "complete"]


def test_an_unforeseen_fault_of_one_interview_is_recorded(tmp_path, caplog):
    class Odd(FakeEngine):
        def count_tokens(self, messages):
            raise ZeroDivisionError("odd")

    def open_engine(model: str) -> FakeEngine:
        return Odd(model=model) if model == "odd" else FakeEngine(answered, model=model)

    plan = replace(PLAN, models=("odd", "org/a"))
    held = converse(plan, tmp_path / "run", open_engine)
    assert [h.outcome for h in held] == ["failed"] * 2 + ["complete"] * 2
    assert held[0].error == "ZeroDivisionError: odd"
    assert "Traceback" in caplog.text


def test_a_turn_that_failed_tells_how_long_it_was_tried(tmp_path):
    class Slow(FakeEngine):
        def count_tokens(self, messages):
            time.sleep(0.1)
            raise ZeroDivisionError("odd")

    def open_engine(model: str) -> FakeEngine:
        if model == "lost":
            time.sleep(0.1)
            raise KeyError("shard")
        return Slow(model=model)

    said = []
    plan = replace(PLAN, models=("lost", "slow"), seeds=(0,))
    held = converse(plan, tmp_path / "run", open_engine, on_turn=lambda turn, n: said.append(turn))
    assert [h.error for h in held] == ["KeyError: 'shard'", "ZeroDivisionError: odd"]
    assert all(0.1 <= turn.seconds < 2.0 for turn in said)


def test_another_script_in_the_folder_is_refused_and_forgotten_by_force(tmp_path):
    converse(PLAN, tmp_path / "run", Opener())
    other = replace(PLAN, script=SCRIPT.model_copy(update={"system": "Else."}))
    with pytest.raises(UsageError, match="their script or its settings were others"):
        converse(other, tmp_path / "run", Opener())
    opener = Opener()
    converse(other, tmp_path / "run", opener, force=True)
    assert opener.n_asked == 12
    assert len(spoken(tmp_path / "run")) == 12


def test_folders_of_others_are_left_alone(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(OutputError, match="found something else"):
        converse(PLAN, tmp_path, Opener(), force=True)
    assert os.listdir(tmp_path) == ["note.txt"]


def test_a_run_killed_before_its_first_file_goes_on(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".run.json.1234.partial").write_text("{")
    assert all(h.is_complete for h in converse(PLAN, tmp_path, Opener()))


def test_the_help_names_every_shipped_script(capsys):
    assert run(["converse", "--help"]) == 0
    told = capsys.readouterr().out
    assert all(name in "".join(told.split()) for name in list_scripts())


def test_a_damaged_line_is_named(tmp_path):
    converse(PLAN, tmp_path / "run", Opener())
    lines = (tmp_path / "run/turns.jsonl").read_text().splitlines()
    (tmp_path / "run/turns.jsonl").write_text("\n".join([lines[0], "{}", *lines[2:]]) + "\n")
    with pytest.raises(UsageError, match="wanted a turn in line 2"):
        converse(PLAN, tmp_path / "run", Opener())


def test_image_prompts_are_drawn_once_with_the_interviews_seed(tmp_path, renderer):
    drawing = Drawing(renderer, RenderSettings(size_px=(64, 64)), lambda prompt, seed: None)
    held = converse(PLAN, tmp_path / "run", Opener(), drawing=drawing)
    assert [request.seeds for request in renderer.requests] == [(0,), (5,), (0,), (5,)]
    assert all(r.prompt.startswith("lines of Draw ") for r in renderer.requests)
    names = sorted(path.name for path in (tmp_path / "run/images").iterdir())
    assert names == sorted(f"{file_stem(h.model, h.seed)}-prompt.png" for h in held)
    assert f"](../images/{names[0]})" in "".join(h.transcript.read_text() for h in held)
    tex = held[0].transcript.with_suffix(".tex").read_text()
    assert rf"{{../images/{held[0].pictures[0].name}}}" in tex
    converse(PLAN, tmp_path / "run", Opener(), drawing=drawing)
    assert len(renderer.requests) == 4


def test_a_prompt_that_cannot_be_drawn_is_told_and_stops_nothing(tmp_path, renderer):
    def open_engine(model: str) -> FakeEngine:
        return FakeEngine(lambda request: "...", model=model)

    drawing = Drawing(renderer, RenderSettings(size_px=(64, 64)), lambda prompt, seed: None)
    plan = replace(PLAN, models=("a",), seeds=(0,))
    (held,) = converse(plan, tmp_path / "run", open_engine, drawing=drawing)
    assert (held.outcome, held.is_complete) == ("complete", False)
    assert "prompt: wanted a concept in words" in held.picture_errors[0]


@pytest.mark.parametrize(
    ("reply", "prompt"),
    [
        ("**Prompt:** A web.\nGolden.", "A web. Golden."),
        ('"A web"', "A web"),
        ("Shorter prompt: `lines`", "lines"),
        ("a\x1b[31m b", "a [31m b"),
    ],
)
def test_the_prompt_of_a_reply_is_one_plain_line(reply, prompt):
    assert prompt_in(reply) == prompt


def test_a_reply_without_words_is_no_prompt():
    with pytest.raises(ConceptError):
        prompt_in("```\n```")


def test_file_names_are_ascii_and_one_per_model():
    names = {file_stem(model, 0) for model in ("org/a", "org-a", "中/文", "../x", "a" * 300, "")}
    assert len(names) == 6
    assert all(name.isascii() and "/" not in name and len(name) < 70 for name in names)


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from agents.fake import FakeEngine
from tests_converse import PLAN, answered
from ui.converse import converse
def slow(request):
    time.sleep(0.02)
    return answered(request)
converse(PLAN, Path(sys.argv[1]), lambda model: FakeEngine(slow, model=model),
         on_turn=lambda turn, total: print("turn", flush=True))
"""


def test_kill_9_in_the_middle_loses_no_finished_turn(tmp_path):
    (tmp_path / "tests_converse.py").write_text(Path(__file__).read_text())
    out = tmp_path / "run"
    for wanted in (2, 5):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(out), str(tmp_path)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        for _ in range(wanted - 1):
            process.stdout.readline()
        time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    n_kept = (out / "turns.jsonl").read_bytes().count(b"\n")
    assert 3 <= n_kept < 12
    opener = Opener()
    converse(PLAN, out, opener)
    assert opener.n_asked == 12 - n_kept
    converse(PLAN, tmp_path / "whole", Opener())
    assert spoken(out) == spoken(tmp_path / "whole")


def test_all_faults_of_a_call_come_before_anything_loads(tmp_path, capsys):
    script = tmp_path / "s.yaml"
    script.write_text("name: s\nbogus: 1\nturns:\n  - {name: a, ask: 'x {reply.zzz}'}\n")
    arguments = ["--model", "", "--model", "nobody", "--seed", "-1", "--set", "x", "--size", "no"]
    assert run(["converse", str(script), *arguments]) == 2
    told = capsys.readouterr().err
    assert told.startswith("orbweave: 7 faults: (1) ")
    for wanted in (
        "--set FIELD=TEXT",
        "bogus",
        "{reply.zzz}",
        "got nothing",
        "nobody",
        "-1",
        "'no'",
    ):
        assert wanted in told


def test_an_interrupt_says_that_finished_turns_are_kept(tmp_path, capsys, monkeypatch):
    class Interrupted(FakeEngine):
        async def generate(self, request):
            if len(self.requests) == 1:
                raise KeyboardInterrupt
            return await super().generate(request)

    script, out = tmp_path / "s.yaml", tmp_path / "out"
    script.write_text("name: s\nturns: [{name: a, ask: x}, {name: b, ask: y}]\n")
    opener = "ui.commands.converse.engine_opener"
    monkeypatch.setattr(opener, lambda note: lambda model: Interrupted(answered, model=model))
    assert run(["converse", str(script), "-o", str(out)]) == 130
    told = capsys.readouterr().err
    assert f"interrupted; finished turns are kept in {out}, run it again to go on" in told
    assert [turn.turn for turn in read_turns(out / "turns.jsonl")] == ["a"]


def test_the_closing_error_names_every_reason_once(tmp_path, capsys):
    script = tmp_path / "s.yaml"
    script.write_text("name: s\nturns: [{name: a, ask: x}]\n")
    models = [tmp_path / name for name in ("one", "two")]
    for model in models:
        model.mkdir()
    call = ["converse", str(script), "-o", str(tmp_path / "out"), "--seed", "0", "--seed", "1"]
    assert run([*call, "-m", str(models[0]), "-m", str(models[1])]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert "wanted 4 complete interviews, 4 are not: " in told
    for model in models:
        assert told.count(f"{model}, seed 0 and 1 more: wanted") == 1


def test_a_dry_run_tells_the_plan_and_writes_nothing(tmp_path, capsys):
    arguments = ["--set", "concept=a bandage", "--out", str(tmp_path / "x"), "--dry-run", "--json"]
    assert run(["converse", "prompt-two-turns", *arguments]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["turns"] == ["principles", "prompt"]
    assert plan["fields"] == {"concept": "a bandage"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_command_interviews_a_real_model_and_exits_by_what_came_of_it(
    tmp_path, tiny_model, capsys
):
    script = tmp_path / "s.yaml"
    script.write_text(
        "name: s\nmax_new_tokens: 8\nturns:\n"
        "  - {name: a, ask: Say silk.}\n  - {name: b, ask: 'Again {reply.a}', image: true}\n"
    )
    wrong = tmp_path / "empty"
    wrong.mkdir()
    call = ["converse", str(script), "--out", str(tmp_path / "out"), "--json", "--seed", "3"]
    assert run([*call, "-m", str(tiny_model), "-m", str(wrong)]) == 1
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert [each["outcome"] for each in told["interviews"]] == ["complete", "failed"]
    assert told["interviews"][0]["turns"] == 2
    assert "1 are not" in captured.err
    assert run([*call, "-m", str(tiny_model)]) == 0
