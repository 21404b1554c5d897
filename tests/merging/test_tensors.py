"""Reading and writing weights piece by piece."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from merging.parent import locate_tensors, open_parent
from merging.tensors import LoadedWeights, ShardWriter, open_weights
from orbweave.errors import ModelError
from orbweave.weights import TensorInfo, read_header
from tests.merging.conftest import write_llama

MIXED = {
    "bytes": torch.arange(3, dtype=torch.uint8),
    "flags": torch.tensor([True, False, True]),
    "half": torch.randn(5, 3).bfloat16(),
    "wide": torch.randn(2, 2, dtype=torch.float64),
    "nothing": torch.empty(0, 4),
    "scalar": torch.tensor(2.5),
}


def _wide(flat: torch.Tensor) -> np.ndarray:
    return (flat.float() if flat.dtype == torch.bfloat16 else flat).numpy()


def _infos(tensors: dict[str, torch.Tensor]) -> dict[str, TensorInfo]:
    return dict(LoadedWeights(tensors).tensors)


@pytest.mark.parametrize("shard_bytes", [1, 40, 1_000_000])
def test_what_is_written_out_of_order_is_read_by_safetensors(tmp_path, shard_bytes):
    with ShardWriter(tmp_path, _infos(MIXED), shard_bytes=shard_bytes) as writer:
        for name in reversed(MIXED):
            flat = MIXED[name].reshape(-1)
            for start in reversed(range(0, len(flat), 2)):
                writer.write(name, start, _wide(flat[start : start + 2]))
    for name, path in locate_tensors(tmp_path).items():
        with safe_open(path, framework="pt") as file:
            assert torch.equal(file.get_tensor(name), MIXED[name])
            assert file.metadata() == {"format": "pt"}


def test_shards_are_named_and_indexed_as_transformers_does(tmp_path):
    with ShardWriter(tmp_path, _infos(MIXED), shard_bytes=30):
        pass
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 3 + 3 + 30 + 32 + 0 + 4
    assert index["weight_map"]["bytes"] == "model-00001-of-00004.safetensors"
    assert sorted(index["weight_map"]) == sorted(MIXED)
    for path in tmp_path.glob("*.safetensors"):
        read_header(path)


def test_any_piece_of_any_shard_is_read(tmp_path):
    folder = write_llama(tmp_path / "a", dtype=torch.bfloat16)
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        whole = {name: file.get_tensor(name).reshape(-1) for name in file.keys()}  # noqa: SIM118
    weights = open_weights(open_parent("a", folder))
    for name, tensor in whole.items():
        bits = tensor.view(torch.int16).numpy().view(np.uint16)
        assert np.array_equal(weights.read(name, 3, 11), bits[3:11])
        assert np.array_equal(weights.read(name, 0, len(tensor)), bits)


def test_an_index_that_names_a_missing_file_is_told(tmp_path):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"model-00001-of-00002\.safetensors, as .* found none"):
        locate_tensors(tmp_path)


def test_an_index_that_names_a_missing_tensor_is_told(tmp_path):
    folder = write_llama(tmp_path / "a")
    index = {"weight_map": {"model.extra": "model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"wanted model\.extra in .* as the index says"):
        open_parent("a", folder)


def test_a_shard_cut_off_is_told(tmp_path):
    folder = write_llama(tmp_path / "a")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelError, match="the file is cut off"):
        open_parent("a", folder)


def test_a_shard_cut_off_while_it_is_read_is_told(tmp_path):
    folder = write_llama(tmp_path / "a")
    weights = open_weights(open_parent("a", folder))
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelError, match="the file ends 10 bytes early"):
        weights.read("model.norm.weight", 0, 16)


def test_no_more_is_read_than_a_tensor_holds(tmp_path):
    weights = open_weights(open_parent("a", write_llama(tmp_path / "a")))
    assert len(weights.read("model.layers.0.input_layernorm.weight", 0, 16)) == 16
    for start, stop in ((0, 17), (16, 17)):
        with pytest.raises(ModelError, match=r"wanted 17 numbers of model\.layers\.0.* it has 16"):
            weights.read("model.layers.0.input_layernorm.weight", start, stop)


def test_files_that_cannot_be_opened_are_told(tmp_path):
    parent = open_parent("a", write_llama(tmp_path / "a"))
    (tmp_path / "a" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"wanted the weights in .*, the system said No such file"):
        open_weights(parent)


def test_files_are_closed_with_the_weights(tmp_path):
    parent = open_parent("a", write_llama(tmp_path / "a"))
    weights = open_weights(parent)
    (handle,) = weights._handles.values()
    os.fstat(handle)
    del weights
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)


def test_a_header_with_a_flipped_bit_is_told(tmp_path):
    save_file({"a": torch.ones(4, 4), "b": torch.ones(4)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"shape":[4,4]', b'"shape":[4,6]'))
    with pytest.raises(ModelError, match="wanted 96 bytes of a in .* its header gives 64"):
        open_weights(open_parent("a", tmp_path))
