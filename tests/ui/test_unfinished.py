"""Designs that are broken off, and go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

import ui.design
from agents.fake import FakeEngine, hashed_words
from agents.generation import Generation
from agents.knowledge import Fact, Knowledge
from agents.recording import read_recording
from agents.roles import load_team
from agents.state import read_state, write_state
from agents.steering import reroll
from agents.team import converse
from imagegen.measure import measure
from orbweave.errors import Cancelled, EngineError, OutputError
from orbweave.records import Brief, Design
from ui.cli import run
from ui.rendering import RenderSettings
from ui.unfinished import Unfinished

ARGUMENTS = (
    "design", "a silk net", "--domains", "spider-silk", "--rounds", "2", "--structure", "none",
    "--size", "64", "--images", "1", "--seed", "7", "--quiet", "--out",
)  # fmt: skip
PROMPT = (
    "Close view of a pale net of thick radial threads of silk, seen from above. Thin spiral "
    "threads cross them at even gaps from the middle to the corners. Dark background, soft light."
)


def _answer(request: Generation) -> str:
    question = request.messages[-1].content
    if "Facts:" in question or "Seen in nature" in question:
        return request.prefix + question.split("- ", 1)[1].splitlines()[0]
    if request.prefix.endswith("Prompt:"):
        return f"{request.prefix} {PROMPT}"
    return f"{request.prefix} a net"


@pytest.fixture
def shop(monkeypatch, tmp_path, renderer) -> Callable[[Callable[[Generation], str]], None]:
    """Furnishes the workshop with a fake engine that answers as told, and the real team."""
    monkeypatch.chdir(tmp_path)
    fact = Fact(
        id="silk-0001", domain="spider-silk", topic="structure", quantity=None,
        statement="Spiral threads of a web of silk cross radial threads.",
        visual="Even spiral lines on straight radial lines.",
        source_title="A page", source_url="https://example.org",
    )  # fmt: skip
    knowledge = Knowledge([fact], hashed_words)

    def furnish(answer: Callable[[Generation], str]) -> None:
        def workshop(note, embed, *_):
            return ui.design.Workshop(
                converse,
                lambda model: FakeEngine(answer, model=model),
                lambda: knowledge,
                load_team(),
                renderer,
                measure,
            )

        monkeypatch.setattr(ui.design, "workshop", workshop)

    return furnish


def _failing_at(n: int) -> Callable[[Generation], str]:
    """Return answers of which the n-th paragraph is none."""
    seen = 0

    def answer(request: Generation) -> str:
        nonlocal seen
        seen += request.prefix.endswith("Advice:")
        if seen >= n:
            raise EngineError("wanted a token, the model is gone; load it again")
        return _answer(request)

    return answer


def _said(folder: Path) -> dict[str, object]:
    """Return what a finished design says, without times and places."""
    record = Design.model_validate_json((folder / "design.json").read_text())
    data = record.model_dump(mode="json", exclude={"timings_s", "environment"})
    for item in [*data["turns"], *data["pictures"]]:
        item["seconds"] = 0.0
    return data


def test_a_design_broken_off_goes_on_to_the_one_it_would_have_been(shop, tmp_path, capsys):
    shop(_answer)
    assert run([*ARGUMENTS, "whole"]) == 0
    shop(_failing_at(2))
    assert run([*ARGUMENTS, "d"]) == 1
    err = capsys.readouterr().err
    assert "the model is gone" in err
    assert "go on with: orbweave design --resume d.unfinished" in err
    assert not (tmp_path / "d").exists()
    shop(_answer)
    assert run(["design", "--resume", "d.unfinished", "--quiet"]) == 0
    assert capsys.readouterr().out == f"design written to {tmp_path / 'd'}\n"
    assert _said(tmp_path / "d") == _said(tmp_path / "whole")
    names = {path.name for path in (tmp_path / "d").iterdir()}
    assert {"design.json", "report.html", "state.json", "recording.jsonl", "images"} <= names
    assert "order.json" not in names
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "whole"]


def test_a_picture_that_nothing_tells_of_is_not_in_the_way(shop, tmp_path):
    shop(_answer)
    assert run([*ARGUMENTS, "whole"]) == 0
    shop(_failing_at(1))
    assert run([*ARGUMENTS, "d"]) == 1
    images = tmp_path / "d.unfinished" / "images"
    assert [path.name for path in images.iterdir()] == ["v0-seed-7.png"]
    (images / "v1-seed-7.png").write_bytes(b"drawn, and killed before it was noted")
    shop(_answer)
    assert run(["design", "--resume", "d.unfinished", "--quiet"]) == 0
    assert _said(tmp_path / "d") == _said(tmp_path / "whole")


def test_its_timings_are_of_all_runs(shop, tmp_path):
    shop(_failing_at(1))
    assert run([*ARGUMENTS, "d"]) == 1
    path = tmp_path / "d.unfinished" / "state.json"
    state = read_state(path)
    before = state.timings_s
    assert set(before) >= {"facts", "language model", "rendering", "conversation and pictures"}
    assert before["conversation and pictures"] > 0  # which had not ended
    write_state(state.model_copy(update={"timings_s": before | {"rendering": 100.0}}), path)
    shop(_answer)
    assert run(["design", "--resume", "d", "--quiet"]) == 0
    after = Design.model_validate_json((tmp_path / "d" / "design.json").read_text()).timings_s
    assert 100.0 < after["rendering"] < 160.0
    assert all(after[phase] >= seconds for phase, seconds in before.items())


def test_the_folder_it_is_to_become_names_it_too(shop, tmp_path):
    shop(_failing_at(1))
    assert run([*ARGUMENTS, "d"]) == 1
    shop(_answer)
    assert run(["design", "--resume", "d", "--quiet"]) == 0
    assert (tmp_path / "d" / "design.json").is_file()


def test_its_folder_holds_all_that_was_made_so_far(shop, tmp_path):
    shop(_failing_at(1))
    run([*ARGUMENTS, "d"])
    folder = tmp_path / "d.unfinished"
    state = read_state(folder / "state.json")
    assert (state.outcome, len(state.steps)) == ("failed", 4)
    assert all((folder / picture.path).is_file() for picture in state.pictures)
    assert len(read_recording(folder / "recording.jsonl")) > 20


def test_a_dry_run_says_what_is_there_and_goes_on_with_nothing(shop, tmp_path, capsys):
    shop(_failing_at(1))
    run([*ARGUMENTS, "d"])
    assert run(["design", "--resume", "d", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == ["facts", "advice", "prompt", "pictures"]
    assert (tmp_path / "d.unfinished").is_dir()


def test_a_new_design_does_not_run_over_an_unfinished_one_unless_forced(shop, tmp_path, capsys):
    shop(_failing_at(1))
    run([*ARGUMENTS, "d"])
    shop(_answer)
    assert run([*ARGUMENTS, "d"]) == 1
    assert "an unfinished design is in d.unfinished; go on with --resume" in capsys.readouterr().err
    assert run([*ARGUMENTS, "d", "--force"]) == 0
    assert not (tmp_path / "d.unfinished").exists()


def test_of_two_that_begin_in_one_folder_the_second_is_refused_and_harms_nothing(tmp_path):
    first, second = (Unfinished.begin(tmp_path / "d", {}) for _ in range(2))
    with first.working() as folder:
        (folder / "early").write_text("before anybody has spoken")
        with pytest.raises(OutputError, match="another process does; wait for it to end, or"):
            with second.working():
                pytest.fail("the block must not run")
        assert {path.name for path in folder.iterdir()} == {".lock", "order.json", "early"}
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["early"]


def test_a_design_under_way_in_another_process_is_waited_for_not_gone_on_with(
    shop, tmp_path, capsys
):
    shop(_failing_at(1))
    run([*ARGUMENTS, "d"])
    folder = tmp_path / "d.unfinished"
    before = (folder / "state.json").read_bytes()
    with FileLock(folder / ".lock"):  # as a process at work there holds it
        for call in (["design", "--resume", "d", "--quiet"], [*ARGUMENTS, "d"]):
            capsys.readouterr()
            assert run(call) == 1
            told = capsys.readouterr().err
            assert "another process does; wait for it to end, or begin a design with" in told
            assert "--resume" not in told
    assert (folder / "state.json").read_bytes() == before
    shop(_answer)
    assert run(["design", "--resume", "d", "--quiet"]) == 0


def test_what_a_process_killed_before_anybody_spoke_left_is_cleared_away(tmp_path):
    folder = tmp_path / "d.unfinished"
    (folder / "images").mkdir(parents=True)
    for name in (".lock", "order.json", "recording.jsonl", "images/v0.png"):
        (folder / name).write_text("left")
    with Unfinished.begin(tmp_path / "d", {}).working() as again:
        assert sorted(path.name for path in again.iterdir()) == [".lock", "order.json"]


def test_one_in_which_nobody_has_spoken_is_not_kept(shop, tmp_path):
    def gone(request: Generation) -> str:
        raise AssertionError("nobody should be asked")

    def workshop(note, embed, *_):
        raise EngineError("no model")

    shop(gone)
    ui.design.workshop = workshop
    assert run([*ARGUMENTS, "d"]) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["a leaf"], "got concept too"),
        (["--steps", "3", "--team", "single"], "got --steps, --team too"),
    ],
)
def test_what_was_fixed_when_it_began_cannot_be_asked_for_again(shop, capsys, more, said):
    assert run(["design", "--resume", "d", *more]) == 2
    assert said in capsys.readouterr().err


def test_another_model_can_go_on_where_one_failed(shop, tmp_path, capsys):
    shop(_failing_at(2))
    assert run([*ARGUMENTS, "d"]) == 1
    assert "(--model REF lets another model speak)" in capsys.readouterr().err
    shop(_answer)
    assert run(["design", "--resume", "d", "--model", "llama", "--quiet"]) == 1
    assert "found none called 'llama'" in capsys.readouterr().err
    assert run(["design", "--resume", "d", "--model", "base", "--quiet"]) == 0
    record = Design.model_validate_json((tmp_path / "d" / "design.json").read_text())
    models = [turn.model for turn in record.turns]
    assert set(models) == {"generalist", "base"}
    assert models == sorted(models, reverse=True)
    # It was not trained on the forms, so it is shown the examples that the other did without.
    team = read_state(tmp_path / "d" / "state.json").team
    assert team.principle.examples == load_team().principle.examples != ()


def test_a_place_without_an_unfinished_design_is_named(shop, tmp_path, capsys):
    assert run(["design", "--resume", "."]) == 2
    assert "wanted an unfinished design, found none in" in capsys.readouterr().err


def test_neither_concept_nor_resume_is_an_error(shop, capsys):
    assert run(["design"]) == 2
    assert "wanted a CONCEPT, got none" in capsys.readouterr().err


def test_a_broken_state_is_told_and_gone_on_with_by_force(shop, tmp_path, capsys):
    shop(_failing_at(1))
    run([*ARGUMENTS, "d"])
    path = tmp_path / "d.unfinished" / "state.json"
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b'"kind": "pictures"')])
    shop(_answer)
    capsys.readouterr()
    assert run(["design", "--resume", "d", "--quiet"]) == 1
    err = capsys.readouterr().err
    assert "its first 3 steps can be read: go on from there with --force" in err
    assert run(["design", "--resume", "d", "--quiet", "--force"]) == 0
    assert (tmp_path / "d" / "state.json.broken").is_file()


def test_a_cancelled_design_is_kept(shop, tmp_path, monkeypatch):
    shop(_answer)
    monkeypatch.setattr(ui.design, "ASK_S", 0.01)
    brief = Brief(concept="silk", domains=("spider-silk",))
    order = ui.design.Order(
        brief, 1, 1, RenderSettings(size_px=(64, 64)), None, lambda prompt, seed: None
    )
    work = Unfinished.begin(tmp_path / "d", {})
    with pytest.raises(Cancelled):
        ui.design.design(
            order,
            work.target,
            ui.design.workshop(lambda text: None, lambda texts: hashed_words(texts)),
            on_event=lambda event: None,
            cancelled=lambda: work.is_kept,
            unfinished=work,
        )
    assert work.is_kept


SLOW = """
import time, ui.design
from agents.fake import FakeEngine, hashed_words
from agents.knowledge import Knowledge, read_facts
from agents.roles import load_team
from agents.team import converse
from ui.cli import main

