"""What the code must know of a family of models; everything else is read from its pipeline.

A family is named by the pipeline class in a model's `model_index.json`. A class that is not
listed renders from words alone, by whatever its call accepts.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["FAMILIES", "Family", "family_of"]


class Family(NamedTuple):
    """One row of the table."""

    name: str
    """As people say it."""
    from_picture: str | None = None
    """Pipeline class that starts from a picture; None if there is none."""
    control_net: str | None = None
    """Class of its ControlNets."""
    controlled: str | None = None
    """Pipeline class with a ControlNet that starts from a picture."""
    starts_from_noise: bool = False
    """Whether `controlled` cannot start from the picture, only be held to it."""
    reads_in_chunks: bool = False
    """Whether a long prompt can be encoded piece by piece, and single words be weighted: true
    where the denoiser attends to each token's state, whatever their number."""
    tiles: bool = False
    """Whether it is made of convolutions, whose edges can be joined; transformers know where in
    the picture they are."""
    patch: int = 1
    """Latent pixels that become one token; sides are multiples of it times the VAE's factor."""


FAMILIES: dict[str, Family] = {
    "StableDiffusionPipeline": Family(
        "Stable Diffusion",
        from_picture="StableDiffusionImg2ImgPipeline",
        control_net="ControlNetModel",
        controlled="StableDiffusionControlNetImg2ImgPipeline",
        reads_in_chunks=True,
        tiles=True,
    ),
    "StableDiffusionInpaintPipeline": Family(
        "Stable Diffusion for inpainting", reads_in_chunks=True, tiles=True
    ),
    "StableDiffusionXLInpaintPipeline": Family(
        "Stable Diffusion XL for inpainting", reads_in_chunks=True, tiles=True
    ),
    "StableDiffusionXLPipeline": Family(
        "Stable Diffusion XL",
        from_picture="StableDiffusionXLImg2ImgPipeline",
        control_net="ControlNetModel",
        controlled="StableDiffusionXLControlNetImg2ImgPipeline",
        reads_in_chunks=True,
        tiles=True,
    ),
    "StableDiffusion3Pipeline": Family(
        "Stable Diffusion 3",
        from_picture="StableDiffusion3Img2ImgPipeline",
        control_net="SD3ControlNetModel",
        controlled="StableDiffusion3ControlNetPipeline",
        starts_from_noise=True,
        patch=2,
    ),
    "FluxPipeline": Family(
        "FLUX",
        from_picture="FluxImg2ImgPipeline",
        control_net="FluxControlNetModel",
        controlled="FluxControlNetImg2ImgPipeline",
        patch=2,
    ),
}


def family_of(pipeline: str) -> Family:
    """Return the family of a pipeline class; one without a row keeps its class name."""
    return FAMILIES.get(pipeline, Family(pipeline))
