"""`orbweave train --launch`: accelerate's launcher, our configurations, two real processes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoTokenizer

import training
from ui.cli import run

ROOT = Path(__file__).parents[2]
LAUNCH = Path(training.__file__).parent / "launch"
NAMES = ("fsdp", "processors", "zero3")
# Rows of one length, so that grouping by length leaves their order alone.
ROWS = [
    {"prompt": f"What follows {x}?", "completion": f"{y}{x} it is"}
    for x in "abcdefgh"
    for y in "pqrst"
]  # noqa: E501
RECIPE = """
name: tiny
model: {model}
adapter: {{rank: 4, alpha: 8}}
held_out: 0.1
stages:
  - {{method: sft, data: {{{data}: 4.0}}, learning_rate: 3.0e-2, batch: 4, max_length: 256,
     packing: false, accumulate: {accumulate}, epochs: 2, keep_epochs: true}}
"""


def test_every_shipped_configuration_was_found():
    assert sorted(path.stem for path in LAUNCH.iterdir()) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_accelerate_reads_every_key_of_a_shipped_configuration(name):
    from accelerate.commands.config.config_args import load_config_from_file

    path = LAUNCH / f"{name}.yaml"
    known = load_config_from_file(str(path))  # refuses keys that it does not know
    written = yaml.safe_load(path.read_text("utf-8"))
    assert known.num_processes == written["num_processes"]
    assert known.distributed_type.value == written["distributed_type"]


def launched(name: str):
    """Return what the launcher makes of a configuration, up to the start of the processes."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    command = ["--config_file", str(LAUNCH / f"{name}.yaml"), "-m", "ui.cli", "train", "x"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(command))
    return args


def test_the_launcher_starts_two_processes_on_processors():
    from accelerate.utils.launch import prepare_multi_gpu_env

    args = launched("processors")
    assert args.multi_gpu  # its name for starting so many processes; MULTI_CPU starts one
    prepare_multi_gpu_env(args)
    assert args.nproc_per_node == "2"


def test_the_launcher_shards_with_fsdp_2():
    from accelerate.utils.launch import prepare_multi_gpu_env

    args = launched("fsdp")
    assert args.use_fsdp
    env = prepare_multi_gpu_env(args)
    told = {key: env[key] for key in env if key.startswith(("FSDP", "ACCELERATE_USE_FSDP"))}
    assert told["ACCELERATE_USE_FSDP"] == "true"
    assert told["FSDP_VERSION"] == "2"
    assert told["FSDP_STATE_DICT_TYPE"] == "FULL_STATE_DICT"
    assert told["FSDP_AUTO_WRAP_POLICY"] == "TRANSFORMER_BASED_WRAP"
    assert told["FSDP_OFFLOAD_PARAMS"] == "false"


def test_the_launcher_shards_with_zero_3():
    from accelerate.utils.launch import prepare_deepspeed_cmd_env

    args = launched("zero3")
    assert args.use_deepspeed
    args.deepspeed_fields_from_accelerate_config = ""
    _, env = prepare_deepspeed_cmd_env(args)
    assert env["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == "3"
    assert env["ACCELERATE_DEEPSPEED_ZERO3_INIT"] == "true"
    assert env["ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL"] == "true"
    assert env["ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE"] == "none"


@pytest.fixture
def write(tmp_path, tiny_model):
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, ROWS)), "utf-8")

    def write(name: str, accumulate: int) -> Path:
        path = tmp_path / f"{name}.yaml"
        text = RECIPE.format(model=tiny_model, data=data, accumulate=accumulate)
        path.write_text(text, "utf-8")
        return path

    return write


def test_the_plan_counts_the_processes(write, capsys):
    assert run(["train", str(write("one", 1)), "--plan", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert run(["train", str(write("one", 1)), "--plan", "--json", "--launch", "processors"]) == 0
    (two,) = json.loads(capsys.readouterr().out)
    assert two["effective_batch"] == 2 * one["effective_batch"] == 8
    assert two["steps"] == 2 * -(-one["rows"] // 8)  # two epochs


def test_a_recipe_with_faults_is_not_launched(write, capsys):
    recipe = write("one", 1)
    recipe.write_text(recipe.read_text("utf-8").replace("rows.jsonl", "none.jsonl"), "utf-8")
    assert run(["train", str(recipe), "--launch", "processors"]) == 2
    assert "none.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("distributed_type: MULTI_CPU\nnum_processes: 2", "use --launch processors"),
        ("distributed_type: DEEPSPEED", "pip install deepspeed"),
        ("num_processes: 2", "found no distributed_type"),
        ("[", "wanted YAML"),
    ],
)
def test_what_would_not_be_trained_as_asked_is_refused(write, tmp_path, capsys, text, told):
    config = tmp_path / "own-launch.yaml"
    config.write_text(text, "utf-8")
    assert run(["train", str(write("one", 1)), "--launch", str(config)]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there are GPUs to shard over")
def test_sharding_needs_gpus(write, capsys):
    assert run(["train", str(write("one", 1)), "--launch", "fsdp"]) == 2
    assert "wanted GPUs for FSDP, found none" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_learn_what_one_does(write, tmp_path, tiny_model):
    one, two = tmp_path / "one", tmp_path / "two"
    command = [sys.executable, "-m", "ui.cli", "train"]
    launched = subprocess.run(
        [*command, str(write("two", 1)), "--launch", "processors", "--out", str(two), "--json"],
        cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert launched.returncode == 0, launched.stderr
    (said,) = json.loads(launched.stdout)  # one process speaks for both
    assert run(["train", str(write("one", 2)), "--out", str(one), "--quiet"]) == 0
    curves = [_losses(folder / "Instruct-SFT") for folder in (one, two)]
    assert len(curves[0]) >= 3
    assert curves[0].keys() == curves[1].keys()
    assert list(curves[1].values()) == pytest.approx(list(curves[0].values()), rel=1e-3)
    untaught = math.log(len(AutoTokenizer.from_pretrained(tiny_model)))
    assert curves[0][max(curves[0])] < 0.965 * untaught  # there was something to learn
    assert said["figures"]["steps"] == max(_steps(one / "Instruct-SFT"))
    names = ["Instruct-SFT", "Instruct-SFT-epoch1", "Instruct-SFT-epoch2"]
    assert sorted(folder.name for folder in two.iterdir()) == names  # no work folder is left
    asked = [_prompts(folder / "Instruct-SFT") for folder in (one, two)]
    assert asked[0] == asked[1]
    assert len(asked[1]) == 2 * 3  # at both checkpoints, by one of the processes
    of_one, of_two = (
        load_file(f / "Instruct-SFT" / "adapter_model.safetensors") for f in (one, two)
    )
    a, b = (torch.cat([w[k].flatten().float() for k in sorted(of_one)]) for w in (of_one, of_two))
    assert torch.cosine_similarity(a, b, dim=0) > 0.98


def _rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


def _prompts(folder: Path) -> list[tuple[int, str]]:
    lines = (folder / "samples.jsonl").read_text("utf-8").splitlines()
    return [(row["step"], row["prompt"]) for row in map(json.loads, lines)]


def _losses(folder: Path) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in _rows(folder) if "loss" in row}


def _steps(folder: Path) -> list[int]:
    return [row["step"] for row in _rows(folder)]
