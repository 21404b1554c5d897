"""The renderer: a `RenderRequest` goes in, PNG files and `Picture` records come out.

Loading is in `imagegen.loading`, drawing in `imagegen.drawing`; here is what happens around
them: which model stays in memory, which files appear, what a picture tells of itself.
"""

from __future__ import annotations

import gc
import hashlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from imagegen.assembly import REINSTALL, WEIGHTS
from imagegen.carried import renewal
from imagegen.device import Dtype, environment, number_type
from imagegen.drawing import (
    Drawn,
    OnPreview,
    OnStep,
    Watch,
    draw,
    holds_drawings,
    keeps_colours,
    stop_if,
)
from imagegen.inpainting import Mask, nothing_to_keep, read_mask
from imagegen.loading import LOOM, Loaded, load_model
from imagegen.lora import Adapter, apply_adapters, find_adapter, triggered
from imagegen.png import AdapterNote, PngNote, encode_png, sidecar_of
from imagegen.samplers import check_sampler
from imagegen.start import SeedPicture, Start, start_of
from orbweave.errors import UsageError, shown
from orbweave.files import check_output, sha256_file, write_bytes, write_text
from orbweave.records import Picture, RenderRequest
from orbweave.thread_team import dismissing_team

if TYPE_CHECKING:
    from imagegen.sketch import Sketcher

__all__ = ["LOOM", "OnPreview", "OnStep", "Renderer"]

logger = logging.getLogger(__name__)


class Renderer:
    """Renders requests, one at a time; keeps the last model in memory."""

    def __init__(
        self,
        *,
        seed_picture: SeedPicture | None = None,
        dtype: Dtype = "auto",
        weights: Path = WEIGHTS,
        cache: Path | None = None,
    ) -> None:
        """Load nothing yet.

        Args:
            seed_picture: Draws structures; default: `imagegen.scene.seed_picture`.
            dtype: Number type of the weights; `auto` is bfloat16 where the processor
                multiplies it in hardware, else float32. It changes the pixels' last bits.
            weights: Folder with the embedded model's weights.
            cache: Where that model is assembled; default: Orbweave's cache folder.
        """
        self._seed_picture = seed_picture
        self._dtype = dtype
        self._weights = weights
        self._cache = cache
        self._loaded: Loaded | None = None
        self._sketcher: Sketcher | None = None
        self._misses_sketcher = False
        self._lock = threading.Lock()

    def render(
        self,
        request: RenderRequest,
        folder: Path,
        *,
        name: str = "seed-{seed:010d}",
        on_step: OnStep | None = None,
        on_preview: OnPreview | None = None,
        cancelled: Callable[[], bool] | None = None,
        init_image: Path | None = None,
        mask: Path | None = None,
        save_seed_picture: Path | None = None,
        sidecar: bool = False,
        force: bool = False,
    ) -> list[Picture]:
        """Render one PNG per seed of the request into `folder`.

        Files appear when all pictures are done, each whole or not at all.

        Args:
            request: What to render; with a structure, image-to-image on its seed picture.
            folder: Made if need be.
            name: File name without `.png`; a format with `{seed}` and perhaps `{index}`.
            on_step: Called after every denoising step.
            on_preview: Shown a thumbnail after every denoising step.
            cancelled: Asked before every step of a sketch and after every denoising step.
            init_image: A picture file to take the geometry from, instead of a structure;
                cropped around its middle to the request's proportions and scaled.
            mask: A picture file, white where the start is drawn anew and black where it is
                kept; fitted like `init_image`.
            save_seed_picture: Where to write the bare geometry as a PNG, if there is one.
            sidecar: Write the record into a `.json` beside each picture as well.
            force: Replace files that exist.

        Returns:
            One record per seed, in order; `path` is the file's path with `folder` in front.

        Raises:
            UsageError: the request fits no sampler, model or size, or no file name.
            ModelError: the model or an adapter is missing or damaged, or they do not fit.
            EngineError: the model gave no picture.
            OutputError: a file exists and `force` is off, or cannot be written.
            Cancelled: `cancelled` said so; no file was written.
        """
        paths = _target_paths(request, folder, name, sidecar=sidecar, force=force)
        if save_seed_picture is not None:
            check_output(save_seed_picture, force=force)
        check_sampler(request.scheduler)
        watch = Watch(on_step, on_preview, cancelled or (lambda: False))
        with self._lock, dismissing_team():
            stop_if(watch.cancelled)
            start = start_of(request, init_image, self._seed_picture)
            inside = _mask_of(mask, start, request)
            adapters = tuple(find_adapter(*adapter) for adapter in request.adapters)
            loaded = self._load(request, adapters)
            prompt = triggered(request.prompt, adapters)
            starts = self._starts(loaded, request, start, watch.cancelled)
            drawn = draw(loaded, request, prompt, starts, inside, watch)
        if save_seed_picture is not None and start.pixels is not None:
            write_bytes(save_seed_picture, encode_png(start.pixels, None), force=force)
        note = PngNote(
            request=request,
            geometry=start.geometry,
            strength=None if starts[0].pixels is None else request.strength,
            model_hash=loaded.sha256,
            adapters=tuple(
                AdapterNote(name=a.name, trigger=a.trigger, sha256=a.sha256) for a in adapters
            ),
            lost_words=drawn.lost_words,
            environment=self.environment(),
        )
        return [
            _write(
                path,
                drawn,
                i,
                note.model_copy(update={"geometry": _geometry(request, starts[i], mask, drawn)}),
                sidecar=sidecar,
                force=force,
            )
            for i, path in enumerate(paths)
        ]

    def environment(self) -> dict[str, str]:
        """Return what besides the request decides the pixels' last bits: versions, processor."""
        return environment(self._dtype)

    def _starts(
        self,
        loaded: Loaded,
        request: RenderRequest,
        start: Start,
        cancelled: Callable[[], bool],
    ) -> list[Start]:
        """Return what each picture starts from: what was given, else a sketch of the words."""
        from imagegen.sketch import load_sketcher
        from imagegen.sketched import sketched

        is_sketched = (
            start.pixels is None
            and holds_drawings(loaded, request)
            and not request.tile  # a sketch has edges that do not meet
            and int(request.steps * request.strength) >= 1
            and self._has_sketcher()
        )
        if not is_sketched:
            return [start] * len(request.seeds)
        if self._sketcher is None:
            self._sketcher = load_sketcher(self._weights)
        return sketched(request, self._sketcher, cancelled)

    def _has_sketcher(self) -> bool:
        """Whether words can be sketched; that they cannot is said once."""
        from imagegen.sketch import has_sketcher

        is_there = has_sketcher(self._weights)
        if not is_there and not self._misses_sketcher:
            logger.warning(
                "no sketch.json in %s: words alone are drawn from noise, where all motifs become "
                "irregular cells; put sketch.json and sketch.safetensors there, or %s",
                self._weights,
                REINSTALL,
            )
        self._misses_sketcher = not is_there
        return is_there

    def _load(self, request: RenderRequest, adapters: tuple[Adapter, ...]) -> Loaded:
        """Return the request's model with its adapters; the one in memory, if it is that."""
        known = self._loaded
        if known is None or (known.model, known.control) != (request.model, request.control):
            self._loaded = known = None  # frees the old model before the new one comes
            gc.collect()
            known = load_model(
                request.model,
                request.control,
                number_type(self._dtype),
                weights=self._weights,
                cache=self._cache,
            )
        self._loaded = None  # whose state is unknown if the adapters do not fit
        if known.adapters != adapters:
            apply_adapters(known.pipe, adapters, known.family.name)
            known.adapters = adapters
        self._loaded = known
        return known


