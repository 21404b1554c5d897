"""Colours and light: a look is "MATERIAL on GROUND" or "MATERIAL and MATERIAL on GROUND"."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from imagegen.canvas import Array, Canvas, Relief, waves
from orbweave.errors import UsageError, shown

__all__ = ["GROUNDS", "LOOKS", "MATERIALS", "Look", "flat", "ink_of", "parse_look", "shade"]

Rgb = tuple[int, int, int]

MATERIALS: dict[str, tuple[Rgb, Rgb, Rgb]] = {
    # dark, middle, light
    "golden": ((96, 52, 4), (218, 158, 32), (255, 232, 140)),
    "amber": ((92, 36, 6), (206, 112, 24), (255, 190, 96)),
    "copper": ((70, 24, 12), (184, 94, 58), (246, 176, 140)),
    "red": ((80, 8, 10), (196, 40, 38), (250, 134, 118)),
    "pink": ((112, 26, 66), (222, 112, 160), (255, 198, 220)),
    "purple": ((48, 16, 84), (136, 76, 190), (214, 170, 250)),
    "blue": ((10, 28, 92), (44, 104, 214), (150, 198, 255)),
    "teal": ((4, 58, 64), (30, 158, 160), (152, 236, 226)),
    "green": ((14, 56, 14), (70, 150, 44), (176, 224, 112)),
    "lime": ((58, 88, 8), (160, 200, 40), (228, 246, 140)),
    "cream": ((120, 96, 66), (226, 206, 166), (255, 246, 222)),
    "white": ((116, 122, 132), (226, 230, 234), (255, 255, 255)),
    "silver": ((66, 76, 90), (164, 178, 194), (232, 240, 248)),
    "grey": ((40, 40, 42), (142, 142, 144), (232, 232, 232)),
    "pearl": ((108, 100, 136), (212, 206, 222), (255, 248, 244)),
}
GROUNDS: dict[str, tuple[Rgb, Rgb]] = {
    # far, near
    "black": ((4, 4, 6), (16, 16, 20)),
    "navy": ((6, 12, 36), (18, 32, 72)),
    "brown": ((30, 16, 8), (64, 38, 20)),
    "dark green": ((6, 22, 10), (18, 52, 22)),
    "green": ((24, 84, 30), (52, 122, 48)),
    "teal": ((4, 44, 52), (14, 84, 90)),
    "red": ((64, 8, 12), (112, 22, 24)),
    "grey": ((72, 74, 78), (112, 114, 118)),
    "cream": ((220, 204, 172), (242, 232, 208)),
    "white": ((228, 230, 232), (250, 250, 250)),
}
LOOKS: tuple[str, ...] = (
    "golden on black",
    "white on black",
    "silver on navy",
    "green on dark green",
    "lime on green",
    "amber on brown",
    "pink on white",
    "grey on black",
    "cream on red",
    "pearl on navy",
    "teal on navy",
    "copper on black",
    "purple on black",
    "blue on white",
)


class Look(NamedTuple):
    """Colours as float32 arrays in [0, 1]."""

    name: str
    first: Array
    """Shape (3, 3): dark, middle, light by rgb."""
    second: Array
    """The other motif's material, where two meet; the same where one is named."""
    ground: Array
    """Shape (2, 3): far, near by rgb."""


def parse_look(name: str) -> Look:
    """Return the look `MATERIAL [and MATERIAL] on GROUND`.

    Raises:
        UsageError: an unknown material or ground.
    """
    materials, _, ground = name.partition(" on ")
    first, _, second = materials.partition(" and ")
    second = second or first
    if first not in MATERIALS or second not in MATERIALS or ground not in GROUNDS:
        raise UsageError(
            f"wanted a look 'MATERIAL [and MATERIAL] on GROUND', got {shown(name)}; materials: "
            f"{', '.join(MATERIALS)}; grounds: {', '.join(GROUNDS)}"
        )
    return Look(
        name,
        np.array(MATERIALS[first], np.float32) / 255,
        np.array(MATERIALS[second], np.float32) / 255,
        np.array(GROUNDS[ground], np.float32) / 255,
    )


