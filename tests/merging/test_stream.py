"""Merges carried out: into a folder, into memory, stopped half way."""

from __future__ import annotations

import math
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from threadpoolctl import threadpool_info

from merging.build import open_parents
from merging.kernel import CHUNK, lerp, slerp
from merging.plan import Source, Step, plan
from merging.recipe import Input, Recipe
from merging.stream import Grams, Progress, merge_into_folder, merge_into_memory
from merging.tensors import LoadedWeights, StoredWeights, open_weights
from orbweave.errors import Cancelled, ModelError
from orbweave.weights import TensorInfo


def _recipe(pair, **parameters):
    a, b = map(str, pair)
    models = (Input(model=a), Input(model=b))
    return Recipe(merge_method="slerp", base_model=a, models=models, parameters=parameters)


def _steps(recipe):
    parents = open_parents(recipe)
    return plan(recipe, parents), {name: open_weights(p) for name, p in parents.items()}


def _tensors(pair):
    return [load_file(folder / "model.safetensors") for folder in pair]


@pytest.mark.parametrize("form", ["mergekit", "paper"])
def test_every_tensor_is_the_slerp_of_its_parents(pair, form):
    a, b = _tensors(pair)
    merged = merge_into_memory(*_steps(_recipe(pair, t=0.3, form=form)))
    assert merged.keys() == a.keys()
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, slerp(a[name], b[name], 0.3, form=form))


def test_the_folder_holds_what_memory_holds(pair, tmp_path):
    steps, weights = _steps(_recipe(pair, t=[0, 1]))
    out = tmp_path / "out"
    out.mkdir()
    merge_into_folder(steps, weights, out, shard_bytes=3000)
    files = sorted(out.glob("*.safetensors"))
    stored = {name: tensor for file in files for name, tensor in load_file(file).items()}
    in_memory = merge_into_memory(steps, weights)
    assert len(files) > 2 and stored.keys() == in_memory.keys()
    assert all(torch.equal(stored[name], in_memory[name]) for name in stored)


@pytest.mark.parametrize("dtypes", [("bfloat16",) * 2, ("float32",) * 2, ("bfloat16", "float32")])
@pytest.mark.parametrize("n_elements", [1, 2, 3, CHUNK - 1, CHUNK + 3])
def test_every_element_is_the_rounded_sum(tmp_path, dtypes, n_elements):
    """Whatever the order it was worked on in; against the same sum in torch, bit by bit."""
    draw = torch.Generator().manual_seed(0)
    names, kinds = ("a", "b"), [getattr(torch, dtype) for dtype in dtypes]
    whole = [{"w": torch.randn(n_elements, generator=draw).to(kind)} for kind in kinds]
    for name, tensors in zip(names, whole, strict=True):
        save_file(tensors, tmp_path / name)
    kind = {torch.bfloat16: "BF16", torch.float32: "F32"}
    infos = [{"w": TensorInfo(kind[each], (n_elements,))} for each in kinds]
    stored = {
        name: StoredWeights(info, {"w": tmp_path / name})
        for name, info in zip(names, infos, strict=True)
    }
    loaded = {name: LoadedWeights(t) for name, t in zip(names, whole, strict=True)}
    wide = "F32" if "float32" in dtypes else "BF16"
    out = infos[0]["w"]
    step = Step("w", tuple(Source(n, "w") for n in names), (0.3, 0.9), "linear", out, wide)
    a, b = (tensors["w"].float() for tensors in whole)
    wanted = (a * 0.3 + b * 0.9).to(kinds[0])
    for weights in (stored, loaded):
        assert torch.equal(merge_into_memory([step], weights)["w"], wanted)


