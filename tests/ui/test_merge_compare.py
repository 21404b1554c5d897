"""`orbweave merge compare`, as the command line calls it."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.merging.conftest import write_llama
from ui.cli import run


@pytest.fixture
def family(tmp_path, monkeypatch) -> tuple[str, str, str]:
    """Two models and what both were trained from."""
    monkeypatch.setenv("ORBWEAVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    base = load_file(write_llama(tmp_path / "base") / "model.safetensors")
    draw = torch.Generator().manual_seed(3)
    for name in ("a", "b"):
        write_llama(tmp_path / name)
        tensors = {n: t + 0.01 * torch.randn(t.shape, generator=draw) for n, t in base.items()}
        save_file(tensors, tmp_path / name / "model.safetensors")
    return "./a", "./b", "./base"


def test_the_terminal_shows_layers_parts_and_advice(family, capsys):
    a, b, base = family
    assert run(["merge", "compare", a, b, "--base", base]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "angle, degrees" in lines[0] and "cosine of task vectors" in lines[0]
    assert lines[1].split() == ["layer", *["attention", "mlp", "norm"] * 3]
    layers = {line.split()[0]: line.split()[1:] for line in lines[2:4]}
    assert layers.keys() == {"0", "1"} and {len(cells) for cells in layers.values()} == {9}
    parts = [line.split()[0] for line in lines[5:11]]
    assert parts == ["weights", "attention", "mlp", "norm", "embedding", "all"]
    assert any(line.startswith("SLERP is a straight line for ") for line in lines)
    assert any(line.startswith("task vectors: |A - base| ") for line in lines)
    assert any(line.startswith("advice: the two learnt unrelated things") for line in lines)
    assert lines[-1] == "compared 20 tensors of ./a and ./b"


def test_tables_are_aligned_and_no_line_ends_in_blanks(family, capsys):
    run(["merge", "compare", *family[:2]])
    lines = capsys.readouterr().out.splitlines()
    assert all(line == line.rstrip() for line in lines)
    assert len({len(line) for line in lines[1:4]}) == 1
    assert len({len(line) for line in lines[5:11]}) == 1
    assert "task" not in "".join(lines)


def test_json_holds_every_tensor_and_the_advice(family, capsys):
    a, b, base = family
    assert run(["merge", "compare", a, b, "--base", base, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["parents"], told["base"], told["written"]) == ([a, b], base, [])
    assert len(told["tensors"]) == 20
    assert {"angle_deg", "norm_ratio", "change", "path", "task_cosine"} <= told["tensors"][0].keys()
    assert abs(told["total"]["task_cosine"]) == told["model_kinship_cosine"]
    assert any("unrelated" in text for text in told["advice"])


def test_csv_and_chart_are_written_and_named(family, tmp_path, capsys):
    arguments = ["merge", "compare", *family[:2], "--csv", "t.csv", "--chart", "c.png", "-q"]
    assert run(arguments) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("; written to t.csv, c.png")
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20 and rows[0]["task_cosine"] == ""
    assert 0 < float(rows[0]["angle_deg"]) < 90
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert run(arguments) == 1
    assert "exists already" in capsys.readouterr().err
    assert run([*arguments, "--force"]) == 0


def test_a_chart_of_another_kind_is_refused_before_the_work(family, tmp_path, capsys):
    arguments = ["merge", "compare", *family[:2], "--csv", "t.csv", "--chart", "c.gif"]
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1) and "wanted a picture as .png or .svg" in err
    assert not (tmp_path / "t.csv").exists()


def test_a_model_compared_with_itself_is_told_so(family, capsys):
    assert run(["merge", "compare", family[0], family[0]]) == 0
    assert "hold the same weights: a merge changes nothing" in capsys.readouterr().out


def test_missing_models_are_all_told(family, capsys):
    assert run(["merge", "compare", "./one", "./two"]) == 1
    err = capsys.readouterr().err
    assert "'./one'" in err and "'./two'" in err and err.count("\n") == 1


def test_models_that_changed_different_weights_are_compared_and_drawn(family, tmp_path, capsys):
    """As adapters on other parts are: nowhere is there a cosine, in all it is 0."""
    a, b, base = family
    for name, part in ((a, "self_attn"), (b, "mlp")):
        own, root = (load_file(tmp_path / n / "model.safetensors") for n in (name, base))
        changed = {n: t if part in n else root[n] for n, t in own.items()}
        save_file(changed, tmp_path / name / "model.safetensors")
    assert run(["merge", "compare", a, b, "--base", base, "--chart", "c.png"]) == 0
    out = capsys.readouterr().out
    assert "cosine +0.000" in out and "advice: the two learnt unrelated things" in out
    assert (tmp_path / "c.png").is_file()


def test_a_base_that_is_no_ancestor_is_told(family, tmp_path, capsys):
    a, b, _ = family
    write_llama(tmp_path / "stranger", seed=9)
    assert run(["merge", "compare", a, b, "--base", "./stranger"]) == 0
    out = capsys.readouterr().out
    assert "advice: ./stranger looks like no ancestor of ./a and ./b: most weights lie" in out
    assert "learnt" not in out.replace("what was learnt", "") and "nuslerp" not in out


def test_other_architectures_are_told(family, tmp_path, capsys):
    path = tmp_path / "b" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"architectures": ["MistralForCausalLM"]}))
    assert run(["merge", "compare", *family[:2]]) == 0
    told = "advice: ./a is a LlamaForCausalLM, ./b a MistralForCausalLM: tensors of one name"
    assert told in capsys.readouterr().out
    tensors = load_file(tmp_path / "b" / "model.safetensors")
    renamed = {f"other.{name}": tensor for name, tensor in tensors.items()}
    save_file(renamed, tmp_path / "b" / "model.safetensors")
    assert run(["merge", "compare", *family[:2]]) == 2
    assert "no weights in common in ./a and ./b (./a is a Llama" in capsys.readouterr().err
