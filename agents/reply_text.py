"""A reply as it grows token by token, and how much of it may be shown already."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["ReplyText"]


class ReplyText:
    """Turns tokens into text: whole characters only, and nothing of a stop string."""

    def __init__(
        self,
        decode: Callable[[list[int]], str],
        prefix: str = "",
        prefix_ids: Sequence[int] = (),
        stop: Sequence[str] = (),
    ) -> None:
        """Start a reply.

        Args:
            decode: Tokens to text; the text of more tokens begins with the text of fewer,
                save for unfinished characters at its end.
            prefix: What the reply begins with.
            prefix_ids: The same in tokens.
            stop: The reply ends before the first of these that it says after the prefix.
        """
        self._decode = decode
        self._prefix = prefix
        self._ids = list(prefix_ids)
        self._skip = len(decode(self._ids)) if self._ids else 0
        self._n_prefix = len(self._ids)
        self._stop = tuple(stop)
        self._n_shown = 0
        self.text = prefix
        """The reply so far; after the end without the stop string."""
        self.stopped = False
        """Whether a stop string was said."""

    @property
    def n_tokens(self) -> int:
        """Tokens added."""
        return len(self._ids) - self._n_prefix

    def add(self, token: int) -> str:
        """Add a token and return the text that may be shown now, often empty."""
        self._ids.append(token)
        self.text = self._prefix + self._decode(self._ids)[self._skip :]
        ends = [at for at in map(self._find, self._stop) if at >= 0]
        if ends:
            self.text, self.stopped = self.text[: min(ends)], True
        return self._show(len(self.text) if self.stopped else self._safe_length())

    def finish(self) -> str:
        """Return the text that was held back."""
        return self._show(len(self.text))

    def _show(self, end: int) -> str:
        piece = self.text[self._n_shown : end]
        self._n_shown = max(self._n_shown, end)
        return piece

    def _find(self, stop: str) -> int:
        """Return where `stop` begins, -1 if it was not said; it must end after the prefix."""
        return self.text.find(stop, max(0, len(self._prefix) - len(stop) + 1))

    def _safe_length(self) -> int:
        """Return the length without what later tokens may still change or turn into a stop."""
        # U+FFFD at the end stands for the first bytes of a character.
        safe = self.text.rstrip("\ufffd")
        held = (
            n
            for stop in self._stop
            for n in range(min(len(stop) - 1, len(safe)), 0, -1)
            if safe.endswith(stop[:n])
        )
        return len(safe) - max(held, default=0)
