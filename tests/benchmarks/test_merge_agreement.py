"""How the benchmark of merges counts elements that do not agree."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "merge_agreement.py"
W = "model.norm.weight"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("merge_agreement", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_off_is_told_in_steps_of_the_result_of_the_rms_and_of_the_terms(script, tmp_path):
    # The parents cancel in the last two elements; half way on the arc their shares are 0.625.
    values = {
        "a": [1.0, 2.0, 3.0, 4.0, 1.0, 4.0],
        "b": [1.0, 2.0, 3.0, 4.0, -1.0, -3.96875],
        "ours": [1.0, 2.0, 3.0, 4.0, 0.0, 2**-6],
        "theirs": [1.0, 2.0, 3.015625, 4.0, 0.0, 2**-6 + 3 * 2**-13],
    }
    for name, row in values.items():
        (tmp_path / name).mkdir()
        tensor = torch.tensor(row).bfloat16()
        assert tensor.tolist() == row  # bfloat16 numbers all
        save_file({W: tensor}, tmp_path / name / "model.safetensors")
    found = script.compare(
        tmp_path / "ours", tmp_path / "theirs", (tmp_path / "a", tmp_path / "b"), {W: 0.5}
    )
    rms = (sum(x * x for x in values["theirs"]) / 6) ** 0.5
    assert found.identical_share == pytest.approx(4 / 6)
    assert found.within_one_step_share == pytest.approx(5 / 6)
    assert found.worst_steps == 3
    assert found.worst_beyond_rms == pytest.approx(3 * 2**-13 / rms)
    assert found.worst_beyond_term_step == pytest.approx(3 * 2**-13 / 2**-6)  # the step at 2.5
