"""From a loaded model and a request to pixels, one picture at a time.

Every picture has a generator of its own on the CPU and is drawn alone, so that picture 3 of 4
can be made again without the others: in a batch the last bits depend on the neighbours.

Where a picture is held to its drawing, most of the work would be to ask again what has hardly
changed from one step to the next. That is carried over, see `imagegen.carried`.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np

from imagegen.carried import carrying, renewal
from imagegen.detail import recoloured, restored
from imagegen.inpainting import Mask, Outside, joined
from imagegen.latent_space import encoded_once, given_back, unpacked
from imagegen.loading import LOOM, Loaded
from imagegen.prompt_embedding import prompt_input
from imagegen.prompt_window import without_known_notices
from imagegen.samplers import sampler_config
from imagegen.start import Pixels, Start
from imagegen.tiling import check_tiles, wrapping
from orbweave.errors import Cancelled, EngineError, UsageError, shown
from orbweave.records import RenderRequest, Structure

__all__ = [
    "Drawn",
    "OnPreview",
    "OnStep",
    "Watch",
    "check_steps",
    "draw",
    "holds_drawings",
    "keeps_colours",
    "stop_if",
]

logger = logging.getLogger(__name__)

ALONE_PX = 256 * 256
"""Pixels up to which a picture that carries over is computed by one thread in bfloat16: its
products are so quick that a second core mostly waits for the next one, and it waits by spinning.
In float32 they are worth sharing: 0.64 s instead of 1.01 on two cores."""

OnStep = Callable[[int, int], None]
"""Is told how many denoising steps of all pictures are done, and how many there are."""
OnPreview = Callable[[Pixels], None]
"""Is shown a thumbnail (h, w, 3) of the unfinished picture after every step."""


class Watch(NamedTuple):
    """Who is told of a rendering while it goes on, and who may stop it."""

    on_step: OnStep | None
    on_preview: OnPreview | None
    cancelled: Callable[[], bool]


class Drawn(NamedTuple):
    """The pictures of a request, not yet written."""

    pixels: list[Pixels]
    seconds: list[float]
    lost_words: tuple[str, ...]
    is_held: bool
    """Whether they follow a drawing line by line: then what the autoencoder and the denoiser
    lose of it was put back, see `imagegen.detail`, and most steps were carried over, see
    `imagegen.carried`."""


def stop_if(cancelled: Callable[[], bool]) -> None:
    """Raise Cancelled if somebody asked to stop."""
    if cancelled():
        raise Cancelled("the rendering was stopped by request; no picture was kept")


def draw(
    loaded: Loaded,
    request: RenderRequest,
    prompt: str,
    starts: Sequence[Start],
    mask: Mask | None,
    watch: Watch,
) -> Drawn:
    """Draw one picture per seed.

    Args:
        loaded: The request's model, its adapters laid over it.
        request: What to draw.
        prompt: Its prompt with the adapters' trigger words.
        starts: What each picture starts from, as large as the request; all from noise alone, or
            none.
        mask: Where they are drawn anew; None everywhere.
        watch: Is told of every step, and asked whether to go on.

    Raises:
        UsageError: the request fits no model, size or sampler.
        EngineError: the model gave no picture.
        Cancelled: as `watch` said.
    """
    from_words = starts[0].pixels is None
    pipe = loaded.pipe if from_words else loaded.from_picture
    if pipe is None:
        raise UsageError(
            f"wanted a geometry for {shown(request.model)}, but {loaded.family.name} "
            "starts from text only; leave the structure out"
        )
    _check(loaded, pipe, request, from_words=from_words)
    sampler = sampler_config(request.scheduler, loaded.scheduler)
    loaded.place(pipe)
    is_held = starts[0].drawn is not None and holds_drawings(loaded, request)
    is_quick = is_held and pipe.unet.dtype.itemsize < 4
    is_small = is_quick and request.width * request.height <= ALONE_PX
    with (
        _in_one_thread() if is_small else nullcontext(),
        wrapping(pipe) if request.tile else nullcontext(),
        nullcontext() if from_words else encoded_once(pipe),
    ):
        with without_known_notices(type(pipe).__module__):
            words = prompt_input(
                pipe, loaded.family, prompt, request.negative_prompt, request.guidance
            )
        drawn = Drawn([], [], words.lost_words, is_held)
        shown_again: tuple[Pixels, Any] | None = None
        for seed, (start, _, structure) in zip(request.seeds, starts, strict=True):
            stop_if(watch.cancelled)
            began = time.perf_counter()
            options = words.options | _call_options(loaded, pipe, request, start, mask)
            outside = None
            if start is not None and mask is not None and "mask_image" not in options:
                outside = Outside(pipe, start, mask, seed)
            done = len(drawn.pixels), len(request.seeds)
            options["callback_on_step_end"] = _after_step(loaded, request, watch, done, outside)
            with carrying(pipe, renewal(request.guidance)) if is_held else nullcontext():
                pixels = _one(pipe, sampler, seed, options)
            if start is not None and is_held:
                if shown_again is None or shown_again[0] is not start:
                    shown_again = start, given_back(pipe, start)
                pixels = restored(pixels, *shown_again)
                if keeps_colours(request, structure):
                    pixels = recoloured(pixels, start)
            if start is not None and mask is not None:
                pixels = joined(pixels, start, mask)
            drawn.pixels.append(pixels)
            drawn.seconds.append(time.perf_counter() - began)
    return drawn


def holds_drawings(loaded: Loaded, request: RenderRequest) -> bool:
    """Whether pictures follow what they start from line by line, if that is a drawing.

    Then the drawing's detail belongs there, and little changes between two steps. Only the
    embedded model's autoencoder is so small, and its ControlNet was made for drawings.
    """
    is_held = loaded.is_controlled and request.control is None and request.control_scale > 0
    return loaded.model == LOOM and is_held


def keeps_colours(request: RenderRequest, structure: Structure | None) -> bool:
    """Whether pictures that follow a drawing of `structure` have its colours too.

    Other lights have colours of their own, and a style that was trained may have too.
    """
    return structure is not None and structure.light == "soft" and not request.adapters


def check_steps(request: RenderRequest) -> None:
    """Raise UsageError if what a picture starts from would stay as it is, for want of a step."""
    if int(request.steps * request.strength) < 1:
        raise UsageError(
            f"wanted at least one step on the structure, got {request.steps} steps x "
            f"strength {request.strength}; take more of either"
        )


@contextmanager
def _in_one_thread() -> Iterator[None]:
    """Compute without helpers in this thread; other threads keep theirs."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.get_num_threads()  # or torch would set its own number at this thread's first product
    with threadpool_limits(1, user_api="openmp"):
        yield


