"""Our merges against mergekit's own, and the methods that mergekit runs for us."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from merging import mergekit_adapter
from merging.build import merge
from merging.recipe import PROFILES, Input, Recipe
from orbweave.errors import Cancelled, ModelError, OutputError
from tests.merging.conftest import WORDS, write_adapter, write_llama, write_tokenizer

PAPER_FOR_TWO = [
    {"filter": "self_attn", "value": [0.1, 0.9]},
    {"filter": "mlp", "value": [0.9, 0.1]},
    {"value": 0.5},
]


def _by_mergekit(content: dict, out: Path) -> dict[str, torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mergekit.config import MergeConfiguration
        from mergekit.merge import run_merge
        from mergekit.options import MergeOptions

        cache = str(out) + "-adapters"
        options = MergeOptions(device="cpu", quiet=True, lora_merge_cache=cache)
        run_merge(MergeConfiguration.model_validate(content), str(out), options=options)
    return load_file(out / "model.safetensors")


def _by_us(content: dict, out: Path) -> dict[str, torch.Tensor]:
    recipe = out.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump(content))
    merge(str(recipe), out)
    return load_file(out / "model.safetensors")


def _whole(a: Path, b: Path) -> dict:
    return {"base_model": str(a), "models": [{"model": str(a)}, {"model": str(b)}]}


def _sliced(a: Path, b: Path) -> dict:
    sources = [{"model": str(part), "layer_range": [0, 2]} for part in (a, b)]
    return {"base_model": str(a), "slices": [{"sources": sources}]}


def _one_slice_deeper(a: Path, b: Path) -> dict:
    sources = [{"model": str(part), "layer_range": [1, 2]} for part in (b, a)]
    return {"base_model": str(a), "slices": [{"sources": sources}]}


@pytest.mark.parametrize("layout", [_whole, _sliced, _one_slice_deeper])
@pytest.mark.parametrize("t", [0.0, 0.3, PAPER_FOR_TWO], ids=["0", "0.3", "filters"])
def test_slerp_is_mergekits(pair, tmp_path, layout, t):
    if t is PAPER_FOR_TWO and layout is _one_slice_deeper:
        t = [{**part, "value": 0.2} for part in PAPER_FOR_TWO]
    content = layout(*pair) | {"merge_method": "slerp", "parameters": {"t": t}, "dtype": "float32"}
    ours, theirs = _by_us(content, tmp_path / "ours"), _by_mergekit(content, tmp_path / "theirs")
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, atol=1e-6, rtol=0)
    depths = [
        json.loads((tmp_path / who / "config.json").read_text())["num_hidden_layers"]
        for who in ("ours", "theirs")
    ]
    assert depths[0] == depths[1]


def test_slerp_of_deep_models_by_the_papers_profile_is_mergekits(tmp_path):
    a, b = (write_llama(tmp_path / name, n_layers=7, seed=i) for i, name in enumerate("ab"))
    content = _whole(a, b) | {
        "merge_method": "slerp",
        "parameters": {"t": PROFILES["paper"]},
        "dtype": "float32",
    }
    ours, theirs = _by_us(content, tmp_path / "ours"), _by_mergekit(content, tmp_path / "theirs")
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, atol=1e-6, rtol=0)


def test_bfloat16_is_mergekits_within_one_rounding(tmp_path):
    a, b = (
        write_llama(tmp_path / name, seed=i, dtype=torch.bfloat16) for i, name in enumerate("ab")
    )
    content = _whole(a, b) | {
        "merge_method": "slerp",
        "parameters": {"t": PAPER_FOR_TWO},
        "dtype": "bfloat16",
    }
    ours, theirs = _by_us(content, tmp_path / "ours"), _by_mergekit(content, tmp_path / "theirs")
    n_equal = n_all = 0
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype == torch.bfloat16
        steps = (ours[name].view(torch.int16).int() - tensor.view(torch.int16).int()).abs()
        assert steps.max() <= 1
        n_equal, n_all = n_equal + int((steps == 0).sum()), n_all + steps.numel()
    assert n_equal / n_all > 0.999


def test_weighted_averages_are_mergekits(pair, tmp_path):
    models = [
        {"model": str(pair[0]), "parameters": {"weight": [0.2, 0.6]}},
        {
            "model": str(pair[1]),
            "parameters": {"weight": [{"filter": "mlp", "value": 2}, {"value": 1}]},
        },
    ]
    for i, normalize in enumerate((True, False)):
        content = {
            "merge_method": "linear",
            "models": models,
            "parameters": {"normalize": normalize},
            "dtype": "float32",
        }
        ours = _by_us(content, tmp_path / f"ours{i}")
        for name, tensor in _by_mergekit(content, tmp_path / f"theirs{i}").items():
            torch.testing.assert_close(ours[name], tensor, atol=1e-6, rtol=0)


def test_the_spherical_mean_is_mergekits_at_rest(pair, tmp_path):
    third = write_llama(tmp_path / "c", seed=3)
    content = {
        "merge_method": "karcher",
        "models": [{"model": str(folder)} for folder in (*pair, third)],
        "dtype": "float32",
    }
    ours = _by_us(content, tmp_path / "ours")
    for name, tensor in _by_mergekit(content, tmp_path / "theirs").items():
        torch.testing.assert_close(ours[name], tensor, atol=1e-5, rtol=0)


def test_an_adapter_in_a_recipe_is_mergekits(pair, tmp_path):
    adapter = write_adapter(tmp_path / "adapter", target_modules=["q_proj", "v_proj"])
    content = {
        "merge_method": "slerp",
        "base_model": str(pair[0]),
        "models": [{"model": str(pair[0])}, {"model": f"{pair[0]}+{adapter}"}],
        "parameters": {"t": 0.4},
        "dtype": "float32",
    }
    ours, theirs = _by_us(content, tmp_path / "ours"), _by_mergekit(content, tmp_path / "theirs")
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, atol=1e-6, rtol=0)


# ---------------------------------------------------------------- what mergekit runs


@pytest.mark.slow
@pytest.mark.timeout(400)  # a process of its own loads mergekit
def test_another_method_and_other_words_are_left_to_mergekit(pair, tmp_path):
    """TIES over vocabularies that differ: both are mergekit's work."""
    write_tokenizer(pair[1], [*WORDS[:11], "x"])
    content = {
        "merge_method": "ties",
        "base_model": str(pair[0]),
        "models": [{"model": str(pair[1]), "parameters": {"weight": 0.5, "density": 0.7}}],
        "tokenizer_source": "union",
        "dtype": "float32",
    }
    theirs = _by_mergekit(content, tmp_path / "theirs")
    ours = _by_us(content, tmp_path / "ours")
    assert ours["model.embed_tokens.weight"].shape[0] == len(WORDS) + 1
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    card = (tmp_path / "ours" / "README.md").read_text()
    assert "by the method `ties`" in card and f"`{pair[1]}`" in card
    assert "| by mergekit | 100.0 % |" in card and "median angle between the parents" in card
    angles = json.loads((tmp_path / "ours" / "geometry.json").read_text())
    assert angles["parents"] == list(map(str, pair)) and len(angles["tensors"]) == 19
    assert angles["unmatched"] == ["model.embed_tokens.weight"]  # rows stand for other words
    generation = json.loads((tmp_path / "ours" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == 0
    kept = yaml.safe_load((tmp_path / "ours" / "mergekit_config.yml").read_text())
    assert kept["models"][0]["model"] == str(pair[1])


def test_what_mergekit_refuses_is_told_in_its_words(pair, tmp_path, monkeypatch):
    says = "import sys; sys.exit(next(x for x in open(sys.argv[1]) if x.startswith('base_model')))"
    refusing = (sys.executable, "-c", says)
    monkeypatch.setattr(mergekit_adapter, "_COMMAND", refusing)
    content = _whole(*pair) | {"merge_method": "ties", "parameters": {"weight": 1}}
    told = f"by mergekit, it said 'base_model: {pair[0]}'; mend"  # not the link it was given
    with pytest.raises(ModelError, match=told):
        _by_us(content, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_a_disk_that_mergekit_finds_full_is_told(pair, tmp_path, monkeypatch):
    says = (
        "import sys; sys.exit('SafetensorError: I/O error: No space left on device (os error 28)')"
    )
    monkeypatch.setattr(mergekit_adapter, "_COMMAND", (sys.executable, "-c", says))
    content = _whole(*pair) | {"merge_method": "ties", "parameters": {"weight": 1}}
    with pytest.raises(OutputError, match="found the disk full; free some space"):
        _by_us(content, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


# Runs what stands for mergekit, which tells its process and then takes long.
STARTING = """
import sys
from pathlib import Path
from merging import mergekit_adapter
from merging.recipe import Recipe
mergekit_adapter._COMMAND = (sys.executable, "-c", sys.argv[1])
recipe = Recipe(merge_method="ties", models=[{"model": "a"}])
mergekit_adapter.run(recipe, {"a": Path(sys.argv[2])}, Path(sys.argv[2]))
"""
LASTING = """
import os, sys, time
from merging.mergekit_adapter import _end_with_parent
_end_with_parent()
with open(os.path.join(sys.argv[2], "pid.new"), "w") as file:
    file.write(str(os.getpid()))
os.rename(file.name, os.path.join(sys.argv[2], "pid"))
time.sleep(100)
"""


def test_mergekit_ends_with_a_merge_that_is_killed(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", STARTING, LASTING, str(tmp_path)], cwd=Path(__file__).parents[2]
    ) as child:
        _wait_for((tmp_path / "pid").exists)
        child.kill()
    pid = (tmp_path / "pid").read_text()
    _wait_for(lambda: not _is_alive(pid))


def _wait_for(what: Callable[[], bool], *, timeout_s: float = 30) -> None:
    begin = time.monotonic()
    while not what():
        assert time.monotonic() - begin < timeout_s
        time.sleep(0.05)


def _is_alive(pid: str) -> bool:
    """Tell whether a process runs; one that nobody has waited for yet does not."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_how_far_mergekit_is_comes_through(pair, tmp_path, monkeypatch):
    bar = "import sys; [sys.stderr.write(f'\\rExecuting graph: {n}%|') for n in (1, 9, 14, 55)]"
    monkeypatch.setattr(mergekit_adapter, "_COMMAND", (sys.executable, "-c", bar))
    recipe = Recipe(merge_method="ties", models=(Input(model="a"), Input(model="b")))
    told: list[str] = []
    folders = dict(zip("ab", pair, strict=True))
    mergekit_adapter.run(recipe, folders, tmp_path, on_progress=told.append)
    assert told[1:] == ["mergekit: 10 %", "mergekit: 50 %"]


def test_mergekit_is_stopped(pair, tmp_path):
    recipe = tmp_path / "sce.yaml"
    recipe.write_text(yaml.safe_dump(_whole(*pair) | {"merge_method": "sce"}))
    told: list[str] = []
    with pytest.raises(Cancelled):
        merge(
            str(recipe),
            tmp_path / "ours",
            on_progress=told.append,
            is_cancelled=lambda: told[-1].startswith("mergekit merges"),
        )
    assert not (tmp_path / "ours").exists()
