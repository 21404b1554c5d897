"""How two models lie to each other, against numpy in float64 and against angles made to measure."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import merging.geometry
from merging.build import merge, open_models, open_parents, recipe_of, resolve_model
from merging.geometry import (
    COLLINEAR_DEG,
    GRAM_DEG,
    Geometry,
    TensorGeometry,
    compare,
    document,
    geometry_of,
    part_of,
)
from merging.plan import plan
from merging.recipe import Input, Recipe
from merging.stream import merge_into_memory
from merging.tensors import open_weights
from orbweave.errors import ModelError, UsageError
from tests.merging.conftest import llama_tensors, write_adapter, write_llama

NAME = "model.layers.0.mlp.up_proj.weight"


def _compared(*folders: Path | str, **options: object) -> Geometry:
    names = list(map(str, folders))
    parents = open_models(names)
    return compare(*(parents[name] for name in names), **options)


def _rows(geometry: Geometry) -> dict[str, TensorGeometry]:
    return {row.name: row for row in geometry.tensors}


def _weights(folder: Path) -> dict[str, np.ndarray]:
    tensors = load_file(folder / "model.safetensors").items()
    return {name: tensor.double().numpy().ravel() for name, tensor in tensors}


def _write(folder: Path, tensors: dict[str, Tensor]) -> Path:
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    return folder


def _one(tmp_path: Path, *tensors: Tensor) -> TensorGeometry:
    """Return the geometry of models of one tensor each."""
    folders = [_write(tmp_path / str(i), {NAME: tensor}) for i, tensor in enumerate(tensors)]
    (row,) = _compared(*folders).tensors
    return row


def _angle(u: np.ndarray, v: np.ndarray) -> float:
    """Kahan's angle in degrees, exact for small and for large ones."""
    u, v = u / np.linalg.norm(u), v / np.linalg.norm(v)
    return math.degrees(2 * math.atan2(np.linalg.norm(u - v), np.linalg.norm(u + v)))