@pytest.mark.parametrize("idle", [0, 1, 2])
def test_one_of_three_parents_may_weigh_nothing(idle):
    draw = torch.Generator().manual_seed(0)
    whole = [torch.randn(CHUNK + 3, generator=draw).bfloat16() for _ in range(3)]
    weights = {str(i): LoadedWeights({"w": tensor}) for i, tensor in enumerate(whole)}
    shares = [0.3, 0.9, -0.4]
    shares[idle] = 0.0
    sources = tuple(Source(name, "w") for name in weights)
    step = Step("w", sources, tuple(shares), "linear", weights["0"].tensors["w"], "BF16")
    x, y = (share * tensor.float() for share, tensor in zip(shares, whole, strict=True) if share)
    assert torch.equal(merge_into_memory([step], weights)["w"], (x + y).bfloat16())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_merged_weights_too_large_for_their_type_are_named(dtype):
    tensors = {"w": torch.tensor([1.0, 2.0, -3e9]).to(dtype)}
    weights = {name: LoadedWeights(tensors) for name in "ab"}
    info = weights["a"].tensors["w"]
    sources = tuple(Source(name, "w") for name in weights)
    step = Step("w", sources, (1e29, 1e29), "linear", info, info.dtype)
    with pytest.raises(ModelError, match="found merged weights too large for it"):
        merge_into_memory([step], weights)
    step = step._replace(shares=(1e28, 1e28))  # below the largest, though the bound is not
    assert merge_into_memory([step], weights)["w"].isfinite().all()


def test_merging_in_memory_leaves_the_parents_alone(pair):
    tensors = _tensors(pair)
    before = [{name: tensor.clone() for name, tensor in each.items()} for each in tensors]
    loaded = {str(folder): LoadedWeights(t) for folder, t in zip(pair, tensors, strict=True)}
    merge_into_memory(_steps(_recipe(pair, t=0.3))[0], loaded)
    for each, old in zip(tensors, before, strict=True):
        assert all(torch.equal(each[name], old[name]) for name in old)


def test_a_sweep_measures_its_parents_once(pair):
    a, b = _tensors(pair)
    loaded = {str(folder): LoadedWeights(t) for folder, t in zip(pair, (a, b), strict=True)}
    grams: Grams = {}
    merge_into_memory(_steps(_recipe(pair, t=0.0))[0], loaded, grams=grams)
    assert len(grams) == len(a)
    before = {name: products.copy() for name, products in grams.items()}
    merged = merge_into_memory(_steps(_recipe(pair, t=0.7))[0], loaded, grams=grams)
    assert all(np.array_equal(before[name], grams[name]) for name in before)
    torch.testing.assert_close(
        merged["model.norm.weight"], slerp(*(t["model.norm.weight"] for t in (a, b)), 0.7)
    )


def test_the_linear_average_is_exactly_that(pair):
    a, b = _tensors(pair)
    names = list(map(str, pair))
    models = tuple(
        Input(model=name, parameters={"weight": weight})
        for name, weight in zip(names, (0.75, 0.25), strict=True)
    )
    merged = merge_into_memory(*_steps(Recipe(merge_method="linear", models=models)))
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, lerp(a[name], b[name], 0.25), atol=1e-7, rtol=1e-6)


