"""Prepared linear layers against plain ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from agents.products import prepare_products


class Small(nn.Module):
    """An embedding, a hidden layer and an output layer tied to the embedding."""

    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embed = nn.Embedding(101, 48)
        self.hidden = nn.Sequential(nn.Linear(48, 48, bias=bias), nn.SiLU())
        self.head = nn.Linear(48, 101, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Any:
        return self.head(self.hidden(self.embed(ids)))


needs_bfloat16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="oneDNN has no bfloat16 here"
)


@needs_bfloat16
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_prepared_layers_give_the_bits_of_plain_ones(bias: bool) -> None:
    plain = Small(bias=bias).bfloat16()
    prepared = Small(bias=bias).bfloat16()
    prepare_products(prepared)
    assert not any(type(module) is nn.Linear for module in prepared.modules())
    for n_rows in (2, 3, 16, 61):
        ids = torch.arange(n_rows)[None]
        assert torch.equal(prepared(ids), plain(ids))
        assert torch.equal(prepared(ids.T), plain(ids.T))


@needs_bfloat16
def test_prepared_layers_tell_shape_and_dtype_of_their_weights() -> None:
    model = Small(bias=True).bfloat16()
    prepare_products(model)
    assert isinstance(model.head, nn.Linear)
    assert (model.head.weight.shape, model.head.weight.dtype) == ((101, 48), torch.bfloat16)
    assert model.embed.weight.layout == torch.strided


def test_layers_in_float32_stay_as_they_are() -> None:
    model = Small(bias=True)
    before = [id(module) for module in model.modules()]
    prepare_products(model)
    assert [id(module) for module in model.modules()] == before
