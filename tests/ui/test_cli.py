"""The process edge: exit codes, one-line errors, JSON alone, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ui.cli import run

ROOT = Path(__file__).parents[2]
ORBWEAVE = [sys.executable, "-m", "ui.cli"]

# The real command line around parts that announce a phase and then take their time.
SLOW_PARTS = """
import asyncio, sys, time
import ui.design
from agents.fake import FakeEngine
from agents.roles import load_team

phase = sys.argv.pop(1)

def reached(name):
    if name == phase:
        print("reached", flush=True)
        time.sleep(30)

def workshop(note, embed, *_):
    reached("import")
    def knowledge():
        reached("facts")
    def engine(model):
        reached("model")
        return FakeEngine()
    class Renderer:
        def render(self, request, folder, *, cancelled, **_):
            folder.mkdir()
            (folder / "half.png").write_bytes(b"half")
            if phase == "render":
                print("reached", flush=True)
                while not cancelled():
                    time.sleep(0.01)
            raise SystemExit("not cancelled")
    async def converse(brief, *, render, **_):
        if phase == "talk":
            print("reached", flush=True)
            await asyncio.sleep(30)
        from orbweave.records import ImagePrompt
        await render(ImagePrompt(title="t", prompt="p"), 0)
    return ui.design.Workshop(converse, engine, knowledge, load_team(), Renderer(), None)

