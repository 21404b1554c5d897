"""Work beside the event loop that does not hold up the end of the process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

__all__ = ["aside"]

T = TypeVar("T")


def aside(work: Callable[[], T]) -> asyncio.Future[T]:
    """Run `work` in a thread and return its future; cancelling that does not stop the thread.

    asyncio's own threads are waited for when the loop ends, and one that loads weights cannot be
    stopped: Ctrl-C would seem dead for as long.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def body() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as err:
            error = err
        with suppress(RuntimeError):  # the loop has ended, and with it whoever waited
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=body, name="orbweave-serve", daemon=True).start()
    return future
