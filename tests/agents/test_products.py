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
        self.embed = nn.Embedding(101, 64)
        self.hidden = nn.Sequential(nn.Linear(64, 64, bias=bias), nn.SiLU())
        self.head = nn.Linear(64, 101, bias=False)
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
    assert (model.head.weight.shape, model.head.weight.dtype) == ((101, 64), torch.bfloat16)
    assert model.embed.weight.layout == torch.strided


needs_fbgemm = pytest.mark.skipif(
    "fbgemm" not in torch.backends.quantized.supported_engines, reason="torch has no FBGEMM here"
)


def published(*, bias: bool) -> Small:
    """A model in float32 whose weights were published in bfloat16."""
    return Small(bias=bias).bfloat16().float()


@needs_fbgemm
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_halved_layers_give_what_plain_ones_do_whatever_the_number_of_rows(bias: bool) -> None:
    plain, halved = published(bias=bias), published(bias=bias)
    prepare_products(halved)
    assert not any(type(module) is nn.Linear for module in halved.modules())
    ids = torch.arange(61)[None]
    together = halved(ids)
    torch.testing.assert_close(together, plain(ids), rtol=1e-5, atol=1e-5)
    for n_rows in (1, 2, 3, 4, 7, 16, 33):
        assert torch.equal(halved(ids[:, :n_rows]), together[:, :n_rows])


@needs_fbgemm
def test_halved_layers_tell_shape_and_dtype_of_their_weights() -> None:
    model = published(bias=True)
    prepare_products(model)
    assert isinstance(model.head, nn.Linear)
    assert (model.head.weight.shape, model.head.weight.dtype) == ((101, 64), torch.float32)
    assert not model.embed.weight.is_meta


@pytest.mark.parametrize("weight", [1 + 2.0**-12, 7e4, float("nan")])
def test_a_layer_that_half_precision_does_not_hold_stays_as_it_is(weight: float) -> None:
    model = published(bias=True)
    with torch.no_grad():
        model.hidden[0].weight[0, 0] = weight  # type: ignore[index]
    prepare_products(model)
    assert type(model.hidden[0]) is nn.Linear
