"""Teams and pictures for the server: one drawing at a time, every file under a secret name."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agents.events import Event, TurnEnded
from agents.generation import Reply
from orbweave.errors import Cancelled
from orbweave.files import build_folder
from orbweave.records import Brief, Design, Picture, RenderRequest, Turn, clean_concept
from ui.design import Order, Workshop, design, speakers
from ui.rendering import STOP_S, Renderer, RenderSettings, chooser_for, consecutive
from ui.serve_forms import ChatForm, ImageForm
from ui.serve_shelf import Shelf
from ui.serve_thread import aside
from ui.target import default_folder

__all__ = ["Pictures", "Designer"]

_MAX_PUBLISHED = 1_000
"""Pictures that can be fetched; older ones stay on the disk."""
_ASK_S = 0.2
"""How often somebody who waits for his turn at drawing asks whether he still has to."""


class Pictures:
    """Files that may be fetched, each by a name that nobody can guess."""

    def __init__(self) -> None:
        """Start with none."""
        self._files: OrderedDict[str, Path] = OrderedDict()

    def publish(self, file: Path) -> str:
        """Return the name a picture can be fetched by."""
        name = f"{secrets.token_urlsafe(24)}.png"
        self._files[name] = file
        while len(self._files) > _MAX_PUBLISHED:
            self._files.popitem(last=False)
        return name

    def find(self, name: str) -> Path | None:
        """Return the file of that name, None if there is none."""
        return self._files.get(name)


@dataclass
class Designer:
    """What draws and designs for clients; threads do the work."""

    shop: Workshop
    shelf: Shelf
    out: Path
    """Folder for designs and pictures."""
    pictures: Pictures = field(default_factory=Pictures)
    _running: set[asyncio.Future[Any]] = field(default_factory=set)
    _claimed: set[Path] = field(default_factory=set)
    """Folders that are being made."""

    def __post_init__(self) -> None:
        self._knowledge: Any = None
        self._drawing = threading.Lock()
        self._reading = threading.Lock()

    async def talk(self, form: ChatForm, address: str) -> AsyncGenerator[str | Reply, None]:
        """Yield a team's turns as Markdown as they end, then prompt and pictures; last the reply.

        Closing it stops the team within a token or a denoising step, and leaves nothing.

        Args:
            form: Whose last user's text is the concept.
            address: What the names of pictures are put behind.

        Raises:
            ConceptError: the concept cannot be used.
            OrbweaveError: a model is missing or failed.
        """
        team = self.shelf.team(form.model)
        concept = clean_concept(form.concept)
        brief = Brief(concept=concept, seed=(form.seed or 0) % 2**32)
        choose = chooser_for("auto")
        order = Order(brief, form.rounds, form.images, RenderSettings(), None, choose)
        self.out.mkdir(parents=True, exist_ok=True)
        target = self._target(concept, brief.seed)
        turns: asyncio.Queue[Turn | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def hear(event: Event) -> None:
            if isinstance(event, TurnEnded):
                loop.call_soon_threadsafe(turns.put_nowait, event.turn)

        def work(cancelled: Callable[[], bool]) -> Design:
            with ExitStack() as lent:
                models = speakers(team, None, brief, self._facts()).models
                engines = {m: lent.enter_context(self.shelf.lend(m)) for m in models}
                shop = replace(
                    self.shop,
                    team=team,
                    open_engine=engines.__getitem__,
                    open_knowledge=self._facts,
                    renderer=_OneAtATime(self.shop.renderer, self._drawing),
                    lends_engines=True,
                )
                return design(order, target, shop, on_event=hear, cancelled=cancelled)

        stop = threading.Event()
        running = self._start(lambda: work(stop.is_set))
        running.add_done_callback(lambda _: turns.put_nowait(None))
        running.add_done_callback(lambda _: self._claimed.discard(target))
        said = ""
        try:
            while (turn := await turns.get()) is not None:
                piece = f"**{turn.speaker}** (`{turn.model}`)\n\n{turn.text.strip()}\n\n"
                said += piece
                yield piece
            record = running.result()
        finally:
            stop.set()
        piece = self._closing(record, target, address)
        yield piece
        n_tokens = sum(turn.n_tokens for turn in record.turns)
        yield Reply(said + piece, 0, n_tokens, 0.0, "stop")

    async def draw(self, form: ImageForm) -> list[Path]:
        """Return the files of the pictures that were asked for.

        Raises:
            UsageError: a size or number that cannot be drawn.
            ModelError: there is no such image model here.
        """
        words = clean_concept(form.prompt)
        settings = RenderSettings(self.shelf.image_model(form.model), size_px=form.size_px)
        seeds = consecutive(form.seed, form.n)
        settings.request(words, form.negative_prompt, None, seeds)  # before the long part
        choose = chooser_for(form.structure)
        self.out.mkdir(parents=True, exist_ok=True)
        target = self._target(words, form.seed)
        renderer = _OneAtATime(self.shop.renderer, self._drawing)
        stop = threading.Event()

        def work() -> list[Path]:
            structure = choose(words, form.seed)
            request = settings.request(words, form.negative_prompt, structure, seeds)
            with build_folder(target, force=False) as folder:
                drawn = renderer.render(request, folder, cancelled=stop.is_set)
            return [target / Path(picture.path).name for picture in drawn]

        try:
            running = self._start(work)
            running.add_done_callback(lambda _: self._claimed.discard(target))
            return await asyncio.shield(running)
        finally:
            stop.set()

    async def close(self) -> None:
        """Wait until every thread has noticed that its client is gone, but not for ever."""
        if self._running:
            await asyncio.wait(self._running, timeout=STOP_S)

    def _target(self, words: str, seed: int) -> Path:
        """Return a fresh folder, also while one for the same words is made for somebody else."""
        target = default_folder(self.out, words, seed)
        if target in self._claimed:
            target = target.with_name(f"{target.name}-{secrets.token_hex(4)}")
        self._claimed.add(target)
        return target

    def _start(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        """Run `work` in a thread that is waited for when the server ends."""
        running = aside(work)
        self._running.add(running)
        running.add_done_callback(self._ended)
        return running

    def _ended(self, running: asyncio.Future[Any]) -> None:
        self._running.discard(running)
        if not running.cancelled():
            running.exception()  # nobody may be left to ask for it

    def _facts(self) -> Any:
        with self._reading:
            if self._knowledge is None:
                self._knowledge = self.shop.open_knowledge()
            return self._knowledge

    def _closing(self, record: Design, target: Path, address: str) -> str:
        """Return the last prompt and its pictures as Markdown."""
        prompt = record.prompts[-1]
        lines = [f"**Prompt: {prompt.title}**\n\n{prompt.prompt}\n"]
        for picture in record.pictures:
            if picture.prompt_version == len(record.prompts) - 1:
                name = self.pictures.publish(target / picture.path)
                lines.append(f"![{prompt.title.translate(_NO_BRACKETS)}]({address}{name})\n")
        return "\n".join(lines)


_NO_BRACKETS = str.maketrans("[]()", "    ")


class _OneAtATime:
    """A renderer whose callers wait for each other; the pipelines are no good at two at once."""

    def __init__(self, renderer: Renderer, lock: threading.Lock) -> None:
        self._renderer, self._lock = renderer, lock

    def render(
        self,
        request: RenderRequest,
        folder: Path,
        *,
        cancelled: Callable[[], bool] | None = None,
        **others: Any,
    ) -> list[Picture]:
        """Render as the other does, once it is free."""
        while not self._lock.acquire(timeout=_ASK_S):
            if cancelled is not None and cancelled():
                raise Cancelled("the drawing was stopped by request")
        try:
            return self._renderer.render(request, folder, cancelled=cancelled, **others)
        finally:
            self._lock.release()