def _check(loaded: Loaded, pipe: Any, request: RenderRequest, *, from_words: bool) -> None:
    """Refuse what the family cannot do, before the long work."""
    family = loaded.family
    if request.tile:
        check_tiles(family)
        if not from_words:
            logger.warning("a seam may stay: what the tile starts from has edges that do not meet")
    multiple = getattr(pipe, "vae_scale_factor", 8) * family.patch
    if request.width % multiple or request.height % multiple:
        raise UsageError(
            f"wanted sides divisible by {multiple} for {family.name}, "
            f"got {request.width}x{request.height}"
        )
    if request.control is not None and from_words:
        raise UsageError(
            f"wanted a geometry for the ControlNet {shown(request.control)}, got words alone; "
            "give a structure or a picture, or leave the ControlNet out"
        )
    if from_words:
        return
    if family.starts_from_noise and loaded.is_controlled and request.strength < 1:
        raise UsageError(
            f"wanted strength 1 with a ControlNet of {family.name}, which draws from noise and "
            f"only follows the geometry; got {request.strength}"
        )
    check_steps(request)


def _call_options(
    loaded: Loaded, pipe: Any, request: RenderRequest, start: Pixels | None, mask: Mask | None
) -> dict[str, Any]:
    """Arguments of the pipeline call besides the words, for what this family understands."""
    from PIL import Image

    accepted = inspect.signature(type(pipe).__call__).parameters
    options: dict[str, Any] = {
        "num_inference_steps": request.steps,
        "guidance_scale": request.guidance,
    }
    if start is None or "height" in accepted:
        options |= {"width": request.width, "height": request.height}
    if start is None:
        return options
    drawing = [Image.fromarray(start)]
    if "image" in accepted:
        options |= {"image": drawing, "strength": request.strength}
    if "control_image" in accepted:
        scale = request.control_scale
        options |= {"control_image": drawing, "controlnet_conditioning_scale": scale}
    if "mask_image" in accepted:  # a model made for inpainting; all of it, where nothing is said
        whole = np.ones(start.shape[:2], np.float32) if mask is None else mask
        options["mask_image"] = [Image.fromarray((whole * 255).astype(np.uint8))]
    return options


def _after_step(
    loaded: Loaded,
    request: RenderRequest,
    watch: Watch,
    done: tuple[int, int],
    outside: Outside | None,
) -> Callable[..., dict[str, Any]]:
    """What happens after every step of a picture, `done` being its number and how many come."""
    picture, n_pictures = done

    def after_step(pipe: Any, i: int, _t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        import torch

        latents = tensors["latents"]
        if not torch.isfinite(latents).all():
            raise EngineError(
                f"wanted a picture, at step {i + 1} the model gave numbers that are not finite; "
                "try another sampler, less guidance, or --dtype float32"
            )
        if outside is not None:
            latents = outside.kept(pipe, i, latents)
        if watch.on_step is not None:
            n = int(pipe.num_timesteps)
            watch.on_step(picture * n + i + 1, n_pictures * n)
        if watch.on_preview is not None:
            grid = unpacked(pipe, latents, request.width, request.height)
            watch.on_preview(loaded.preview()(grid))
        # Setting pipe._interrupt would still decode the latents; this leaves at once.
        stop_if(watch.cancelled)
        return {"latents": latents}

    return after_step


def _one(pipe: Any, sampler: tuple[str, dict[str, Any]], seed: int, options: Any) -> Pixels:
    """Denoise and decode one picture, (H, W, 3) uint8."""
    import diffusers
    import torch

    scheduler, config = sampler
    # A fresh one per picture: schedulers keep a history of steps.
    pipe.scheduler = getattr(diffusers, scheduler).from_config(config)
    generator = [torch.Generator("cpu").manual_seed(seed)]
    try:
        with without_known_notices(type(pipe).__module__), torch.inference_mode():
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
            "wanted a picture, the decoder gave numbers that are not finite; "
            "try another sampler, less guidance, or --dtype float32"
        )
    pixels: Pixels = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    return pixels
