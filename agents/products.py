"""Linear layers whose weights lie as the product kernels read them.

oneDNN lays the weights of a bfloat16 product out anew at every call. For a prompt that is lost in
the noise; for a token of a few replies it is most of the work. Laid out once, a token of 16 replies
costs a third less in these layers and one of two replies half, and every bit is the same (torch
2.13, Zen 5).

A processor without bfloat16 computes in float32, and a token then waits for the memory. Weights
that were published in bfloat16 fit into half precision, so FBGEMM reads half the bytes and widens
them on the way: a token of one reply takes 24 ms in these layers instead of 37, of 16 replies 40
instead of 49, a prompt an eighth longer (135 million parameters, two cores).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["prepare_products"]

_FINEST = 2.0**-25
"""Half a step of the smallest numbers in half precision: more a weight may not lose."""


def prepare_products(model: nn.Module) -> None:
    """Replace the linear layers of a model by prepared ones where that is possible.

    Layers in bfloat16 need oneDNN's instructions for the processor; those in float32 need
    FBGEMM, and weights that half precision holds. Nothing is replaced where torch has not these
    operators, which are its compiler's and its quantization's own. The model must be on the CPU;
    afterwards it can no longer be trained or saved. An output layer that is tied to the embedding
    becomes a copy: one more embedding in memory.
    """
    has_onednn, has_fbgemm = _has_onednn(), _has_fbgemm()
    if not (has_onednn or has_fbgemm):
        return
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is not nn.Linear:
                continue
            if has_onednn and child.weight.dtype == torch.bfloat16:
                setattr(module, name, _Prepared(child))
            elif has_fbgemm and _fits_half(child.weight):
                setattr(module, name, _Halved(child))
    for parameter in model.parameters():
        if parameter.layout == torch.strided and not parameter.is_meta:
            # One tensor that lies in the mapped file would keep all of it in memory.
            parameter.data = parameter.data.clone()


def _has_onednn() -> bool:
    wanted = ("_is_mkldnn_bf16_supported", "_reorder_linear_weight", "_linear_pointwise")
    known = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not (known and all(hasattr(torch.ops.mkldnn, name) for name in wanted)):
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _has_fbgemm() -> bool:
    wanted = ("linear_prepack_fp16", "linear_dynamic_fp16")
    known = "fbgemm" in torch.backends.quantized.supported_engines
    return known and all(hasattr(torch.ops.quantized, name) for name in wanted)


def _fits_half(weight: Tensor) -> bool:
    if weight.dtype != torch.float32:
        return False
    lost = weight.detach() - weight.detach().half().float()  # NaN or infinite if far too large
    return bool(lost.abs().max() <= _FINEST)


class _Prepared(nn.Linear):
    """A linear layer for inference; `weight` has its shape and dtype, not its memory."""

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__(plain.in_features, plain.out_features, device="meta", bias=False)
        laid_out = torch.ops.mkldnn._reorder_linear_weight(plain.weight.detach())
        self.weight = nn.Parameter(laid_out, requires_grad=False)
        self.bias = plain.bias

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, the name is torch's
        """Return input W^T + b, (*rows, out_features)."""
        result: Tensor = torch.ops.mkldnn._linear_pointwise(
            input, self.weight, self.bias, "none", [], ""
        )
        return result


class _Halved(nn.Linear):
    """A linear layer for inference with weights in half precision and all else in float32.

    `weight` has its shape and dtype and no memory. A row's result does not depend on how many
    rows there are.
    """

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__(plain.in_features, plain.out_features, device="meta", bias=False)
        self.bias = plain.bias
        self._packed = torch.ops.quantized.linear_prepack_fp16(plain.weight.detach(), None)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, the name is torch's
        """Return input W^T + b, (*rows, out_features)."""
        result: Tensor = torch.ops.quantized.linear_dynamic_fp16(input, self._packed)
        return result if self.bias is None else result + self.bias
