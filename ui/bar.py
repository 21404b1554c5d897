"""A progress bar on stderr for a callback that says (step, total)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["bar"]


@contextmanager
def bar(label: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback that draws the bar; silent where stderr is no terminal."""
    from tqdm.auto import tqdm

    with tqdm(desc=label, unit=unit, file=sys.stderr, leave=False, disable=None) as drawn:

        def on_step(step: int, total: int) -> None:
            drawn.total = total
            drawn.update(step - drawn.n)

        yield on_step