def _ramp(ink: Array, t: Array) -> Array:
    """Colour (H, W, 3) at t (H, W) in [0, 1] along three colours, ink (..., 3, 3)."""
    t = np.clip(t, 0, 1)[..., None]
    dark, middle, light = ink[..., 0, :], ink[..., 1, :], ink[..., 2, :]
    low = dark + (middle - dark) * np.minimum(t * 2, 1)
    high: Array = (light - middle) * np.maximum(t * 2 - 1, 0)
    return low + high


def ink_of(look: Look, owner: Array | None) -> Array:
    """The material per picture (3, 3), or per pixel (H, W, 3, 3) where two motifs meet."""
    if owner is None or look.first is look.second:
        return look.first
    return look.first + (look.second - look.first) * owner[..., None, None]


def _bytes(rgb: Array) -> NDArray[np.uint8]:
    return (np.clip(rgb, 0, 1) * 255 + 0.5).astype(np.uint8)


def flat(relief: Relief, ink: Array, look: Look) -> NDArray[np.uint8]:
    """Paint the bare geometry: one colour per material, no light. (H, W, 3) uint8."""
    colour = _ramp(ink, 0.25 + 0.5 * relief.tone)
    ground = look.ground.mean(0)
    return _bytes(ground + (colour - ground) * relief.cover[..., None])


def shade(
    c: Canvas, relief: Relief, ink: Array, look: Look, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Paint a structure as a lit micrograph: light, shine, hollows, texture, grain.

    Args:
        c: The canvas it was drawn on.
        relief: What to paint.
        ink: Three colours (3, 3) or, per pixel, (H, W, 3, 3) when two materials meet.
        look: Gives the ground.
        rng: Decides the light's direction and the texture.

    Returns:
        (H, W, 3) uint8.
    """
    h = gaussian_filter(relief.height, 0.6 / c.pixel)
    gy, gx = np.gradient(h, np.float32(c.pixel))
    steep = np.float32(rng.uniform(4.0, 6.5))
    a = rng.uniform(0.5, 1.1) * np.pi  # from the upper left, mostly
    lx, ly, lz = np.float32(np.cos(a) * 0.62), np.float32(np.sin(a) * 0.62), np.float32(0.78)
    norm = 1 / np.sqrt(1 + (steep * gx) ** 2 + (steep * gy) ** 2)
    # Rows run downwards, so the surface rises along y where gy is negative.
    light = np.clip((-steep * gx * lx + steep * gy * ly + lz) * norm, 0, 1)
    hollow = np.clip(h - gaussian_filter(h, 5 / c.pixel), -0.5, 0.5)
    texture = waves(c.x, c.y, rng.uniform(5, 9), rng, 7) * np.float32(0.035)
    level = 0.1 + 0.42 * light + 0.38 * relief.tone * light + 0.35 * hollow + texture
    shine = np.clip(light - 0.86, 0, 1) * np.float32(rng.uniform(1.0, 2.6))
    colour = _ramp(ink, level) + (shine * relief.height)[..., None]
    near = np.clip(0.5 + 0.3 * waves(c.x, c.y, c.extent * 0.9, rng, 3), 0, 1)
    shadow = 1 - 0.4 * np.clip(gaussian_filter(relief.cover, 3.5 / c.pixel), 0, 1)
    # A flat tone inside cells shows depth without material.
    ground = look.ground[0] + (look.ground[1] - look.ground[0]) * (near * shadow)[..., None]
    picture = ground + (colour - ground) * relief.cover[..., None]
    r2 = (c.x**2 + c.y**2) / np.float32(c.extent**2 / 2)
    picture = picture * (1 - np.float32(0.22) * r2)[..., None]
    grain = rng.normal(0, 0.008, picture.shape[:2]).astype(np.float32)
    return _bytes(picture + grain[..., None])
