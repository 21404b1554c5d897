"""A studio on fakes: the real team and server, models that answer from a table, checkerboards."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents import Knowledge, load_team
from agents.fake import FakeEngine, hashed_words
from agents.generation import Generation, Reply
from agents.knowledge import Fact
from imagegen.measure import measure
from imagegen.png import PngNote, encode_png
from orbweave.errors import Cancelled
from orbweave.files import check_output, sha256_file
from orbweave.records import Picture, RenderRequest
from ui.design import Workshop
from ui.maker import Maker
from ui.studio.desk import Desk
from ui.studio.order import Wish
from ui.studio.talk import talking

EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>"
CONCEPT = "a membrane that joins spider webs and leaf veins"
FIRST = (
    "Close view of a pale membrane with thick radial threads from one corner, seen from above. "
    "Thin spiral threads cross them at even gaps. Straight side veins leave each thick thread "
    "and end on the margin of the blade. Dark green background, soft even light."
)
SECOND = (
    "Close view of a pale membrane with thin radial threads from one corner, seen from above. "
    "Few spiral threads cross them at wide gaps. Every side vein tapers from the thread to the "
    "margin of the blade and leaves most of it open. Dark green background, soft even light."
)


# What Gradio 6.31 does with the newest pydantic is no fault of ours.
GRADIO_WARNS = pytest.mark.filterwarnings("ignore:The '.*' attribute with value")


def facts() -> list[Fact]:
    rows: list[tuple[str, str, str, str | None]] = [
        ("silk-0001", "spider-silk", "Spiral threads of a web cross radial threads at 3 mm gaps.",
         "Even spiral lines on straight radial lines."),
        ("silk-0002", "spider-silk", f"Anchor threads spread the load of a web. {EVIL}", None),
        ("leaf-0001", "leaf", "Side veins of a leaf end on the margin of the blade.",
         "Slanted lines that end on an edge."),
    ]  # fmt: skip
    return [
        Fact(id=i, domain=d, topic="structure", statement=s, quantity=None, visual=v,
             source_title=f"A page {EVIL}", source_url="https://example.org/silk")
        for i, d, s, v in rows
    ]  # fmt: skip


def obedient(request: Generation) -> str:
    """Answer every form as a good model would."""
    question = request.messages[-1].content
    if "What should the design take" in question:
        return question.split("- ", 1)[1].splitlines()[0]
    if "Seen in nature" in question:
        return f"In plain shapes: {question.split('- ', 1)[1].splitlines()[0].lower()}"
    if request.prefix == "Title:":
        return "Title: Web of veins"
    if request.prefix.endswith("Prompt:"):
        return f"{request.prefix} {SECOND if 'Feedback:' in question else FIRST}"
    if request.prefix.endswith("Avoid:"):
        return f"{request.prefix} cars, smoke"
    return f"{request.prefix} Let the thick threads taper toward the margin of the blade."


@dataclass
class Painter:
    """Draws checkerboards whose squares follow from the seed, a step at a time."""

    step_s: float = 0.0
    requests: list[RenderRequest] = field(default_factory=list)

    def render(
        self,
        request: RenderRequest,
        folder: Path,
        *,
        name: str = "seed-{seed}",
        on_step: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        init_image: Path | None = None,
        save_seed_picture: Path | None = None,
    ) -> list[Picture]:
        self.requests.append(request)
        folder.mkdir(parents=True, exist_ok=True)
        for step in range(request.steps):
            if cancelled is not None and cancelled():
                raise Cancelled("stopped")
            time.sleep(self.step_s)
            if on_step is not None:
                on_step(step + 1, request.steps)
        pictures = []
        for seed in request.seeds:
            alone = request.model_copy(update={"seeds": (seed,)})
            path = folder / f"{name.format(seed=seed)}.png"
            check_output(path, force=False)
            path.write_bytes(encode_png(squares(8 + seed % 8), PngNote(request=alone, geometry="")))
            pictures.append(
                Picture(path=str(path), sha256=sha256_file(path), seed=seed, request=alone)
            )
        if save_seed_picture is not None and request.structure is not None:
            check_output(save_seed_picture, force=False)
            save_seed_picture.write_bytes(encode_png(squares(4), None))
        return pictures


def squares(side: int) -> Any:
    rows, columns = np.indices((64, 64)) // side
    white = ((rows + columns) % 2 * 255).astype(np.uint8)
    return np.stack([white] * 3, axis=-1)


class Talker(FakeEngine):
    """Speaks as fast as its test says at that moment."""

    def __init__(self, parts: Parts, model: str) -> None:
        super().__init__(lambda request: parts.answer(request), model=model)
        self._parts = parts

    async def stream(self, request: Generation) -> AsyncIterator[str | Reply]:
        async for piece in super().stream(request):
            await asyncio.sleep(self._parts.word_s)
            yield piece


@dataclass
class Parts:
    """What the fake models do; a test changes it before a design begins."""

    word_s: float = 0.0
    """Seconds between two words."""
    painter: Painter = field(default_factory=Painter)
    answer: Callable[[Generation], str] = obedient
    fault: Exception | None = None
    """Raised when the models are opened."""

    def open(self, note: Callable[[str], None]) -> Maker:
        if self.fault is not None:
            raise self.fault
        shop = Workshop(
            talking(lambda model: Talker(self, model)),
            lambda model: Talker(self, model),
            lambda: Knowledge(facts(), hashed_words),
            load_team(),
            self.painter,
            measure,
            note,
        )
        return Maker(shop)


def wish(**fields: Any) -> Wish:
    usual = {"concept": CONCEPT, "domains": ("spider-silk", "leaf"), "size": "64", "steps": 3}
    return Wish.read(usual | {"structure": "none", "rounds": 1} | fields)


def wait_until(is_so: Callable[[], Any], what: str, timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end, f"waited {timeout_s} s in vain until {what}"
        time.sleep(0.01)


@pytest.fixture
def parts() -> Parts:
    return Parts()


@pytest.fixture
def open_desk(tmp_path: Path, parts: Parts) -> Iterator[Callable[..., Desk]]:
    """Opens desks on one folder, as a server that is started again; closes the last."""
    opened: list[Desk] = []

    def open_one(**how: Any) -> Desk:
        if opened:
            opened[-1].close()
        desk = Desk(tmp_path / "data", parts.open, **how)
        opened.append(desk)
        desk.open()
        desk.work()
        return desk

    yield open_one
    if opened:
        opened[-1].close()


@pytest.fixture
def desk(open_desk: Callable[..., Desk]) -> Desk:
    return open_desk()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A studio served from a thread of this process."""

    def __init__(self, desk: Desk, *, port: int | None = None, speaks_mcp: bool = False) -> None:
        import uvicorn

        from ui.studio.app import build_app
        from ui.studio.front import Front
        from ui.studio.gate import Gate

        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        gate = Gate(
            Front(lambda: build_app(desk, speaks_mcp=speaks_mcp)), passwords={}, only_local=True
        )
        config = uvicorn.Config(
            gate, port=self.port, log_level="error", timeout_graceful_shutdown=1, ws="none"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)


def another(tiny: Path, folder: Path, seed: int) -> Path:
    """Write a tiny chat model like `tiny` with other weights, and room for a whole form."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 8_192}))
    draw = torch.Generator().manual_seed(seed)
    weights = load_file(folder / "model.safetensors")
    moved = {n: w + 0.02 * torch.randn(w.shape, generator=draw) for n, w in weights.items()}
    save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