def answer(request):
    if request.prefix == "Title:":
        print("reached", flush=True)
    question = request.messages[-1].content
    told = question.split("- ", 1)[1].splitlines()[0] if "- " in question else "a net"
    return request.prefix + told

class Slow(FakeEngine):
    def stream(self, request):
        self._delay_s = 9.0 if request.prefix == "Title:" else 0.0
        return super().stream(request)

silk = [fact for fact in read_facts() if fact.domain == "spider-silk"]
knowledge = Knowledge(silk[:20], hashed_words)
ui.design.workshop = lambda note, embed, *_: ui.design.Workshop(
    converse, lambda model: Slow(answer), lambda: knowledge, load_team(), None, None
)
main()
"""


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL])
def test_a_process_that_is_stopped_leaves_what_was_said_until_then(tmp_path, by):
    args = [sys.executable, "-c", SLOW, *ARGUMENTS, "d"]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        args, cwd=tmp_path, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        while "reached" not in (line := process.stdout.readline()):
            assert line, process.stderr and process.stderr.read()
        process.send_signal(by)
        _, err = process.communicate(timeout=60)
    state = read_state(tmp_path / "d.unfinished" / "state.json")
    assert [step.kind for step in state.steps] == ["facts", "advice"]
    if by == signal.SIGINT:
        assert process.returncode == 130
        assert err.splitlines() == [
            "orbweave: interrupted; what was said so far is kept, go on with: "
            "orbweave design --resume d.unfinished"
        ]
        assert state.outcome == "cancelled"
    else:
        assert state.outcome == "under way"


def test_a_turn_said_anew_is_drawn_beside_the_pictures_it_replaces(shop, tmp_path):
    shop(_failing_at(2))
    run([*ARGUMENTS, "d"])
    path = tmp_path / "d.unfinished" / "state.json"
    state = read_state(path)
    engineer = next(turn for turn in state.turns if turn.role == "engineer")
    write_state(reroll(state, engineer.index), path)
    shop(_answer)
    assert run(["design", "--resume", "d", "--quiet"]) == 0
    pictures = read_state(tmp_path / "d" / "state.json").pictures
    assert len(pictures) == len({picture.path for picture in pictures})
    assert all((tmp_path / "d" / picture.path).is_file() for picture in pictures)
    assert "images/v0-2-seed-7.png" in {picture.path for picture in pictures}


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="wanted a folder that even root cannot fill")
def test_a_place_nobody_can_write_in_is_named_with_what_to_do():
    unfinished = Unfinished.begin(Path("/proc/nope"), {})
    with pytest.raises(OutputError, match=r"wanted to work in /proc/nope.*choose another --out"):
        unfinished.working().__enter__()
