"""How commands ask for pictures: settings, geometry, and a renderer that is loaded late."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from orbweave.errors import UsageError, shown
from orbweave.records import Picture, RenderRequest, Structure

__all__ = [
    "Chooser",
    "Nearest",
    "RenderSettings",
    "Renderer",
    "chooser_for",
    "consecutive",
    "in_thread",
    "parse_size",
]

T = TypeVar("T")
Chooser = Callable[[str, int], Structure | None]
"""From a prompt text and a seed to the geometry its pictures start from."""
MAX_STRUCTURE_BYTES = 100_000
STOP_S = 20.0
"""Longest wait for a cancelled thread; a denoising step on a slow machine takes a few."""


class Renderer(Protocol):
    """What `imagegen.pipeline.Renderer` offers; a fake stands in for it in tests."""

    def render(
        self,
        request: RenderRequest,
        folder: Path,
        *,
        name: str = ...,
        on_step: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        init_image: Path | None = None,
        save_seed_picture: Path | None = None,
    ) -> list[Picture]:
        """Render one PNG per seed into `folder`; loads the model at the first call.

        Raises:
            ModelError: the model is missing or damaged.
            Cancelled: `cancelled` said so; no picture is kept.
        """
        ...


@dataclass(frozen=True)
class RenderSettings:
    """Everything about pictures but words, seeds and geometry; None means the default."""

    model: str = "loom"
    strength: float | None = None
    scheduler: str | None = None
    steps: int | None = None
    guidance: float | None = None
    size_px: tuple[int, int] | None = None
    """(width, height)."""
    adapters: tuple[tuple[str, float], ...] = ()
    """Image adapters and their weights, beside those of a preset."""
    control: str | None = None
    """A ControlNet for the geometry."""
    control_scale: float | None = None
    tile: bool = False

    def request(
        self, prompt: str, negative: str, structure: Structure | None, seeds: Sequence[int]
    ) -> RenderRequest:
        """Return the request for these words; what is not set follows the model's preset.

        Raises:
            UsageError: a value lies outside what a `RenderRequest` allows.
        """
        from pydantic import ValidationError

        from imagegen.fields import in_words
        from imagegen.presets import preset

        usual = preset(self.model)
        width, height = self.size_px or (None, None)
        given: dict[str, Any] = {
            "strength": self.strength,
            "scheduler": self.scheduler,
            "steps": self.steps,
            "guidance": self.guidance,
            "width": width,
            "height": height,
            "control": self.control,
            "control_scale": self.control_scale,
        }
        given = usual | {name: value for name, value in given.items() if value is not None}
        given["adapters"] = (*map(tuple, usual.get("adapters", ())), *self.adapters)
        try:
            return RenderRequest(
                prompt=prompt,
                negative_prompt=negative,
                structure=structure,
                seeds=tuple(seeds),
                tile=self.tile,
                **given,
            )
        except ValidationError as err:
            first = err.errors()[0]
            raise UsageError(
                f"wanted a {in_words(first['loc'])} that can be rendered, "
                f"got {shown(first['input'])}: {first['msg'].lower()}"
            ) from err


@dataclass(frozen=True)
class Nearest:
    """The chooser that goes by the words: motifs they name or mean."""

    def __call__(self, prompt: str, seed: int, first: str | None = None) -> Structure:
        """Return the structure for a prompt; `first` is the family of its first motif."""
        from imagegen.choose import choose_structure

        return choose_structure(prompt, seed, first)


def consecutive(seed: int, n: int) -> tuple[int, ...]:
    """Return `n` seeds counted upwards from `seed`, within 32 bits.

    Raises:
        UsageError: the last would not fit.
    """
    if seed + n > 2**32:
        raise UsageError(
            f"wanted {n} seeds from {seed} on, the last would pass 4,294,967,295; "
            "choose a smaller --seed"
        )
    return tuple(range(seed, seed + n))


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Return (width, height) in pixels of `256` or `512x384`; None stays None.

    Raises:
        UsageError: not one or two whole numbers.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5})(?:[xX×](\d{1,5}))?", text.strip())
    if match is None:
        raise UsageError(f"wanted --size as 256 or 512x384, got {shown(text)}")
    width = int(match[1])
    return width, int(match[2] or width)


def chooser_for(source: str) -> Chooser:
    """Return how geometry is chosen: `auto` by the prompt, `none`, or always a file's.

    Args:
        source: `auto`, `none` or the path of a JSON or YAML file with a `Structure`.

    Raises:
        UsageError: a file that is missing, too long, or holds no structure.
    """
    if source == "none":
        return lambda prompt, seed: None
    if source == "auto":
        return Nearest()
    structure = _read_structure(Path(source))
    return lambda prompt, seed: structure


async def in_thread(work: Callable[[Callable[[], bool]], T]) -> T:
    """Run `work` beside the event loop and return what it returns.

    `work` is given a question, "is this cancelled?", to ask at every step. On
    cancellation this waits until it has stopped, so that nothing writes into a folder
    that is being removed. The thread is a daemon: a library call that cannot be stopped
    does not keep the process.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    stop = threading.Event()

    def finish(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def body() -> None:
        result, error = None, None
        try:
            result = work(stop.is_set)
        except BaseException as err:
            error = err
        if not loop.is_closed():
            loop.call_soon_threadsafe(finish, result, error)

    thread = threading.Thread(target=body, name="orbweave-work", daemon=True)
    thread.start()
    try:
        return await done
    except asyncio.CancelledError:
        stop.set()
        thread.join(timeout=STOP_S)
        raise


def _read_structure(path: Path) -> Structure:
    import yaml
    from pydantic import ValidationError

    from imagegen.fields import in_words
    from imagegen.precheck import check_structure

    try:
        with path.open("rb") as file:  # a pipe or device has no length to ask for
            content = file.read(MAX_STRUCTURE_BYTES + 1)
        if len(content) > MAX_STRUCTURE_BYTES:
            raise UsageError(f"wanted a structure file, got {path} of more than 100 kB")
        text = content.decode()
    except (OSError, UnicodeDecodeError, ValueError) as err:
        reason = getattr(err, "strerror", None) or "not a text file"
        raise UsageError(
            f"wanted --structure auto, none or a readable file, got {shown(path)}: {reason}"
        ) from err
    try:
        value = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        structure = Structure.model_validate(value)
    except ValidationError as err:
        first = err.errors()[0]
        where = in_words(first["loc"]) or "the whole"
        raise UsageError(f"wanted a structure in {path}, at {where}: {first['msg']}") from err
    except (ValueError, yaml.YAMLError, RecursionError) as err:
        raise UsageError(f"wanted JSON or YAML in {path}, got {shown(err)}") from err
    check_structure(structure)
    return structure
