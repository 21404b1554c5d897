"""Makes the designs of rows, several at once; what they share is loaded once.

Rows with the same models are made side by side: their conversations share the engines, and
one thread draws for all of them, in the order they come. A row with other models waits until
those at hand have no user left, so that memory stays flat; a batch is sorted such that this
is rare.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Condition, Lock
from typing import Any

from agents.events import Event
from agents.generation import Engine
from agents.roles import Team, load_team
from orbweave.errors import Cancelled, EngineError
from orbweave.records import Design, Picture, RenderRequest
from ui.design import Order, Workshop, design, speakers
from ui.matrix import BatchRow
from ui.rendering import Renderer, RenderSettings, chooser_for

__all__ = ["Maker", "Studio"]

ASK_S = 0.5
"""How often a row that waits asks whether it was cancelled."""


class Maker:
    """Opens facts, language models and image model when a row needs them, and keeps them.

    May be called from several threads.
    """

    def __init__(self, shop: Workshop) -> None:
        self._shop = shop
        self._studio = Studio(shop.renderer)
        self._engines: dict[str, Engine] = {}
        self._knowledge: Any = None
        self._opening = Lock()
        self._change = Condition()
        self._users = 0
        self._at_hand: tuple[str, ...] = ()
        self._is_stale = False

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
        models = speakers(team, row.model, row.brief, self._facts()).models
        with self._using((row.render.model, *models), cancelled):
            try:
                return design(
                    self._order(row),
                    target,
                    self._lent(team),
                    on_event=on_event,
                    cancelled=cancelled,
                )
            except EngineError:
                self._is_stale = True  # engines are opened afresh once nobody uses them
                raise

    def close(self) -> None:
        """Free the language models and end the drawing thread."""
        self._keep_only(())
        self._studio.close()

    @contextmanager
    def _using(self, models: tuple[str, ...], cancelled: Callable[[], bool]) -> Iterator[None]:
        """Wait until these are the models at hand, and hold them there for the block.

        Raises:
            Cancelled: `cancelled` said so meanwhile.
        """
        with self._change:
            while not self._change.wait_for(lambda: self._may_use(models), timeout=ASK_S):
                if cancelled():
                    raise Cancelled("the row was stopped by request")
            if not self._users:
                self._keep_only(() if self._is_stale else models)
                self._at_hand, self._is_stale = models, False
            self._users += 1
        try:
            yield
        finally:
            with self._change:
                self._users -= 1
                self._change.notify_all()

    def _may_use(self, models: tuple[str, ...]) -> bool:
        return not self._users or (self._at_hand == models and not self._is_stale)

    def _order(self, row: BatchRow) -> Order:
        r = row.render
        settings = RenderSettings(
            r.model, r.strength, r.scheduler, r.steps, r.guidance, (r.width, r.height),
            r.adapters, r.control, r.control_scale, r.tile,
        )  # fmt: skip
        chooser = chooser_for(row.structure)
        return Order(row.brief, row.rounds, row.images, settings, row.model, chooser)

    def _lent(self, team: Team) -> Workshop:
        return replace(
            self._shop,
            team=team,
            open_engine=self._engine,
            open_knowledge=self._facts,
            renderer=self._studio,
            lends_engines=True,
        )

    def _engine(self, model: str) -> Engine:
        with self._opening:
            if model not in self._engines:
                self._engines[model] = self._shop.open_engine(model)
            return self._engines[model]

    def _facts(self) -> Any:
        with self._opening:
            if self._knowledge is None:
                self._knowledge = self._shop.open_knowledge()
            return self._knowledge

    def _keep_only(self, models: Collection[str]) -> None:
        for model in self._engines.keys() - set(models):
            asyncio.run(self._engines.pop(model).close())


class Studio:
    """One thread that has everybody's pictures drawn, in the order they come; a `Renderer`."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._thread = ThreadPoolExecutor(1, "orbweave-studio")

    def render(
        self,
        request: RenderRequest,
        folder: Path,
        *,
        cancelled: Callable[[], bool] | None = None,
        **how: Any,
    ) -> list[Picture]:
        """Render when it is this request's turn; raises as the renderer does.

        Raises:
            Cancelled: `cancelled` said so, before or in its turn.
        """
        draw = self._renderer.render
        drawing = self._thread.submit(draw, request, folder, cancelled=cancelled, **how)
        while True:
            try:
                return drawing.result(timeout=ASK_S)
            except TimeoutError:
                if drawing.done():
                    return drawing.result()  # ended this moment, or the renderer's own error
                if cancelled is not None and cancelled() and drawing.cancel():
                    raise Cancelled("the rendering was stopped before its turn") from None

    def close(self) -> None:
        """End the thread once it has drawn what it was given."""
        self._thread.shutdown()