ui.design.workshop = workshop
from ui.cli import main
main()
"""


def _start(args: list[str], cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        args,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _assert_group_is_gone(pid: int) -> None:
    with pytest.raises(ProcessLookupError):
        os.killpg(pid, 0)


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("phase", ["import", "facts", "model", "talk", "render"])
def test_an_interrupt_in_any_phase_leaves_nothing_behind(tmp_path, phase, by):
    args = [sys.executable, "-c", SLOW_PARTS, phase, "design", "silk", "--out", "out/d"]
    with _start(args, tmp_path) as process:
        assert process.stdout is not None
        while "reached" not in (line := process.stdout.readline()):
            assert line, process.stderr and process.stderr.read()
        begin = time.monotonic()
        process.send_signal(by)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "orbweave: interrupted; nothing half made was kept\n"
    assert "Traceback" not in out
    assert time.monotonic() - begin < 20
    assert not list((tmp_path / "out").iterdir()) if (tmp_path / "out").exists() else True
    _assert_group_is_gone(process.pid)


@pytest.mark.parametrize("phase", ["import", "talk"])
def test_what_a_shell_started_in_the_background_is_ended_by_sigterm(tmp_path, phase):
    ignoring = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]  # as `command &` in a script does
    args = [*ignoring, sys.executable, "-c", SLOW_PARTS, phase, "design", "silk", "--out", "d"]
    with _start(args, tmp_path) as process:
        assert process.stdout is not None
        while "reached" not in (line := process.stdout.readline()):
            assert line, process.stderr and process.stderr.read()
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == "orbweave: interrupted; nothing half made was kept\n"
    assert list(tmp_path.iterdir()) == []
    _assert_group_is_gone(process.pid)


@pytest.mark.slow
def test_an_interrupt_while_the_real_model_loads(tmp_path):
    args = [*ORBWEAVE, "design", "silk", "--out", "d", "--json", "--structure", "none"]
    with _start(args, tmp_path) as process:
        assert process.stderr is not None
        while "loading the language model" not in (line := process.stderr.readline()):
            assert line
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "orbweave: interrupted; nothing half made was kept"
    assert "Traceback" not in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_closed_pipe_is_no_error(tmp_path):
    process = subprocess.run(
        f"{sys.executable} -m ui.cli env | head -c 1",
        shell=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert process.stderr == ""


@pytest.mark.parametrize(
    ("concept", "code", "message"),
    [
        ("", 2, "wanted a concept in words, got ''"),
        ("   \t ", 2, "wanted a concept in words"),
        ("x" * 10_000, 2, "at most 2,000 characters, got 10,000"),
        ("a\x1b[31mb", 2, "control character U+001B"),
        ("a\x00b", 2, "control character U+0000"),
    ],
)
def test_an_unusable_concept_is_told_in_one_line(
    capsys, monkeypatch, tmp_path, concept, code, message
):
    monkeypatch.chdir(tmp_path)
    assert run(["design", concept]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.startswith("orbweave: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("concept", "folder"),
    [
        ("🕸️ and 🍃 membrane", "designs/and-membrane-0"),
        ("קורי עכביש ועלה", "designs/קורי-עכביש-ועלה-0"),
        ("../../../etc/passwd", "designs/etc-passwd-0"),
        ("/dev/null", "designs/dev-null-0"),
        ("-3 degree lattice of silk", "designs/3-degree-lattice-of-silk-0"),
        ("--images of silk", "designs/images-of-silk-0"),
    ],
)
def test_an_odd_concept_is_just_text(capsys, monkeypatch, tmp_path, concept, folder):
    monkeypatch.chdir(tmp_path)
    assert run(["design", concept, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["brief"]["concept"] == concept
    assert plan["out"] == folder
    assert list(tmp_path.iterdir()) == []


def test_a_one_word_text_with_a_dash_needs_the_double_dash(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["design", "-silk", "--dry-run"]) == 2
    assert "put -- before a text" in capsys.readouterr().err
    assert run(["design", "--dry-run", "--", "-silk"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--imags", "3"], "No such option: --imags"),
        (["--images", "0"], "--images"),
        (["--seed", "-1"], "--seed"),
        (["--size", "250"], "multiple of 8"),
        (["--steps", "1"], "wanted at least one step on the structure"),
        (["--scale", "nano"], "wanted --scale as one of microstructure"),
        (["--domains", "leaf,silk"], "wanted --domains as one of spider-silk"),
        (["--solid-fraction", "40"], "--solid-fraction"),
        (["--direction", "-90"], "--direction"),
        (["--spacing", "0"], "--spacing"),
        (["--spacing", "inf"], "--spacing"),
        (["--solid-fraction", "nan"], "--solid-fraction"),
        (["--structure", "nowhere.yaml"], "wanted --structure auto, none or a readable file"),
        (["--model", "http://x"], "wanted a model server"),
    ],
)
def test_a_wrong_option_is_usage(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert run(["design", "silk", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_what_the_picture_should_measure_is_part_of_the_brief(capsys):
    asked = ["--solid-fraction", "0.4", "--direction", "180", "--spacing", "24"]
    assert run(["design", "silk", *asked, "--dry-run", "--json"]) == 0
    brief = json.loads(capsys.readouterr().out)["brief"]
    assert brief["targets"] == {"solid_fraction": 0.4, "direction_deg": 0.0, "spacing_px": 24.0}


def test_an_unknown_model_is_told_with_the_known_ones(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["design", "silk", "--model", "bse"]) == 1
    assert "did you mean base?" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_model_is_told(capsys, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes((1000).to_bytes(8, "little") + b"{")
    assert run(["design", "silk", "--model", str(model), "--out", str(tmp_path / "d"), "-q"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "model.safetensors" in err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("out", "message"),
    [("file/d", "file"), ("there", "exists already"), ("/proc/orbweave/d", "proc")],
)
def test_an_unusable_out_is_told(capsys, tmp_path, monkeypatch, out, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "there").mkdir()
    assert run(["design", "silk", "--out", out, "-q"]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "there"]


def test_debug_shows_the_traceback(capsys):
    assert run(["design", "", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_fault_of_ours_asks_for_a_report(capsys, monkeypatch):
    def broken():
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("ui.environment.machine", broken)
    assert run(["env"]) == 1
    assert "a fault of Orbweave itself, ZeroDivisionError: oh" in capsys.readouterr().err


def test_no_arguments_show_the_help(capsys):
    assert run([]) == 0
    assert "design" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["design", "render", "reproduce", "measure", "models", "env"])
def test_every_command_has_help(capsys, command):
    assert run([command, "--help"]) == 0
    assert "Usage: orbweave" in capsys.readouterr().out


def test_env_and_models_answer_in_json(capsys):
    assert run(["env", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["torch"].startswith("2.13")
    assert run(["models", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == "base"


def test_measure_reads_pictures_and_refuses_others(capsys, tmp_path, finished):
    picture = finished[1] / "images" / "v0-seed-7.png"
    assert run(["measure", str(picture), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["solid_fraction"] == pytest.approx(0.5, abs=0.02)
    (tmp_path / "no.png").write_text("no")
    assert run(["measure", str(tmp_path / "no.png")]) == 2
    assert "no.png" in capsys.readouterr().err


def test_reproduce_refuses_a_picture_without_a_record(capsys, finished):
    assert run(["reproduce", str(finished[1] / "images" / "seed-structure-0.png")]) == 2
    assert "wanted settings of Orbweave, AUTOMATIC1111" in capsys.readouterr().err
