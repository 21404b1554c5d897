"""A model of a study that no merge is made of."""

from __future__ import annotations

import json
import math

import pytest

from merging.build import open_parents
from merging.recipe import Input, Recipe
from orbweave.errors import ModelError
from tests.merging.conftest import write_llama
from tests.merging.test_sweep import DotBench
from ui.study_alone import ANSWERS, Alone


@pytest.fixture
def alone(tmp_path):
    name = str(write_llama(tmp_path / "model", seed=1))
    recipe = Recipe(merge_method="linear", models=(Input(model=name),), dtype="float32")
    return Alone("model", open_parents(recipe)[name])


def test_its_answers_are_kept_and_read_again(alone, tmp_path):
    bench = DotBench()
    assert alone.kept(tmp_path, bench) is None
    asked = alone.ask(tmp_path, bench, lambda done, total: None)
    assert alone.kept(tmp_path, DotBench()) == asked
    assert alone.kept(tmp_path, DotBench("other questions")) is None


def test_a_score_that_is_no_number_is_refused_and_not_kept(alone, tmp_path):
    bench = DotBench()
    bench.scores = lambda vector: {q.id: [math.nan] * 3 for q in bench.questions}
    with pytest.raises(ModelError, match="every option of q0, model gave NaN"):
        alone.ask(tmp_path, bench, lambda done, total: None)
    assert not (tmp_path / ANSWERS).exists()
    alone.ask(tmp_path, DotBench(), lambda done, total: None)
    (kept,) = (tmp_path / ANSWERS).iterdir()
    content = json.loads(kept.read_text())
    content["scores"]["q3"][1] = math.nan
    kept.write_text(json.dumps(content))
    assert alone.kept(tmp_path, DotBench()) is None
