"""`orbweave merge`, called as the command line calls it."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from orbweave.errors import OutputError, UsageError
from tests.merging.conftest import write_llama
from ui.cli import run
from ui.commands.merge import merge


def test_the_last_line_names_what_was_written(pair, tmp_path, capsys):
    merge(f"slerp({pair[0]}, {pair[1]}, t=0.5)", tmp_path / "out")
    said = capsys.readouterr()
    assert said.out.splitlines()[-1].startswith(f"merged model written to {tmp_path / 'out'} in ")
    assert "merging 20 tensors of" in said.err
    assert (tmp_path / "out" / "config.json").is_file()


def test_json_is_one_document(pair, tmp_path, capsys):
    (pair[1] / "chat_template.jinja").write_text("other")
    merge(f"slerp({pair[0]}, {pair[1]}, t=0.5)", tmp_path / "out", as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["written"] == str(tmp_path / "out")
    assert document["findings"][0]["level"] == "note"


def test_a_dry_run_shows_t_layer_by_layer_and_writes_nothing(tmp_path, capsys):
    a, b = (write_llama(tmp_path / name, n_layers=5, seed=i) for i, name in enumerate("ab"))
    ref = f"slerp({a}, {b}, profile=paper)"
    merge(ref, tmp_path / "out", dry_run=True)
    lines = capsys.readouterr().out.splitlines()
    table = {line.split()[0]: line.split()[1:] for line in lines}
    parts = table["layer"]
    by_layer = {row: dict(zip(parts, table[row], strict=True)) for row in "01234"}
    assert [by_layer[row]["self_attn"] for row in "01234"] == [
        "0.000",
        "0.500",
        "0.300",
        "0.700",
        "1.000",
    ]
    assert by_layer["2"] == {
        "input_layernorm": "0.500",
        "mlp": "0.700",
        "post_attention_layernorm": "0.500",
        "self_attn": "0.300",
    }
    assert table["embed_tokens"] == ["0.500"]
    assert lines[-1] == f"dry run: would write {tmp_path / 'out'}"
    assert not (tmp_path / "out").exists()
    merge(ref, tmp_path / "out", dry_run=True, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert {"layer": 1, "part": "mlp", "shares": [0.5, 0.5]} in document["shares"]


def test_a_dry_run_tells_every_fault(pair, tmp_path, capsys):
    with pytest.raises(UsageError, match="found 1 reason against it: t has 5 values for 2 layers"):
        merge(f"slerp({pair[0]}, {pair[1]}, profile=paper)", tmp_path / "out", dry_run=True)


def test_only_an_earlier_merge_is_replaced(pair, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("precious")
    ref = f"slerp({pair[0]}, {pair[1]}, t=0.5)"
    with pytest.raises(OutputError, match="found something else at .* choose another OUT$"):
        merge(ref, out, force=True)
    (out / "thesis.tex").rename(tmp_path / "thesis.tex")
    merge(ref, out, force=True)
    merge(ref, out, force=True, quiet=True)
    with pytest.raises(OutputError, match="exists already"):
        merge(ref, out)


@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
def test_a_recipe_that_is_missing_is_a_wrong_argument(tmp_path, capsys, flags):
    assert run(["merge", "nowhere.yaml", str(tmp_path / "out"), *flags]) == 2
    said = capsys.readouterr().err
    assert "wanted the recipe file 'nowhere.yaml', found none; check the path" in said


@pytest.mark.parametrize("name", ["shards", "one", "float32"])
def test_copies_of_one_model_are_noted(tmp_path, capsys, name):
    """Byte by byte, in other files, in another dtype."""
    a, b = tmp_path / "a", tmp_path / "b"
    write_llama(a, dtype=torch.bfloat16)
    shutil.copytree(a, b)
    tensors = load_file(b / "model.safetensors")
    if name == "shards":
        (b / "model.safetensors").unlink()
        files = {tensor: f"model-{i % 2}.safetensors" for i, tensor in enumerate(tensors)}
        for file in set(files.values()):
            save_file({t: tensors[t] for t, place in files.items() if place == file}, b / file)
        (b / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    if name == "float32":
        save_file({t: x.float() for t, x in tensors.items()}, b / "model.safetensors")
    merge(f"slerp({a}, {b}, t=0.3)", tmp_path / "out")
    assert f"note: {a} and {b} hold the same weights: a merge changes nothing" in (
        capsys.readouterr().out
    )
    tensors["model.norm.weight"][3] *= 1.01
    save_file(tensors, b / "model.safetensors")
    (b / "model.safetensors.index.json").unlink(missing_ok=True)
    merge(f"slerp({a}, {b}, t=0.3)", tmp_path / "other")
    assert "hold the same weights" not in capsys.readouterr().out


# ---------------------------------------------------------------- the group


@pytest.mark.parametrize("head", [["merge"], ["merge", "recipe"]])
def test_merging_is_what_merge_means_without_another_word(pair, tmp_path, capsys, head):
    arguments = [f"slerp({pair[0]}, {pair[1]}, t=0.5)", str(tmp_path / "out")]
    assert run([*head, *arguments, "--dry-run"]) == 0
    assert run([*head, "--json", "--quiet", *arguments]) == 0
    assert "written" in capsys.readouterr().out
    assert (tmp_path / "out" / "config.json").is_file()


def test_help_names_all_commands_and_explains_the_short_form(capsys):
    assert run(["merge", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Usage: orbweave merge [OPTIONS] RECIPE OUT | COMMAND [ARGS]..." in text
    assert "`orbweave merge RECIPE OUT` is short for `orbweave merge recipe RECIPE OUT`" in text
    assert all(f" {name} " in text for name in ("recipe", "compare", "sweep"))


@pytest.mark.parametrize("command", ["recipe", "compare", "sweep"])
def test_every_command_of_the_group_has_help(capsys, command):
    assert run(["merge", command, "--help"]) == 0
    assert f"Usage: orbweave merge {command} [OPTIONS]" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["a.yaml"], ["--dry-run"], ["a.yaml", "b", "c"]])
def test_too_few_or_too_many_words_are_usage(capsys, arguments):
    assert run(["merge", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1) and "`orbweave merge recipe --help`" in err


def test_a_model_called_like_a_command_is_reached_by_its_path(pair, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pair[0], tmp_path / "compare")
    ref = f"slerp(./compare, {pair[1]}, t=0.5)"
    assert run(["merge", ref, "sweep", "-q"]) == 0
    assert (tmp_path / "sweep" / "config.json").is_file()
    assert run(["merge", "./compare", "out"]) == 2
    assert "wanted a merge recipe, got the model ./compare" in capsys.readouterr().err
