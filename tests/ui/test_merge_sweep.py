"""`orbweave merge sweep` on tiny real models, as the command line calls it."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import typer
import yaml
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from merging.build import merge
from merging.synergy import caveat
from orbweave.errors import ModelError, OutputError, UsageError
from orbweave.weights import put_weights
from training.benchmark import load_benchmark
from training.evaluation import evaluate
from training.scoring import load_model, load_tokenizer
from ui.cli import run
from ui.commands.merge_sweep import positions, sweep
from ui.sweep import LoglikBench

ROWS = [
    {
        "id": f"q{i}",
        "domain": "letters" if i % 3 else "digits",
        "type": "mc",
        "category": "order",
        "question": f"What follows {x}{i}?",
        "options": [f"{x}{x}", f"{i} of them", "none", "all"],
        "answer": i % 4,
    }
    for i, x in enumerate("abcdefghijklmnopqrst")
]


@pytest.fixture(scope="module")
def second_model(tiny_model, tmp_path_factory):
    import torch
    from transformers import LlamaForCausalLM

    folder = tmp_path_factory.mktemp("second") / "b"
    shutil.copytree(tiny_model, folder)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(1)
    for weight in model.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def place(tmp_path, tiny_model, second_model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORBWEAVE_CACHE", str(tmp_path / "cache"))
    shutil.copytree(tiny_model, tmp_path / "a")
    shutil.copytree(second_model, tmp_path / "b")
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, ROWS)), "utf-8")
    return tmp_path


def call(**options):
    sweep("./a", "./b", **{"t": "0.5", "benchmark": ["own.jsonl"], **options})


def told(capsys):
    return json.loads(capsys.readouterr().out)


def test_answers_are_those_of_evaluate_for_parents_and_merges_on_disk(place, capsys):
    call(as_json=True)
    found = told(capsys)
    merge("slerp(./a, ./b, t=0.5)", place / "merged")
    folders = {"./a": place / "a", "./b": place / "b", "slerp t=0.5": place / "merged"}
    models = evaluate(list(folders.items()), [load_benchmark("own.jsonl")], {}).models
    by_name = {variant["name"]: variant for variant in found["variants"]}
    for model in models:
        wanted = [answer.is_right("loglik") for answer in model.answers]
        assert by_name[model.model]["right"] == wanted
    assert found["questions"] == [f"own/q{i}" for i in range(20)]


def test_the_document_holds_the_choice_its_halves_and_the_controls(place, capsys):
    call(t="0:1:0.25", as_json=True, seed=3)
    found = told(capsys)
    assert [v["same_as"] for v in found["variants"] if v["t"] == 0] == ["./a", "./a"]
    assert found["n_models"] == 8
    assert sorted(found["choosing"] + found["reporting"]) == sorted(found["questions"])
    assert len(found["choosing"]) == 10
    table = {row["name"]: row for row in found["synergy"]}
    assert len(table) == 6 and {row["n_merges"] for row in table.values()} == {6}
    best = table[found["best"]]
    assert found["chosen_by"][best["name"]] == max(found["chosen_by"][name] for name in table)
    assert set(found["slerp_over_lerp"]) == {"slerp t=0.25", "slerp t=0.5", "slerp t=0.75"}
    assert "over the better parent" in found["verdict"] or "worse" in found["verdict"]
    assert found["merging_s"] > 0 and found["scoring_s"] > 0


def test_the_terminal_shows_every_variant_and_says_how_the_best_was_found(place, capsys):
    call(t="0,0.5")
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert lines[0].startswith("| model ") and "reporting half, % (95 %)" in lines[0]
    assert "| slerp t=0 = ./a" in said and "| lerp t=0.5 " in said
    assert "best of 2 different merges on the 10 questions of the choosing half" in said
    assert "on the other 10: " in said
    assert "4 different models, 0 answered before; merging " in said


def test_a_second_run_in_the_same_folder_only_asks_what_is_new(place, capsys):
    call(out=place / "out", as_json=True)
    first = told(capsys)
    call(out=place / "out", as_json=True)
    again = told(capsys)
    assert (first["n_known"], again["n_known"]) == (0, 4)
    assert again["variants"] == first["variants"]
    with pytest.raises(OutputError, match="finished sweep of another request"):
        call(t="0.5,0.75", out=place / "out")
    call(t="0.5,0.75", out=place / "out", as_json=True, force=True)
    assert told(capsys)["n_known"] == 4
    names = {path.name for path in (place / "out").iterdir()}
    assert names == {
        *("request.json", "answers", "sweep.json", "report.md", "best.yaml"),
        *("accuracy-over-t.png", "accuracy-over-t.svg", "deviations.png", "deviations.svg"),
    }
    linked = re.findall(r"!\[.*?\]\((.*?)\)", (place / "out" / "report.md").read_text("utf-8"))
    assert linked == ["accuracy-over-t.png", "deviations.png"]


def test_the_best_is_kept_as_a_recipe_that_can_be_built(place, capsys):
    call(out=place / "out", quiet=True)
    assert capsys.readouterr().out == f"written to {place / 'out'}\n"
    recipe = yaml.safe_load((place / "out" / "best.yaml").read_text())
    assert recipe["merge_method"] in {"slerp", "linear"}
    merge("out/best.yaml", place / "built")
    assert (place / "built" / "model.safetensors").is_file()


def test_a_plan_names_the_matrix_and_the_time_and_writes_nothing(place, capsys):
    before = sorted(place.iterdir())
    call(t="0:1:0.5", plan=True, out=place / "out")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == ["./a", "./b", "slerp t=0 = ./a", "lerp t=0 = ./a"]
    assert lines[-1].startswith(
        "plan: 8 variants, 4 different models, 0 answered before, 20 questions each; about "
    )
    assert sorted(place.iterdir()) == before
    call(out=place / "out", quiet=True)
    capsys.readouterr()
    call(t="0:1:0.5", plan=True, out=place / "out", as_json=True, force=True)
    assert told(capsys)["n_known"] == 4


def test_the_command_line_takes_its_options(place):
    app = typer.Typer()
    app.command()(sweep)
    asked = ["./a", "./b", "--t", "0.5", "--benchmark", "own.jsonl", "--chart", "t.svg", "--quiet"]
    done = CliRunner().invoke(app, asked)
    assert (done.exit_code, done.stdout) == (0, "written to t.svg\n")
    assert "Merges of ./a and ./b" in (place / "t.svg").read_text()
    assert isinstance(CliRunner().invoke(app, asked).exception, OutputError)
    assert CliRunner().invoke(app, [*asked, "--force"]).exit_code == 0


def test_nothing_of_another_request_is_left_where_there_is_no_merge_to_judge(place):
    call(out=place / "out", quiet=True)
    call(t="0,1", out=place / "out", quiet=True, force=True)
    names = {path.name for path in (place / "out").iterdir()}
    assert names == {
        *("request.json", "answers", "sweep.json", "report.md"),
        *("accuracy-over-t.png", "accuracy-over-t.svg"),
    }


@pytest.mark.parametrize("out", [None, "out"])
def test_an_interrupted_sweep_says_what_is_kept_and_how_to_go_on(place, monkeypatch, capsys, out):
    asked, ask = [], LoglikBench.ask

    def ask_twice(self, on_progress):
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(1)
        return ask(self, on_progress)

    words = ["merge", "sweep", "./a", "./b", "--t", "0.5", "--benchmark", "own.jsonl"]
    words += ["--json", *(["--out", out] if out else [])]
    with monkeypatch.context() as patched:
        patched.setattr(LoglikBench, "ask", ask_twice)
        assert run(words) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    if out is None:
        assert said == "orbweave: interrupted; nothing half made was kept"
        return
    assert said == (
        "orbweave: interrupted; the answers of 2 of 4 different models are kept in out, the same "
        "command goes on from there"
    )
    assert run(words) == 0
    assert told(capsys)["n_known"] == 2


def test_copies_of_one_model_are_noted(place, capsys):
    shutil.copytree(place / "a", place / "copy")
    sweep("./a", "./copy", t="0.5", benchmark=["own.jsonl"])
    assert "note: ./a and ./copy hold the same weights" in capsys.readouterr().out


def test_too_few_questions_to_split_are_told_before_any_scoring(place, monkeypatch):
    monkeypatch.setattr(LoglikBench, "load", None)
    (place / "few.jsonl").write_text("\n".join(map(json.dumps, ROWS[:2])), "utf-8")
    with pytest.raises(UsageError, match="at least 4 questions .* got 2"):
        call(benchmark=["few.jsonl"])


def test_a_parent_with_another_configuration_is_scored_as_itself(place, capsys):
    config = json.loads((place / "b" / "config.json").read_text())
    config["rms_norm_eps"] = 0.5
    (place / "b" / "config.json").write_text(json.dumps(config))
    call(as_json=True)
    by_name = {variant["name"]: variant for variant in told(capsys)["variants"]}
    (model,) = evaluate([("b", place / "b")], [load_benchmark("own.jsonl")], {}).models
    assert by_name["./b"]["right"] == [answer.is_right("loglik") for answer in model.answers]


def test_weights_are_put_in_place_and_others_refused(place):
    model, _ = load_model(place / "a")
    other, _ = load_model(place / "b")
    tensors = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    tied = tensors.pop("lm_head.weight")
    put_weights(model, tensors, "a")
    assert (model.lm_head.weight == tied).all()
    assert all((model.state_dict()[name] == tensor).all() for name, tensor in tensors.items())
    norm = tensors.pop("model.norm.weight")
    with pytest.raises(ModelError, match="model.norm.weight is missing"):
        put_weights(model, tensors, "a")
    with pytest.raises(ModelError, match="strange is unknown"):
        put_weights(model, {**tensors, "model.norm.weight": norm, "strange": norm}, "a")
    with pytest.raises(ModelError, match="torch says"):
        put_weights(model, {**tensors, "model.norm.weight": norm[:3]}, "a")
    with pytest.raises(ModelError, match="wanted a tokenizer from"):
        load_tokenizer(place / "nowhere")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0:1:0.25", [0, 0.25, 0.5, 0.75, 1]),
        ("0:0.3:0.1", [0, 0.1, 0.2, 0.3]),
        ("0.1:0.4:0.2", [0.1, 0.3]),
        ("0:1:0.3", [0, 0.3, 0.6, 0.9]),
        ("0.5", [0.5]),
        ("0.25, 0.5", [0.25, 0.5]),
    ],
)
def test_places_are_exact_decimals(text, wanted):
    assert positions(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "0:1", "0:1:0", "1:0:0.1", "0:1:-0.1", "0:1:1e-9", "0:nan:0.1"),
        "0:1e999999:1e-999999",
    ],
)
def test_other_places_are_refused(text):
    with pytest.raises(UsageError, match="wanted --t as START:STOP:STEP"):
        positions(text)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"t": "0:2:0.5"}, UsageError, r"every t in \[0, 1\], got 1.5"),
        ({"t": ""}, UsageError, "wanted --t as START:STOP:STEP"),
        ({"t": "nan,0.5"}, UsageError, r"every t in \[0, 1\], got nan"),
        ({"t": "0.5", "profiles": "paper"}, UsageError, "together with the profile constant"),
        ({"profiles": "cubic"}, UsageError, "wanted --t together|wanted profiles out of"),
        ({"profiles": "constant,paper"}, UsageError, "t has 5 values for 2 layers"),
        ({"benchmark": ["nowhere"]}, UsageError, "no name or file 'nowhere'"),
        ({"benchmark": ["own.jsonl", "own.jsonl"]}, UsageError, "got own twice"),
        ({"chart": "t.bmp"}, UsageError, "ending in .png, .svg, .pdf, got 't.bmp'"),
        ({"out": "a"}, OutputError, "found something else at a"),
    ],
)
def test_what_cannot_be_done_is_told_before_any_scoring(
    place, monkeypatch, options, error, message
):
    from pathlib import Path

    monkeypatch.setattr(LoglikBench, "load", None)
    paths = {key: Path(value) for key, value in options.items() if key in {"chart", "out"}}
    with pytest.raises(error, match=message):
        call(**{**options, **paths})


def test_few_questions_are_told_not_to_be_trusted(place, capsys):
    """Equal answers to ten questions are no proof of equal models."""
    weights = load_file(place / "a" / "model.safetensors")
    nearly = {name: 1.0001 * weight for name, weight in weights.items()}
    save_file(nearly, place / "b" / "model.safetensors", metadata={"format": "pt"})
    call()
    said = capsys.readouterr().out
    assert "+0.0 to +0.0" not in said and "| +0.0 (no interval) " in said
    assert "+0.0 points, no interval: every question went alike" in said
    told = "intervals of 10 questions cannot be trusted: with fewer than 30 they come out too"
    assert told in said and "a difference of 30 points could still hide there" in said


def test_enough_questions_need_no_caution():
    assert caveat(30) is None and "intervals of 29 questions" in caveat(29)
