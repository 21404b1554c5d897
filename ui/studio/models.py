"""Opens the real parts of a design run, loaded before the first design asks for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from agents.embedding import MiniLM
from agents.generation import Engine
from orbweave.records import RenderRequest
from ui.batch import MakeRow
from ui.design import models_of, workshop
from ui.maker import Maker, Studio
from ui.studio.talk import talking

__all__ = ["open_models"]


def open_models(note: Callable[[str], None]) -> MakeRow:
    """Return what makes designs, its default models warm: the first word then comes at once.

    Takes ten seconds to a minute; `note` is told what is being waited for.

    Raises:
        OrbweaveError: a model is missing or damaged.
    """
    shop = workshop(note, MiniLM())
    note("reading the facts")
    knowledge = shop.open_knowledge()
    knowledge.experts_for("a leaf")  # loads the sentence model, and embeds the facts once
    warm: dict[str, Engine] = {}
    for model in models_of(shop.team, None):
        note(f"loading the language model {model}")
        warm[model] = shop.open_engine(model)

    def open_engine(model: str) -> Engine:
        return warm.pop(model, None) or shop.open_engine(model)

    note("loading the image model")
    renderer = Studio(shop.renderer)  # the thread that loads it is the one that draws later
    with TemporaryDirectory() as folder:
        request = RenderRequest(prompt="a leaf", steps=1, width=64, height=64)
        renderer.render(request, Path(folder))
    return Maker(
        replace(
            shop,
            converse=talking(shop.open_engine),
            open_engine=open_engine,
            open_knowledge=lambda: knowledge,
            renderer=renderer,
        )
    )
