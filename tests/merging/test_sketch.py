"""A sweep foretold from some of the weights, against the laboratory that reads them all."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file, save_file

from merging.build import open_models
from merging.parent import layer_of
from merging.sketch import open_sketch, read_sample
from merging.sweep import Asked, _file, open_laboratory
from merging.variants import variants
from tests.merging.conftest import write_llama


@pytest.fixture
def three(tmp_path):
    """Seven layers each: two apart, and one that is nearly the first."""
    folders = [write_llama(tmp_path / name, n_layers=7, seed=i) for i, name in enumerate("ab")]
    near = write_llama(tmp_path / "near", n_layers=7)
    weights = load_file(folders[0] / "model.safetensors")
    save_file({n: 1.001 * w for n, w in weights.items()}, near / "model.safetensors")
    return open_models([str(folder) for folder in (*folders, near)])


def _matrix(a, b):
    return variants(a, b, [0, 0.3, 0.5], ["constant", "paper"])


def _different(laboratory):
    """Return who has the weights of whom."""
    made = laboratory.made()
    first = {each.key: each.variant.name for each in reversed(made)}
    return {each.variant.name: first[each.key] for each in made}


@pytest.mark.parametrize("second", [1, 2])
def test_different_models_are_those_of_the_laboratory(three, second):
    names = list(three)
    a, b = names[0], names[second]
    parents = {name: three[name] for name in (a, b)}
    samples = {name: read_sample(parent) for name, parent in parents.items()}
    sketch = open_sketch(_matrix(a, b), parents, samples)
    whole = open_laboratory(_matrix(a, b), parents)
    assert _different(sketch) == _different(whole)
    assert ("slerp t=0.5" == _different(sketch)["lerp t=0.5"]) is (second == 2)


def test_a_sample_is_of_three_layers_and_what_lies_outside(three):
    parent = next(iter(three.values()))
    sample = read_sample(parent)
    assert {layer_of(name) for name in sample.tensors} == {None, 0, 3, 6}
    assert len(sample.tensors) == 2 + 3 * 9 and 0.4 < sample.share < 0.6
    assert sample.seconds > 0


class OneQuestion:
    """Asks nothing; its answers are there or not."""

    questions = (Asked("q", "x", 0),)
    digest = "0"


def test_an_arc_counts_as_known_with_its_line(three, tmp_path):
    a, b, _ = three
    parents = {name: three[name] for name in (a, b)}
    samples = {name: read_sample(parent) for name, parent in parents.items()}
    matrix, bench, kept = variants(a, b, [0.5], ["constant"]), OneQuestion(), tmp_path / "kept"
    whole = open_laboratory(matrix, parents)

    def answer(name):
        key = next(each.key for each in whole.made() if each.variant.name == name)
        path = _file(kept, key, bench)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"scores": {"q": [1, 0]}}))

    counts = []
    for name in (a, "slerp t=0.5", "lerp t=0.5"):
        answer(name)
        counts.append(open_sketch(matrix, parents, samples).known(bench, kept))
    assert counts == [1, 1, 3]
