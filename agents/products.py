"""Linear layers whose weights lie as the product kernels read them.

oneDNN lays the weights of a bfloat16 product out anew at every call. For a prompt that is lost in
the noise; for a token of a few replies it is most of the work. Laid out once, a token of 16 replies
costs a third less in these layers and one of two replies half, and every bit is the same (torch
2.13, Zen 5).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["prepare_products"]


def prepare_products(model: nn.Module) -> None:
    """Replace the bfloat16 linear layers of a model by prepared ones; others stay as they are.

    Nothing is replaced where oneDNN has no bfloat16 for the processor, or torch not these
    operators, which are its compiler's own. The model must be on the CPU; afterwards it can no
    longer be trained or saved. An output layer that is tied to the embedding becomes a copy: one
    more embedding in memory.
    """
    if not _can_prepare():
        return
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear and child.weight.dtype == torch.bfloat16:
                setattr(module, name, _Prepared(child))
    for parameter in model.parameters():
        if parameter.layout == torch.strided:
            # One tensor that lies in the mapped file would keep all of it in memory.
            parameter.data = parameter.data.clone()


def _can_prepare() -> bool:
    wanted = ("_is_mkldnn_bf16_supported", "_reorder_linear_weight", "_linear_pointwise")
    known = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not (known and all(hasattr(torch.ops.mkldnn, name) for name in wanted)):
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


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
