"""Engines of any model reference, opened by name; those over one base can share its weights.

engines = Engines()
silk = engines.open("base+silk")
leaf = engines.open("base+leaf")                       # adds the adapter's size only
far = engines.open("http://localhost:8000/v1#llama")   # an OpenAI-compatible server
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from agents.endpoint import EndpointEngine
from merging.adapter import open_adapter
from merging.build import merge_in_memory, resolve_model
from orbweave.models import ModelRef, catalogue_entry, resolve_adapter

if TYPE_CHECKING:
    from agents.engine import TransformersEngine

__all__ = ["Engines", "layers"]


class Engines:
    """Opens engines; one shared lock lets those in this process take turns token by token.

    It may be called from several threads.
    """

    def __init__(
        self, note: Callable[[str], None] = lambda text: None, *, share: bool = True
    ) -> None:
        """Start with none.

        Args:
            note: Told what is being waited for.
            share: Lay adapters over one base in memory. Each then costs its own size only and
                all are answered in one batch, but a token takes a quarter longer than by a
                model that the adapter was merged into, which is what False gives.
        """
        self._note, self._share = note, share
        self._turn = threading.Lock()
        self._opening = threading.Lock()
        self._on: dict[Path, list[TransformersEngine]] = {}

    def open(self, model: str) -> TransformersEngine | EndpointEngine:
        """Return an engine of a model; who opens it closes it.

        Raises:
            UsageError, ModelError: as in `merging.build.resolve_model`.
            EngineError: a server does not answer.
        """
        ref = ModelRef.parse(model)
        if ref.kind == "endpoint":
            return EndpointEngine.connect(str(ref.url), ref.name)
        with self._opening:
            return self._here(model, ref)

    def _here(self, model: str, ref: ModelRef) -> TransformersEngine:
        """Return an engine in this process, on weights that are in memory already if it can."""
        if (ref.kind, ref.name) == ("merge", "steered"):
            return self._steered(model, ref)
        root, over = layers(ref) if self._share else (ref, ())
        adapters = [open_adapter(resolve_adapter(each, self._note)) for each in over]
        if any(adapter.dora for adapter in adapters):
            root, adapters = ref, []  # it scales the base's own part too, so it has to be merged
        folder = resolve_model(root, self._note)  # before torch: a wrong name is told at once
        from agents.engine import TransformersEngine

        # A closed engine holds its weights for as long as it is known here.
        known = {at: [e for e in on if not e.is_closed] for at, on in self._on.items()}
        self._on = {at: on for at, on in known.items() if on}
        alive = self._on.get(folder, [])
        if alive:
            made = alive[0].beside(model, adapters)
        else:
            made = TransformersEngine(folder, model, turn=self._turn, adapters=adapters)
        self._on[folder] = [*alive, made]
        return made

    def _steered(self, model: str, ref: ModelRef) -> TransformersEngine:
        """Return an engine on a merge that lives as long as itself: every concept has its own."""
        folder, weights = merge_in_memory(ref, self._note)
        from agents.engine import TransformersEngine

        return TransformersEngine(folder, model, turn=self._turn, weights=weights)


def layers(ref: ModelRef) -> tuple[ModelRef, tuple[ModelRef, ...]]:
    """Return the model at the bottom of a reference and the adapters over it, nearest first."""
    if ref.kind == "catalogue":
        entry = catalogue_entry(ref.name)
        if entry.place == "merge":
            return layers(ModelRef.parse(entry.target))
        if entry.place == "adapter":
            root, below = layers(ModelRef.parse(entry.parents[0]))
            return root, (*below, ref)
    if ref.kind == "adapter":
        root, below = layers(ref.parents[0])
        return root, (*below, ref.parents[1])
    return ref, ()
