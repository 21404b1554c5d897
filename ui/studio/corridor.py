"""The pages with a room behind them, hung into the application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ui.studio.batch_room import BatchRoom
from ui.studio.batches import Batches
from ui.studio.desk import Desk
from ui.studio.judge_room import JudgeRoom
from ui.studio.judging import Judgings
from ui.studio.merge_room import MergeRoom
from ui.studio.mixer import Mixer
from ui.studio.rooms import FILES, QUESTIONS, Room, answerer, sender

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["hang_rooms"]


def hang_rooms(app: FastAPI, desk: Desk, *, is_private: bool) -> None:
    """Add the rooms of a desk to an application that is not running yet; they close with it.

    Args:
        app: What is served.
        desk: Whose folder the rooms work in.
        is_private: Whether only this machine's own people come in.
    """
    mixer = Mixer(desk.data)
    rooms: dict[str, Room] = {
        "batch": BatchRoom(Batches(desk.data)),
        "merge": MergeRoom(mixer, takes_any=is_private),
        "judge": JudgeRoom(Judgings(desk)),
    }
    app.add_route(FILES, sender(rooms))
    app.add_route(QUESTIONS, answerer(rooms), methods=["POST"])
    before = app.router.lifespan_context

    @asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[Any]:
        async with before(app) as state:
            try:
                yield state
            finally:
                await asyncio.to_thread(mixer.close)

    app.router.lifespan_context = living