def _target_paths(
    request: RenderRequest, folder: Path, name: str, *, sidecar: bool, force: bool
) -> list[Path]:
    """One path per seed, checked before the long work."""
    try:
        names = [name.format(seed=s, index=i) for i, s in enumerate(request.seeds)]
    except (KeyError, IndexError, ValueError, AttributeError) as err:
        raise UsageError(
            f"wanted a file name such as 'v0-seed-{{seed:010d}}', got {shown(name)}"
        ) from err
    if len(set(names)) < len(names) or any(n != Path(n).name or not n for n in names):
        raise UsageError(
            f"wanted a plain file name for each of the seeds {shown(request.seeds)}, "
            f"got {shown(names)}; give every seed once, and {{seed}} in the name"
        )
    paths = [folder / f"{n}.png" for n in names]
    for path in paths:
        check_output(path, force=force)
        if sidecar:
            check_output(sidecar_of(path), force=force)
    return paths


def _mask_of(mask: Path | None, start: Start, request: RenderRequest) -> Mask | None:
    if mask is None:
        return None
    if start.pixels is None:
        raise nothing_to_keep(mask)
    return read_mask(mask, request.width, request.height)


def _geometry(request: RenderRequest, start: Start, mask: Path | None, drawn: Drawn) -> str:
    """What the pictures started from, for the record."""
    told = [start.geometry]
    if drawn.is_held:
        has_colours = keeps_colours(request, start.drawn)
        told.append(f"fine detail{' and colours' if has_colours else ''} from the drawing")
        told.append(f"denoiser asked in full every {renewal(request.guidance)} time steps")
    if mask is not None:
        told.append(f"redrawn inside mask {mask.name}, sha256 {sha256_file(mask)}")
    return "; ".join(told)


def _write(
    path: Path, drawn: Drawn, index: int, note: PngNote, *, sidecar: bool, force: bool
) -> Picture:
    """Write one picture with its record."""
    seed = note.request.seeds[index]
    alone = note.request.model_copy(update={"seeds": (seed,)})
    own = note.model_copy(update={"request": alone})
    content = encode_png(drawn.pixels[index], own)
    write_bytes(path, content, force=force)
    if sidecar:
        write_text(sidecar_of(path), own.model_dump_json(indent=2) + "\n", force=force)
    return Picture(
        path=str(path),
        sha256=hashlib.sha256(content).hexdigest(),
        seed=seed,
        lost_words=note.lost_words,
        seconds=drawn.seconds[index],
        request=alone,
    )
