"""The headers of weight files, as strangers may write them."""

import json

import pytest

from orbweave.errors import ModelError
from orbweave.weights import read_header


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 100_000, b"[]", b'{"a": 1}', b'{"a": {"dtype": "F32"}}', b"\xff\xfe", b"{}trail",
        b'{"__metadata__": {"a": 1}}', b'{"__metadata__": "a"}',
    ],
    ids=["deep", "list", "number", "no offsets", "bytes", "trail", "metadata", "metadata text"],
)  # fmt: skip
def test_a_header_that_is_none_is_refused(tmp_path, header):
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ModelError, match="wanted safetensors weights"):
        read_header(path)


def test_a_header_is_read(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    assert read_header(path)["a"].shape == (2,)