def test_sources_are_rounded_first_and_the_result_to_its_own_type(pair):
    recipe = _recipe(pair, t=0.5).model_copy(update={"dtype": "bfloat16", "out_dtype": "float32"})
    a, b = _tensors(pair)
    merged = merge_into_memory(*_steps(recipe))
    name = "model.layers.0.mlp.up_proj.weight"
    wanted = slerp(a[name].bfloat16().float(), b[name].bfloat16().float(), 0.5)
    torch.testing.assert_close(merged[name], wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_weight_that_is_not_finite_is_named(pair, bad, dtype):
    tensors = [{n: t.to(dtype) for n, t in each.items()} for each in _tensors(pair)]
    tensors[1]["model.layers.1.mlp.up_proj.weight"][3, 2] = bad
    for folder, each in zip(pair, tensors, strict=True):
        save_file(each, folder / "model.safetensors")
    with pytest.raises(
        ModelError, match=r"in model\.layers\.1\.mlp\.up_proj\.weight of .*/b, found"
    ):
        merge_into_memory(*_steps(_recipe(pair, t=0.5)))


def test_buffers_of_whole_numbers_are_copied_if_the_parents_agree(pair):
    for folder, count in zip(pair, (4, 4), strict=True):
        tensors = load_file(folder / "model.safetensors")
        save_file(tensors | {"count": torch.tensor([count])}, folder / "model.safetensors")
    assert merge_into_memory(*_steps(_recipe(pair, t=0.5)))["count"].tolist() == [4]
    tensors = load_file(pair[1] / "model.safetensors")
    save_file(tensors | {"count": torch.tensor([5])}, pair[1] / "model.safetensors")
    with pytest.raises(ModelError, match="the same whole numbers in count of"):
        merge_into_memory(*_steps(_recipe(pair, t=0.5)))


def test_progress_counts_up_to_everything(pair):
    told: list[Progress] = []
    steps, weights = _steps(_recipe(pair, t=0.5))
    merge_into_memory(steps, weights, on_progress=told.append)
    assert [p.tensors for p in told] == list(range(1, len(steps) + 1))
    assert told[-1].bytes == told[-1].all_bytes == sum(t.nbytes for t in _tensors(pair)[0].values())
    assert told[-1].eta_s == 0 and all(p.eta_s >= 0 for p in told)


def test_a_merge_is_stopped_and_its_threads_with_it(pair):
    before = threading.active_count()
    with pytest.raises(Cancelled, match="nothing half made was kept"):
        merge_into_memory(*_steps(_recipe(pair, t=0.5)), is_cancelled=lambda: True)
    assert threading.active_count() == before


def test_the_libraries_own_threads_are_as_before(pair):
    before = torch.get_num_threads(), threadpool_info()
    merge_into_memory(*_steps(_recipe(pair, t=0.5)))
    assert (torch.get_num_threads(), threadpool_info()) == before


def test_a_merge_from_files_to_a_folder_loads_no_torch(pair, tmp_path):
    """It takes as long to load as a small merge takes."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(_recipe(pair, t=0.5).to_yaml())
    code = (
        "import sys; from ui.cli import run; "
        f"code = run(['merge', {str(recipe)!r}, {str(tmp_path / 'out')!r}]); "
        "sys.exit(code or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "model.safetensors").is_file()


MEASURED = """
import re
import resource
import sys
from pathlib import Path
import numpy as np
from merging.bfloat16 import inner
from merging.plan import Source, Step
from merging.stream import merge_into_folder
from merging.tensors import StoredWeights
from merging.parent import open_parent
from orbweave.weights import TensorInfo

parents = {n: open_parent(n, Path(n)) for n in sys.argv[1:3]}
weights = {n: StoredWeights(p.tensors, p.files) for n, p in parents.items()}
sources = lambda t: tuple(Source(n, t) for n in parents)
steps = [
    Step(t, sources(t), (0.5, 0.5), "slerp", info, info.dtype)
    for t, info in parents[sys.argv[1]].tensors.items()
]
def peak_kb():
    status = Path("/proc/self/status")
    if status.exists():  # getrusage begins with the peak of the process that started this one
        return int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1024 if sys.platform == "darwin" else 1)

inner(np.ones(1, np.uint16), np.ones(1, np.uint16))  # compiled once, for any model
before = peak_kb()
merge_into_folder(steps, weights, Path(sys.argv[3]))
print(peak_kb() - before)
"""


def test_memory_does_not_grow_with_the_tensors(tmp_path):
    """Two tensors of 48 MB each, read twice and written, cost far less than one of them."""
    for seed, name in enumerate("ab"):
        folder = tmp_path / name
        folder.mkdir()
        big = {f"big{i}": torch.full((24_000_000,), seed + 1.0).bfloat16() for i in range(2)}
        save_file(big, folder / "model.safetensors")
        (folder / "config.json").write_text("{}")
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *(str(tmp_path / name) for name in ("a", "b", "out"))],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    assert 0 < int(done.stdout) < 30_000, done.stdout  # kB
