"""Stable Diffusion pipelines: the one file that touches diffusers.

A `RenderRequest` goes in, PNG files and `Picture` records come out. Every picture has a
generator of its own on the CPU and is rendered alone, so that picture 3 of 4 can be made
again without the others: in a batch the last bits of a picture depend on its neighbours.
"""

from __future__ import annotations

import gc
import hashlib
import inspect
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imagegen.assembly import CONTROLNET, WEIGHTS, assembled
from imagegen.device import Dtype, device, environment, number_type
from imagegen.png import PngNote, encode_png
from imagegen.prompt_window import lost_words, without_truncation_notices
from imagegen.samplers import check_sampler, sampler_config
from imagegen.start import Pixels, SeedPicture, start_of
from orbweave.errors import Cancelled, EngineError, ModelError, UsageError, shown
from orbweave.files import check_output, write_bytes
from orbweave.models import resolve
from orbweave.records import Picture, RenderRequest
from orbweave.weights import hash_weights

__all__ = ["LOOM", "OnStep", "Renderer"]

logger = logging.getLogger(__name__)

LOOM = "loom"
"""Name of the embedded image model."""

OnStep = Callable[[int, int], None]
"""Is told how many denoising steps of all pictures are done, and how many there are."""


class _Loaded(NamedTuple):
    """A model in memory."""

    model: str
    pipe: Any
    """Text to image."""
    from_picture: Any
    """Image to image with the same components, and with the model's ControlNet if it has one;
    None if the family has none."""
    scheduler: dict[str, Any]
    """Configuration of the scheduler the model was trained with."""
    sha256: str


class _Made(NamedTuple):
    """One rendered picture, not yet written."""

    pixels: Pixels
    seconds: float


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
        self._loaded: _Loaded | None = None
        self._lock = threading.Lock()

    def render(
        self,
        request: RenderRequest,
        folder: Path,
        *,
        name: str = "seed-{seed:010d}",
        on_step: OnStep | None = None,
        cancelled: Callable[[], bool] | None = None,
        init_image: Path | None = None,
        save_seed_picture: Path | None = None,
        force: bool = False,
    ) -> list[Picture]:
        """Render one PNG per seed of the request into `folder`.

        Files appear when all pictures are done, each whole or not at all.

        Args:
            request: What to render; with a structure, image-to-image on its seed picture.
            folder: Made if need be.
            name: File name without `.png`; a format with `{seed}` and perhaps `{index}`.
            on_step: Called after every denoising step.
            cancelled: Asked after every denoising step.
            init_image: A picture file to take the geometry from, instead of a structure;
                cropped around its middle to the request's proportions and scaled.
            save_seed_picture: Where to write the bare geometry as a PNG, if there is one.
            force: Replace files that exist.

        Returns:
            One record per seed, in order; `path` is the file's path with `folder` in front.

        Raises:
            UsageError: the request fits no sampler, model or size, or no file name.
            ModelError: the model is missing or damaged.
            EngineError: the model gave no picture.
            OutputError: a file exists and `force` is off, or cannot be written.
            Cancelled: `cancelled` said so; no file was written.
        """
        paths = _target_paths(request, folder, name, force=force)
        if save_seed_picture is not None:
            check_output(save_seed_picture, force=force)
        check_sampler(request.scheduler)
        stop = cancelled or (lambda: False)
        with self._lock:
            _stop_if(stop)
            start = start_of(request, init_image, self._seed_picture)
            loaded = self._load(request.model)
            tokenizers = [getattr(loaded.pipe, part, None) for part in _TOKENIZERS]
            lost = lost_words(tokenizers, request)
            done = _all_pixels(loaded, request, start.pixels, on_step, stop)
        if save_seed_picture is not None and start.pixels is not None:
            write_bytes(save_seed_picture, encode_png(start.pixels, None), force=force)
        note = PngNote(
            request=request,
            geometry=start.geometry,
            strength=None if start.pixels is None else request.strength,
            model_hash=loaded.sha256,
            lost_words=lost,
            environment=self.environment(),
        )
        return [
            _write(path, made, note, seed, force=force)
            for path, made, seed in zip(paths, done, request.seeds, strict=True)
        ]

    def environment(self) -> dict[str, str]:
        """Return what besides the request decides the pixels' last bits: versions, processor."""
        return environment(self._dtype)

    def _load(self, model: str) -> _Loaded:
        if self._loaded is not None and self._loaded.model == model:
            return self._loaded
        self._loaded = None  # frees the old model before the new one comes
        gc.collect()
        if model == LOOM:
            folder, sha256 = assembled(weights=self._weights, cache=self._cache)
        else:
            folder = resolve(model, "image", logger.info)
            sha256 = hash_weights(folder)
        self._loaded = _load_folder(model, folder, sha256, number_type(self._dtype))
        return self._loaded


