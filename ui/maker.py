"""Makes the design of one row after another; what several rows share is loaded once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from agents.embedding import Embed
from agents.events import Event
from agents.generation import Engine
from agents.roles import Team, load_team
from orbweave.errors import EngineError
from orbweave.records import Design
from ui.design import Order, Workshop, design, models_of
from ui.matrix import BatchRow
from ui.rendering import RenderSettings, chooser_for

__all__ = ["Maker"]


class Maker:
    """Opens facts, language models and image model when a row needs them, and keeps them.

    Of the language models only those of the row at hand are kept: a batch is sorted so that
    rows with the same models follow each other, and memory stays flat.
    """

    def __init__(self, shop: Workshop, embed: Embed) -> None:
        self._shop = shop
        self._embed = embed
        self._engines: dict[str, Engine] = {}
        self._knowledge: Any = None

    def __call__(
        self,
        row: BatchRow,
        target: Path,
        *,
        on_event: Callable[[Event], None],
        cancelled: Callable[[], bool],
    ) -> Design:
        """Make the design folder of a row; raises as `ui.design.design` does."""
        team = load_team(Path(row.team) if Path(row.team).is_absolute() else row.team)
        self._keep_only(models_of(team, row.model))
        try:
            return design(
                self._order(row),
                target,
                self._lent(team),
                on_event=on_event,
                cancelled=cancelled,
            )
        except EngineError:
            self.close()  # an engine that failed once is opened afresh
            raise

    def close(self) -> None:
        """Free the language models."""
        self._keep_only([])

    def _order(self, row: BatchRow) -> Order:
        r = row.render
        settings = RenderSettings(
            r.model, r.strength, r.scheduler, r.steps, r.guidance, (r.width, r.height)
        )
        chooser = chooser_for(row.structure, self._embed)
        return Order(row.brief, row.rounds, row.images, settings, row.model, chooser)

    def _lent(self, team: Team) -> Workshop:
        return replace(
            self._shop,
            team=team,
            open_engine=self._engine,
            open_knowledge=self._facts,
            lends_engines=True,
        )

    def _engine(self, model: str) -> Engine:
        if model not in self._engines:
            self._engines[model] = self._shop.open_engine(model)
        return self._engines[model]

    def _facts(self) -> Any:
        if self._knowledge is None:
            self._knowledge = self._shop.open_knowledge()
        return self._knowledge

    def _keep_only(self, models: list[str]) -> None:
        for model in self._engines.keys() - set(models):
            asyncio.run(self._engines.pop(model).close())
