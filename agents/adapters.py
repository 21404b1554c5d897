"""LoRA adapters side by side on one base model, each for its own rows of a batch.

A layer of the base computes W x for all rows at once; an adapter adds s B A x to its own. Rows of
one adapter stand together, so nothing is gathered and the weights stay the base's: a further
adapter costs its own size and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from merging.adapter import Adapter
from orbweave.errors import ModelError

__all__ = ["Overlays", "Span"]


class Span(NamedTuple):
    """Rows of a batch that one adapter works on."""

    start: int
    stop: int
    adapter: str
    """As given to `Overlays.add`."""


class _Factors(NamedTuple):
    """What an adapter adds to one layer: x -> (x down) up."""

    down: Tensor
    """A transposed, (columns, rank)."""
    up: Tensor
    """s B transposed, (rank, rows)."""


class Overlays:
    """The adapters on one loaded model."""

    def __init__(self, model: nn.Module) -> None:
        """Start without adapters; `model` keeps its weights."""
        self._linear = {
            name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)
        }
        self._layers: dict[str, dict[str, _Factors]] = {}
        self.spans: Sequence[Span] = ()
        """Who works on which rows of the next forward; rows in no span are the base's own."""

    def add(self, name: str, adapters: Sequence[Adapter]) -> int:
        """Lay adapters over the model under one name; the effects of several add up.

        Returns:
            The bytes they take.

        Raises:
            ModelError: one changes a layer that the model does not have in that shape, or is
                of a kind that has to be merged.
        """
        made: dict[str, list[_Factors]] = {}
        for adapter in adapters:
            for layer, factors in self._read(adapter).items():
                made.setdefault(layer, []).append(factors)
        n_bytes = 0
        for layer, parts in made.items():
            # The sum of products is the product of the factors side by side.
            joined = _Factors(
                torch.cat([p.down for p in parts], 1), torch.cat([p.up for p in parts])
            )
            n_bytes += sum(t.numel() * t.element_size() for t in joined)
            if layer not in self._layers:
                self._layers[layer] = {}
                self._linear[layer].register_forward_hook(self._adding(self._layers[layer]))
            self._layers[layer][name] = joined
        return n_bytes

    def remove(self, name: str) -> None:
        """Forget an adapter; nothing happens if there is none of that name."""
        for adapters in self._layers.values():
            adapters.pop(name, None)

    def _adding(self, adapters: dict[str, _Factors]) -> Callable[..., None]:
        """Return a hook that adds to a layer's output what its adapters say."""

        def add(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            for start, stop, name in self.spans:
                if (factors := adapters.get(name)) is not None:
                    rows = args[0][start:stop].flatten(0, -2)
                    out = output[start:stop].view(-1, output.shape[-1])
                    out.addmm_(rows @ factors.down, factors.up)

        return add

    def _read(self, adapter: Adapter) -> dict[str, _Factors]:
        """Return an adapter's factors by the layer they change, in the model's dtype."""
        if adapter.dora:
            raise ModelError(
                f"wanted a plain LoRA adapter to share a model, {adapter.folder} uses DoRA; "
                "merge it into the model first"
            )
        stored = load_file(adapter.weights)
        found: dict[str, _Factors] = {}
        for target, parts in adapter.factors.items():
            layer = target.removesuffix(".weight")
            a, b = stored[parts["lora_A"]].float(), stored[parts["lora_B"]].float()
            module = self._linear.get(layer)
            shape = tuple(module.weight.shape) if module is not None else None
            if module is None or shape != (b.shape[0], a.shape[1]):
                raise ModelError(
                    f"wanted a layer {layer} of {(b.shape[0], a.shape[1])} for the adapter "
                    f"{adapter.folder}, the model has {shape or 'none'}; "
                    "give the model it was trained on"
                )
            dtype = module.weight.dtype
            up = (adapter.scale(target) * b).T.to(dtype).contiguous()
            found[layer] = _Factors(a.T.to(dtype).contiguous(), up)
        return found