def _target_paths(request: RenderRequest, folder: Path, name: str, *, force: bool) -> list[Path]:
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
    return paths


def _write(path: Path, made: _Made, note: PngNote, seed: int, *, force: bool) -> Picture:
    """Write one picture with its record."""
    alone = note.request.model_copy(update={"seeds": (seed,)})
    content = encode_png(made.pixels, note.model_copy(update={"request": alone}))
    write_bytes(path, content, force=force)
    return Picture(
        path=str(path),
        sha256=hashlib.sha256(content).hexdigest(),
        seed=seed,
        lost_words=note.lost_words,
        seconds=made.seconds,
        request=alone,
    )


def _stop_if(stop: Callable[[], bool]) -> None:
    if stop():
        raise Cancelled("the rendering was stopped by request; no picture was kept")


def _all_pixels(
    loaded: _Loaded,
    request: RenderRequest,
    start: Pixels | None,
    on_step: OnStep | None,
    stop: Callable[[], bool],
) -> list[_Made]:
    """Render the seeds one by one."""
    pipe = loaded.pipe if start is None else loaded.from_picture
    if pipe is None:
        raise UsageError(
            f"wanted a geometry for {shown(request.model)}, but {type(loaded.pipe).__name__} "
            "starts from text only; leave the structure out"
        )
    options = _call_options(pipe, request, start)
    sampler = sampler_config(request.scheduler, loaded.scheduler)
    results: list[_Made] = []

    def after_step(pipe: Any, i: int, _t: Any, _tensors: Any) -> dict[str, Any]:
        if on_step is not None:
            n = int(pipe.num_timesteps)
            on_step(len(results) * n + i + 1, len(request.seeds) * n)
        # Setting pipe._interrupt would still decode the latents; this leaves at once.
        _stop_if(stop)
        return {}

    options["callback_on_step_end"] = after_step
    for seed in request.seeds:
        _stop_if(stop)
        began = time.perf_counter()
        pixels = _render_one(pipe, sampler, seed, options)
        results.append(_Made(pixels, time.perf_counter() - began))
    return results


# --------------------------------------------------------------------- around diffusers


_IMAGE_TO_IMAGE = {
    "StableDiffusionPipeline": "StableDiffusionImg2ImgPipeline",
    "StableDiffusionXLPipeline": "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusion3Pipeline": "StableDiffusion3Img2ImgPipeline",
    "FluxPipeline": "FluxImg2ImgPipeline",
}
"""diffusers' own AutoPipeline knows them too, but imports every pipeline there is."""
_GUIDED = {
    "StableDiffusionPipeline": ("ControlNetModel", "StableDiffusionControlNetImg2ImgPipeline"),
    "StableDiffusionXLPipeline": ("ControlNetModel", "StableDiffusionXLControlNetImg2ImgPipeline"),
    "FluxPipeline": ("FluxControlNetModel", "FluxControlNetImg2ImgPipeline"),
}
"""The same with a ControlNet, which lies in the model's folder."""

_TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")


def _load_folder(model: str, folder: Path, sha256: str, dtype: str) -> _Loaded:
    """Load a diffusers folder; only safetensors, nothing from the net."""
    import torch

    with _quiet_loading():
        import diffusers

        try:
            load: Any = diffusers.DiffusionPipeline.from_pretrained
            pipe = load(
                str(folder),
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                local_files_only=True,
            )
            pipe.to(device())
            from_picture = _from_picture(pipe, folder)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError) as err:
            raise ModelError(
                f"wanted a diffusers model in {folder}, got one that does not load "
                f"({shown(err, 200)}); fetch it again, or use {LOOM}, which needs no net"
            ) from err
    for each in (pipe, from_picture):
        if each is not None:
            each.set_progress_bar_config(disable=True)
    logger.info("loaded the image model %s in %s on %s", model, dtype, device())
    return _Loaded(model, pipe, from_picture, dict(pipe.scheduler.config), sha256)


