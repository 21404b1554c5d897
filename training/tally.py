"""How far a run of several stages is, as one count from which the time left can be told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["Tally"]


class Tally:
    """Counts the steps of this run alone: those of an earlier one took none of its time."""

    def __init__(self, expected: Sequence[int], tell: Callable[[int, int, str], None]) -> None:
        """Begin before the first stage.

        Args:
            expected: Steps of each stage from its very beginning, about.
            tell: Is told (steps done, steps to do, which step of which stage).
        """
        self._ahead = list(expected)
        self._tell = tell
        self._done = 0

    def stage(self, name: str) -> Callable[[int, int], None]:
        """Return what the next stage is to call with (step, steps), at first where it begins.

        A stage that is not trained calls nothing, and its steps are no longer expected.
        """
        del self._ahead[0]
        before, first = self._done, -1

        def on_step(step: int, steps: int) -> None:
            nonlocal first
            first = step if first < 0 else first
            self._done = before + step - first
            total = before + steps - first + sum(self._ahead)
            self._tell(self._done, total, f"{name}, step {step:,} of {steps:,}")

        return on_step
