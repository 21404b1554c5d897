"""What the server offers under which names, and the engines it has open.

A client may name the catalogue's models that are on this machine, merges of them, and teams;
anything else (folders, addresses, the Hub) only if whoever started the server named it, so
that nobody reads files or calls servers through it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from agents.generation import Engine
from agents.roles import TEAMS, Team, load_team
from orbweave.errors import ModelError, shown
from orbweave.models import ModelRef, cached_folder, catalogue_entry, list_models
from orbweave.weights import Kind
from ui.serve_thread import aside

__all__ = ["TEAM", "Shelf"]

TEAM = "team:"
"""What the name of a team begins with."""


@dataclass
class _Lent:
    engine: Engine
    n_users: int = 0


class Shelf:
    """Opens engines when they are asked for and keeps the latest few; used by many threads."""

    def __init__(
        self, open_engine: Callable[[str], Engine], extra: Sequence[str] = (), keep: int = 4
    ) -> None:
        """Start empty.

        Args:
            open_engine: From a model reference to its engine.
            extra: References of any kind that clients may name besides.
            keep: Engines that nobody uses and that are kept open all the same.

        Raises:
            UsageError, ModelError: an extra reference cannot be understood.
        """
        self._open_engine, self._keep = open_engine, keep
        self._extra = [str(ModelRef.parse(text)) for text in extra]
        self._lent: OrderedDict[str, _Lent] = OrderedDict()
        self._opening, self._lock = threading.Lock(), threading.Lock()

    def names(self) -> list[str]:
        """Return the models that a client can choose from: chat models, teams, image models."""
        teams = [TEAM + path.stem for path in sorted(TEAMS.glob("*.yaml"))]
        names = [*_here("language"), *self._extra, *self._lent, *teams, *_here("image")]
        return list(dict.fromkeys(names))

    def image_model(self, name: str) -> str:
        """Return the name of an image model that is on this machine.

        Raises:
            ModelError: there is none.
        """
        if name not in _here("image"):
            raise ModelError(
                f"wanted an image model, found no {shown(name)}; take {', '.join(_here('image'))}"
            )
        return name

    def team(self, name: str) -> Team:
        """Return a team by its name with `team:` before it.

        Raises:
            ModelError: there is none.
        """
        short = name.removeprefix(TEAM)
        known = sorted(path.stem for path in TEAMS.glob("*.yaml"))
        if short not in known:
            raise ModelError(
                f"wanted a team, found no {shown(short)}; there are {', '.join(known)}"
            )
        return load_team(short)

    @contextmanager
    def lend(self, name: str) -> Iterator[Engine]:
        """Lend the engine of a model; opening it blocks for seconds.

        Raises:
            ModelError: the name is not offered, or the model cannot be had.
            UsageError: it is no reference, or its models cannot be merged.
            EngineError: its server does not answer.
        """
        known = self.check(name)
        with self._opening:
            lent = self._lent.get(known) or _Lent(self._open_engine(known))
            with self._lock:
                self._lent[known] = lent
                self._lent.move_to_end(known)
                lent.n_users += 1
        try:
            yield lent.engine
        finally:
            with self._lock:
                lent.n_users -= 1
                idle = [key for key, each in self._lent.items() if each.n_users == 0]
                spare = [self._lent.pop(key) for key in idle[: -self._keep or None]]
            for each in spare:
                threading.Thread(target=lambda e=each.engine: asyncio.run(e.close())).start()

    @asynccontextmanager
    async def lend_here(self, name: str) -> AsyncIterator[Engine]:
        """Lend the engine of a model to this task, which waits for it in a thread; see `lend`."""
        loan = self.lend(name)
        opening = aside(loan.__enter__)
        try:
            engine = await asyncio.shield(opening)
        except asyncio.CancelledError:
            # It is opened all the same, and given back by whoever did not wait for it.
            opening.add_done_callback(
                lambda done: done.exception() or loan.__exit__(None, None, None)
            )
            raise
        try:
            yield engine
        finally:
            loan.__exit__(None, None, None)

    def check(self, name: str) -> str:
        """Return the name of a model as it is kept here.

        Raises:
            UsageError, ModelError: as in `lend`, but that nothing is opened.
        """
        ref = ModelRef.parse(name)
        if str(ref) not in self._extra and not _is_offered(ref):
            images = _here("image")
            if str(ref) in images:
                raise ModelError(
                    f"wanted a model that talks, {ref} draws; ask it at /v1/images/generations"
                )
            talking = [known for known in self.names() if known not in images]
            raise ModelError(
                f"wanted a model this server offers, got {shown(name)}; it offers "
                f"{', '.join(talking)}, and merges such as slerp(MODEL, MODEL, t=0.4)"
            )
        return str(ref)

    async def close(self) -> None:
        """Close every engine."""
        for lent in self._lent.values():
            await lent.engine.close()
        self._lent.clear()


def _is_offered(ref: ModelRef) -> bool:
    """Whether a reference is made of language models of the catalogue alone."""
    if ref.parents:
        return all(_is_offered(parent) for parent in ref.parents)
    return (
        ref.kind == "catalogue" and _is_here(ref) and catalogue_entry(ref.name).kind == "language"
    )


def _here(kind: Kind) -> list[str]:
    """Return the catalogue's models of a kind that need no download."""
    entries = [entry for entry in list_models() if entry.kind == kind]
    return [entry.name for entry in entries if _is_here(ModelRef("catalogue", entry.name))]


def _is_here(ref: ModelRef) -> bool:
    return catalogue_entry(ref.name).place != "hub" or cached_folder(ref) is not None