def _from_picture(pipe: Any, folder: Path) -> Any:
    """Return the image-to-image pipeline of a model's components; None if there is none."""
    import diffusers

    family, beside = type(pipe).__name__, {}
    other = _IMAGE_TO_IMAGE.get(family)
    if family in _GUIDED and (folder / CONTROLNET).is_dir():
        net, other = _GUIDED[family]
        load: Any = getattr(diffusers, net).from_pretrained
        beside["controlnet"] = load(
            str(folder / CONTROLNET), torch_dtype=pipe.dtype, use_safetensors=True,
            local_files_only=True,
        ).to(device())  # fmt: skip
    if other is None:
        return None
    build: Any = getattr(diffusers, other)
    accepted = inspect.signature(build.__init__).parameters
    parts = {k: v for k, v in pipe.components.items() if k in accepted}
    flags = {k: v for k, v in pipe.config.items() if k in accepted and k not in parts}
    return build(**parts, **beside, **flags)


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """Keep the libraries' bars and notices about optional packages off the terminal."""
    from diffusers.utils import logging as ours
    from transformers.utils import logging as theirs

    levels = ours.get_verbosity(), theirs.get_verbosity()
    bars = ours.is_progress_bar_enabled(), theirs.is_progress_bar_enabled()
    for library in (ours, theirs):
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, level, bar in zip((ours, theirs), levels, bars, strict=True):
            library.set_verbosity(level)
            if bar:
                library.enable_progress_bar()


def _render_one(pipe: Any, sampler: tuple[str, dict[str, Any]], seed: int, options: Any) -> Pixels:
    """Denoise and decode one picture, (H, W, 3) uint8."""
    import diffusers
    import torch

    scheduler, config = sampler
    # A fresh one per picture: schedulers keep a history of steps.
    pipe.scheduler = getattr(diffusers, scheduler).from_config(config)
    generator = [torch.Generator("cpu").manual_seed(seed)]
    try:
        with without_truncation_notices(type(pipe).__module__), torch.inference_mode():
            result = pipe(generator=generator, output_type="np", **options)
    except ValueError as err:
        raise UsageError(
            f"wanted a picture with {scheduler}, the model refused: {shown(err, 200)}"
        ) from err
    except RuntimeError as err:
        raise EngineError(
            f"wanted a picture, the model failed: {shown(err, 200)}; try a smaller one"
        ) from err
    if any(getattr(result, "nsfw_content_detected", None) or ()):
        raise EngineError(
            "wanted a picture, the model's safety checker withheld it; try another seed or prompt"
        )
    image = result.images[0]
    if not np.isfinite(image).all():
        raise EngineError(
            "wanted a picture, the model gave numbers that are not finite; "
            "try another sampler, less guidance, or float32"
        )
    pixels: Pixels = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    return pixels


def _call_options(pipe: Any, request: RenderRequest, start: Pixels | None) -> dict[str, Any]:
    """Arguments of the pipeline call, for what this family of models understands."""
    accepted = inspect.signature(type(pipe).__call__).parameters
    options: dict[str, Any] = {
        "prompt": [request.prompt],
        "num_inference_steps": request.steps,
        "guidance_scale": request.guidance,
    }
    if request.negative_prompt:
        # FLUX is guided by a learned number and knows a negative prompt only beside that.
        knows = "negative_prompt" in accepted and "true_cfg_scale" not in accepted
        if knows and request.guidance > 1:
            options["negative_prompt"] = [request.negative_prompt]
        else:
            why = "it needs a guidance above 1" if knows else "this model has none"
            logger.warning("the negative prompt has no effect: %s", why)
    if start is None or "height" in accepted:
        options |= {"width": request.width, "height": request.height}
    if start is not None:
        from PIL import Image

        if int(request.steps * request.strength) < 1:
            raise UsageError(
                f"wanted at least one step on the structure, got {request.steps} steps x "
                f"strength {request.strength}; take more of either"
            )
        drawing = Image.fromarray(start)
        options |= {"image": [drawing], "strength": request.strength}
        if "control_image" in accepted:
            options |= {"control_image": [drawing], "controlnet_conditioning_scale": 1.0}
    return options