def _at(degrees: float, n: int = 1000, length: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return float64 tensors with that angle between them."""
    draw = torch.Generator().manual_seed(5)
    u, v = torch.linalg.qr(torch.randn(n, 2, generator=draw, dtype=torch.float64))[0].T
    angle = math.radians(degrees)
    return u.contiguous(), length * (math.cos(angle) * u + math.sin(angle) * v)


# ---------------------------------------------------------------- one tensor


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_every_tensor_agrees_with_numpy(tmp_path, dtype):
    folders = [write_llama(tmp_path / name, seed=i, dtype=dtype) for i, name in enumerate("abc")]
    a, b, base = map(_weights, folders)
    rows = _rows(_compared(*folders))
    assert list(rows) == list(open_models([str(folders[0])])[str(folders[0])].tensors)
    for name, row in rows.items():
        x, y = a[name] - base[name], b[name] - base[name]
        lengths = [np.linalg.norm(v) for v in (a[name], b[name], b[name] - a[name], x, y)]
        assert row.numel == len(a[name]) and row.path == "slerp"
        assert row.angle_deg == pytest.approx(_angle(a[name], b[name]), rel=1e-9)
        assert (row.norm_a, row.norm_b) == pytest.approx(lengths[:2], rel=1e-12)
        assert row.norm_ratio == pytest.approx(lengths[1] / lengths[0], rel=1e-12)
        assert row.change == pytest.approx(lengths[2] / lengths[0], rel=1e-12)
        assert (row.task_norm_a, row.task_norm_b) == pytest.approx(lengths[3:], rel=1e-12)
        assert row.task_cosine == pytest.approx(x @ y / lengths[3] / lengths[4], abs=1e-12)


@pytest.mark.parametrize("length", [1.0, 1.001, 0.5, 1e-3])
@pytest.mark.parametrize("degrees", [1e-4, 1e-2, 1.0, 89.0, 90.0, 135.0, 179.9])
def test_an_angle_made_to_measure_is_found(tmp_path, degrees, length):
    row = _one(tmp_path, *_at(degrees, length=length))
    assert row.angle_deg == pytest.approx(degrees, rel=1e-3)
    assert row.norm_ratio == pytest.approx(length, rel=1e-12)


def test_a_tiny_angle_between_bfloat16_tensors_is_found(tmp_path):
    """One element of a million moved by one step: five hundred-thousandths of a degree."""
    a = torch.ones(1_000_000, dtype=torch.bfloat16)
    b = a.clone()
    b[77] = 1 + 2**-7
    row = _one(tmp_path, a, b)
    assert row.angle_deg == pytest.approx(_angle(*(t.double().numpy() for t in (a, b))), rel=1e-6)
    assert row.angle_deg < 1e-3 and row.path == "linear"


@pytest.mark.parametrize(
    ("degrees", "path"), [(COLLINEAR_DEG - 0.01, "linear"), (COLLINEAR_DEG + 0.01, "slerp")]
)
def test_slerp_turns_linear_at_mergekits_threshold(tmp_path, degrees, path):
    assert pytest.approx(1.8120, abs=1e-4) == COLLINEAR_DEG
    assert _one(tmp_path, *_at(degrees)).path == path


def test_collinear_and_opposite_tensors(tmp_path):
    a = torch.randn(500)
    (tmp_path / "same").mkdir()
    longer = _one(tmp_path / "same", a, 2 * a)
    assert longer.angle_deg == pytest.approx(0, abs=1e-6)
    assert (longer.norm_ratio, longer.change, longer.path) == pytest.approx((2, 1, "linear"))
    opposite = _one(tmp_path, a, -a)
    assert opposite.angle_deg == pytest.approx(180, abs=1e-6)
    assert (opposite.norm_ratio, opposite.change, opposite.path) == pytest.approx((1, 2, "linear"))


def test_identical_tensors_are_called_so(tmp_path):
    a = torch.randn(500)
    row = _one(tmp_path, a, a.clone())
    assert (row.angle_deg, row.norm_ratio, row.change, row.path) == (0, 1, 0, "identical")


def test_a_zero_tensor_has_no_angle(tmp_path):
    a, zero = torch.randn(500), torch.zeros(500)
    for i, (pair, expected) in enumerate(
        {
            (a, zero): (None, 0.0, 1.0, "zero"),
            (zero, a): (None, None, None, "zero"),
            (zero, zero): (None, None, None, "identical"),
        }.items()
    ):
        (tmp_path / f"{i}").mkdir()
        row = _one(tmp_path / f"{i}", *pair)
        assert (row.angle_deg, row.norm_ratio, row.change, row.path) == expected


@pytest.mark.parametrize("sign", [1, -1])
def test_the_cosine_of_task_vectors_keeps_its_sign(tmp_path, sign):
    base, d = torch.randn(500), 0.01 * torch.randn(500)
    row = _one(tmp_path, base + d, base + sign * 3 * d, base)
    assert row.task_cosine == pytest.approx(sign, abs=1e-4)
    assert row.task_norm_b == pytest.approx(3 * row.task_norm_a, rel=1e-3)


def test_the_base_itself_has_no_task_vector(tmp_path):
    base = torch.randn(500)
    row = _one(tmp_path, base, base + 0.1, base)
    assert (row.task_norm_a, row.task_cosine) == (0, None)


def test_chunks_make_no_difference(pair, monkeypatch):
    whole = _rows(_compared(*pair))
    monkeypatch.setattr(merging.geometry, "_CHUNK", 7)
    for name, row in _rows(_compared(*pair)).items():
        assert row.angle_deg == pytest.approx(whole[name].angle_deg, rel=1e-12)


# ---------------------------------------------------------------- many tensors


def _row(angle: float | None, numel: int, layer: int = 0, **fields: object) -> TensorGeometry:
    row = TensorGeometry("x", layer, "mlp", numel, "slerp", 1.0, 1.0, angle, 1.0, 0.0)
    return row._replace(**fields)


def test_means_medians_and_shares_are_by_elements():
    rows = (_row(1.0, 30), _row(5.0, 10, norm_ratio=2.0, path="linear"), _row(None, 60))
    total = Geometry(("a", "b"), None, rows).total
    assert (total.numel, total.angle_deg, total.median_angle_deg) == (100, 2.0, 1.0)
    assert total.norm_ratio == pytest.approx(1.1)
    assert total.shares == {"slerp": 0.9, "linear": 0.1}
    assert (total.task_norm_a, total.task_cosine) == (None, None)


def test_the_share_of_straight_lines_counts_identical_tensors():
    paths = {"slerp": 70, "linear": 20, "identical": 10}
    rows = tuple(_row(1.0, numel, path=path) for path, numel in paths.items())
    assert Geometry(("a", "b"), None, rows).linear_share == pytest.approx(0.3)


def test_the_cosine_of_many_tensors_is_that_of_one_long_vector(tmp_path):
    folders = [write_llama(tmp_path / name, seed=i) for i, name in enumerate("abc")]
    a, b, base = (np.concatenate(list(_weights(folder).values())) for folder in folders)
    geometry = _compared(*folders)
    x, y = a - base, b - base
    cos = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
    assert geometry.total.task_cosine == pytest.approx(cos, abs=1e-12)
    assert geometry.total.task_norm_a == pytest.approx(np.linalg.norm(x), rel=1e-12)
    assert document(geometry)["model_kinship_cosine"] == pytest.approx(abs(cos))


def test_there_is_a_summary_for_each_layer_and_kind(pair):
    geometry = _compared(*pair)
    kinds = ["attention", "mlp", "norm"]
    outside = [(None, "norm"), (None, "embedding")]
    assert [(s.layer, s.part) for s in geometry.by_layer] == [
        *outside,
        *[(layer, kind) for layer in (0, 1) for kind in kinds],
    ]
    assert [s.part for s in geometry.by_part] == [*kinds, "embedding"]
    mlp = [r for r in geometry.tensors if r.layer == 1 and r.part == "mlp"]
    found = next(s for s in geometry.by_layer if (s.layer, s.part) == (1, "mlp"))
    assert found.angle_deg == pytest.approx(np.mean([row.angle_deg for row in mlp]))


@pytest.mark.parametrize(
    ("tensor", "part"),
    [
        ("model.layers.3.self_attn.q_proj.weight", "attention"),
        ("model.layers.3.post_attention_layernorm.weight", "norm"),
        ("model.layers.3.self_attn.q_norm.weight", "norm"),
        ("model.layers.3.mlp.down_proj.weight", "mlp"),
        ("model.layers.3.block_sparse_moe.experts.0.w1.weight", "mlp"),
        ("transformer.h.3.attn.c_attn.bias", "attention"),
        ("transformer.h.3.ln_1.weight", "norm"),
        ("transformer.ln_f.weight", "norm"),
        ("transformer.wte.weight", "embedding"),
        ("model.embed_tokens.weight", "embedding"),
        ("model.norm.weight", "norm"),
        ("lm_head.weight", "head"),
        ("embed_out.weight", "head"),
        ("gate", "other"),
    ],
)
def test_kinds_are_told_by_names(tensor, part):
    assert part_of(tensor) == part


def test_progress_counts_up_to_every_tensor(pair):
    told: list[tuple[int, int]] = []
    _compared(*pair, on_progress=lambda done, total: told.append((done, total)))
    assert told == [(i, 20) for i in range(1, 21)]


def test_an_adapter_is_compared_as_the_model_it_makes(pair, tmp_path):
    adapted = f"{pair[0]}+{write_adapter(tmp_path / 'adapter')}"
    laid_over, built = _compared(pair[1], adapted), _compared(pair[1], resolve_model(adapted))
    assert laid_over.tensors == built.tensors
    changed = [r.part for r in _compared(pair[0], adapted).tensors if r.path != "identical"]
    assert changed == ["attention"] * 4


# ---------------------------------------------------------------- models that do not fit


def test_what_is_not_in_both_is_left_out_and_named(tmp_path):
    shared = llama_tensors(1, 0, torch.float32)
    a = _write(tmp_path / "a", shared | {"lm_head.weight": torch.ones(4)})
    b = _write(tmp_path / "b", shared | {"model.norm.weight": torch.ones(3)})
    geometry = _compared(a, b)
    assert set(geometry.unmatched) == {"lm_head.weight", "model.norm.weight"}
    assert len(geometry.tensors) == len(shared) - 1


def test_models_with_nothing_in_common_are_refused(tmp_path):
    a = _write(tmp_path / "a", {"x": torch.ones(4), "n": torch.tensor([1])})
    b = _write(tmp_path / "b", {"y": torch.ones(4), "n": torch.tensor([2])})
    with pytest.raises(UsageError, match="found no weights in common in .*/a and .*/b"):
        _compared(a, b)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_weight_that_is_not_finite_is_named(pair, bad):
    tensors = load_file(pair[1] / "model.safetensors")
    tensors[NAME][3, 2] = bad
    save_file(tensors, pair[1] / "model.safetensors")
    with pytest.raises(ModelError, match=r"finite weights in model\.layers\.0\.mlp\.up_proj"):
        _compared(*pair)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("names", ["a", "b", "c", "bc"])
def test_the_model_with_a_weight_that_is_not_finite_is_named(tmp_path, names, bad):
    folders = [write_llama(tmp_path / name, seed=i) for i, name in enumerate("abc")]
    for name in names:
        path = tmp_path / name / "model.safetensors"
        tensors = load_file(path)
        tensors[NAME][3, 2] = bad
        save_file(tensors, path)
    with pytest.raises(
        ModelError, match=rf"up_proj\.weight of \S*/{names[0]}, found NaN, infinite"
    ):
        _compared(*folders)


def test_a_quantised_model_is_refused(tmp_path):
    a = _write(tmp_path / "a", {"x": torch.ones(4)})
    b = _write(tmp_path / "b", {"x": torch.ones(4).to(torch.float8_e4m3fn)})
    with pytest.raises(ModelError, match="found F8_E4M3; give the model before it was quantised"):
        _compared(a, b)


# ---------------------------------------------------------------- after a merge


def _after(recipe: Recipe) -> Geometry:
    parents, grams = open_parents(recipe), {}
    steps = plan(recipe, parents)
    merge_into_memory(steps, {n: open_weights(p) for n, p in parents.items()}, grams=grams)
    return geometry_of(steps, grams)


def _recipe(method: str, folders: list[Path], **fields: object) -> Recipe:
    return Recipe(merge_method=method, models=tuple(Input(model=str(f)) for f in folders), **fields)


def test_a_merge_finds_the_angles_in_passing(tmp_path):
    a = write_llama(tmp_path / "a", dtype=torch.bfloat16)
    tensors = load_file(a / "model.safetensors")
    moved = {n: (t + 0.01 * t.std() * torch.randn(t.shape)).bfloat16() for n, t in tensors.items()}
    b = _write(tmp_path / "b", moved)
    after, before = _after(recipe_of(f"slerp({a}, {b}, t=0.5)")), _compared(a, b)
    assert after.parents == (str(a), str(b)) and after.right_to_deg == GRAM_DEG
    for row, exact in zip(after.tensors, before.tensors, strict=True):
        assert (row.name, row.part, row.numel) == (exact.name, exact.part, exact.numel)
        assert row.angle_deg == pytest.approx(exact.angle_deg, abs=GRAM_DEG)
        assert row.norm_ratio == pytest.approx(exact.norm_ratio, rel=1e-6)


def test_the_path_of_each_tensor_is_told(tmp_path):
    norm, up, down = "model.norm.weight", NAME, "model.layers.0.mlp.down_proj.weight"
    draw = torch.Generator().manual_seed(0)
    x, y, z = (torch.randn(300, generator=draw) for _ in range(3))
    a = _write(tmp_path / "a", {norm: x, up: y, down: z})
    b = _write(tmp_path / "b", {norm: 1.5 * x, up: z, down: 0 * z})
    base = {"base_model": str(a)}
    for parameters, paths in [
        ({"t": 0.5}, {norm: "linear", up: "slerp", down: "zero"}),
        ({"t": 0.5, "form": "paper"}, {norm: "linear", up: "slerp", down: "zero"}),
        ({"t": 1.0}, dict.fromkeys((norm, up, down), "copied")),
    ]:
        rows = _rows(_after(_recipe("slerp", [a, b], parameters=parameters, **base)))
        assert {name: row.path for name, row in rows.items()} == paths
    for method, path in {"linear": "average", "karcher": "mean"}.items():
        geometry = _after(_recipe(method, [a, b], parameters={"weight": 1.0}))
        assert geometry.total.shares == {path: 1.0}


@pytest.mark.parametrize(
    ("weights", "path"),
    [((1.0, 1.0), "average"), ((1.0, 0.5), "average"), ((1.0, 0.0), "copied")],
)
def test_a_sum_is_a_copy_only_if_nothing_is_added(tmp_path, weights, path):
    folders = [_write(tmp_path / f"{i}", {NAME: t.float()}) for i, t in enumerate(_at(30.0))]
    models = tuple(
        Input(model=str(folder), parameters={"weight": weight})
        for folder, weight in zip(folders, weights, strict=True)
    )
    recipe = Recipe(merge_method="linear", models=models, parameters={"normalize": False})
    assert _after(recipe).total.shares == {path: 1.0}


def test_the_papers_form_keeps_the_arc_where_mergekits_gives_it_up(tmp_path):
    folders = [_write(tmp_path / f"{i}", {NAME: t.float()}) for i, t in enumerate(_at(1.0))]
    for form, path in {"mergekit": "linear", "paper": "slerp"}.items():
        parameters = {"t": 0.5, "form": form}
        recipe = _recipe("slerp", folders, base_model=str(folders[0]), parameters=parameters)
        assert _after(recipe).total.shares == {path: 1.0}


def test_of_several_parents_the_farthest_is_compared_with_the_first(tmp_path):
    a, near = _at(10.0)
    far = _at(30.0, length=2.0)[1]
    folders = [_write(tmp_path / f"{i}", {NAME: t}) for i, t in enumerate((a, far, near))]
    (row,) = _after(_recipe("linear", folders, parameters={"weight": 1.0})).tensors
    assert (row.angle_deg, row.norm_ratio) == pytest.approx((30.0, 2.0))


def test_the_folder_of_a_merge_tells_its_geometry(pair, tmp_path):
    merge(f"slerp({pair[0]}, {pair[1]}, t=0.5)", tmp_path / "out")
    told = json.loads((tmp_path / "out" / "geometry.json").read_text())
    exact = _rows(_compared(*pair))
    assert told["parents"] == list(map(str, pair))
    assert told["angles_right_to_deg"] == GRAM_DEG and len(told["tensors"]) == 20
    for row in told["tensors"]:
        assert row["path"] == "slerp"
        assert row["angle_deg"] == pytest.approx(exact[row["name"]].angle_deg, abs=GRAM_DEG)
        assert row["norm_ratio"] == pytest.approx(exact[row["name"]].norm_ratio, rel=1e-6)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| along the arc (SLERP) | 100.0 % |" in card
    medians = {s["part"]: s["median_angle_deg"] for s in told["by_part"]}
    assert f"| attention | {medians['attention']:.2f}° |" in card


def test_a_model_with_an_adapter_tells_that_all_was_copied(pair, tmp_path):
    merge(f"{pair[0]}+{write_adapter(tmp_path / 'adapter')}", tmp_path / "out")
    told = json.loads((tmp_path / "out" / "geometry.json").read_text())
    assert told["total"]["shares"] == {"copied": 1.0}
    assert {row["angle_deg"] for row in told["tensors"]} == {None}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| copied from one parent | 100.0 % |" in card and "median angle" not in card


def test_names_in_the_geometry_do_not_make_another_model(pair, tmp_path):
    """A merge of a merge is found again in the cache, wherever its parents lie."""
    inner = tmp_path / "inner"
    merge(f"slerp({pair[0]}, {pair[1]}, t=0.5)", inner)
    first = resolve_model(f"slerp({pair[0]}, {inner}, t=0.5)")
    (inner / "geometry.json").write_text("{}")
    assert resolve_model(f"slerp({pair[0]}, {inner}, t=0.5)") == first


MEASURED = """
import resource, sys
from merging.build import open_models
from merging.geometry import compare

names = sys.argv[1:]
parents = open_models(names)
compare(*(parents[name] for name in names[2:]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
compare(*(parents[name] for name in names[:2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_does_not_grow_with_the_tensors(tmp_path):
    """Tensors of 48 MB, 192 MB in float64, cost no more than small ones."""
    small = [write_llama(tmp_path / name) for name in "cd"]
    big = {f"big{i}": torch.ones(24_000_000, dtype=torch.bfloat16) for i in range(2)}
    folders = [_write(tmp_path / name, big) for name in "ab"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, [*folders, *small])],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) // (1024 if sys.platform == "darwin" else 1) < 60_000
