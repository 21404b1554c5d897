"""Colours and light: a look is "MATERIAL on GROUND" or "MATERIAL and MATERIAL on GROUND"."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imagegen.canvas import Array, Canvas, Relief, blur, moved, waves
from orbweave.errors import UsageError, shown
from orbweave.records import Light

__all__ = ["GROUNDS", "LOOKS", "MATERIALS", "Look", "flat", "ink_of", "parse_look", "shade"]

Rgb = tuple[int, int, int]
LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
"""Share of red, green and blue in brightness. Source: ITU-R BT.709."""
WARMTH = np.array([0.085, 0.01, -0.095], np.float32)
"""What fully warm light adds to red, green and blue; cool light takes it away."""
GROUND_TOP = 2.4
"""Brightest ground, counted from far (0) over near (1)."""
STEPS = 1024
"""Rows of a table of colours; a picture has 256 levels."""

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


class _Surface(NamedTuple):
    """What every light falls on: maps (size, size), lengths in units of the canvas."""

    c: Canvas
    cover: Array
    tone: Array
    z: Array
    """Height of the material, 0 on the ground."""
    half: float
    """Typical half width of the parts, which is also how high they stand."""
    normal: tuple[Array, Array, Array]
    """Components to the right, upwards in the picture, and towards the viewer."""
    gap: Array
    """How deep a point lies below its surroundings, about [0, 0.7]."""
    mottle: Array
    """Fine texture of about unit variance."""
    drift: Array
    """Slow change from one side of the picture to the other, about [-1, 1]."""


class _Paint(NamedTuple):
    """What a light makes of a surface, before its colours."""

    level: Array
    """Place of the material on its ramp from dark (0) to light (1)."""
    ground: Array
    """Brightness of the ground: 0 is far, 1 near, beyond it lighter still."""
    shine: Array | None = None
    """White light added to everything."""
    tint: tuple[Array, Array] | None = None
    """Warmth and brightness of the light, about [-1, 1] and about 1."""
    glow: Array | None = None
    """Light of the material's own colour added to the ground."""
    saturation: float = 1.0
    grain: float = 0.008


def _surface(c: Canvas, relief: Relief, rng: np.random.Generator) -> _Surface:
    cover = relief.cover
    gy, gx = np.gradient(cover, np.float32(c.pixel))
    # A strip of width w and length l has the area w l and an outline of 2 l.
    half = float(np.clip(cover.sum() / (np.hypot(gx, gy).sum() + 1e-3), 1.2, 12))
    z = blur(relief.height, 0.55 / c.pixel) * np.float32(half)
    gy, gx = np.gradient(z, np.float32(c.pixel))
    nz = 1 / np.sqrt(1 + gx * gx + gy * gy)
    around = 0.6 * blur(z, 1.2 * half / c.pixel + 1) + 0.4 * blur(z, 3.5 * half / c.pixel + 2)
    gap = np.maximum(around - z, 0) / np.float32(half)
    noise = rng.standard_normal(cover.shape, dtype=np.float32)
    mottle = 1.3 * blur(noise, 0.7) + 3.5 * blur(noise, 2.0)
    drift = np.tanh(waves(c.x[::8, ::8], c.y[::8, ::8], c.extent * 1.1, rng, 3))
    drift = blur(np.repeat(np.repeat(drift, 8, 0), 8, 1)[: len(cover), : len(cover)], 8)
    return _Surface(c, cover, relief.tone, z, half, (-gx * nz, gy * nz, nz), gap, mottle, drift)


def _towards(turn: float, elevation: float) -> tuple[np.float32, np.float32, np.float32]:
    """Direction to a light: turn anticlockwise from the right, both in degrees."""
    a, e = np.deg2rad(turn), np.deg2rad(elevation)
    return (
        np.float32(np.cos(a) * np.cos(e)),
        np.float32(np.sin(a) * np.cos(e)),
        np.float32(np.sin(e)),
    )


def _lambert(s: _Surface, to: tuple[np.float32, np.float32, np.float32]) -> Array:
    """Cosine between the surface and a light, 0 where it is turned away."""
    cos: Array = s.normal[0] * to[0] + s.normal[1] * to[1] + s.normal[2] * to[2]
    return np.maximum(cos, 0)


def _shine(s: _Surface, to: tuple[np.float32, np.float32, np.float32], power: float) -> Array:
    """Highlight of a light. Source: Blinn (1977), the half vector with the viewer above."""
    half = np.array([to[0], to[1], to[2] + 1], np.float32)
    cos = _lambert(s, tuple(half / np.linalg.norm(half)))
    lobe: Array = np.exp(np.float32(power) * (cos - 1))
    return s.cover * lobe


def _cast(s: _Surface, turn: float, elevation: float) -> Array:
    """Shadow in [0, 1] that the material throws from a light at this turn and elevation.

    A point lies in shadow where the material towards the light stands higher than the
    ray. The running maximum doubles its reach at every step.
    """
    a, fall = np.deg2rad(turn), np.float32(np.tan(np.deg2rad(elevation)) * s.c.pixel)
    # Everything stands a little off the ground, or threads would throw no shadow to see.
    stand = np.float32(1.0 + 0.5 * s.half)
    z = s.z + stand * s.cover
    horizon, step = z, 1
    while step * fall < s.half + stand:
        shifted = moved(horizon, -step * np.cos(a), step * np.sin(a))
        horizon = np.maximum(horizon, shifted - np.float32(step) * fall)
        step *= 2
    # Whole-pixel steps leave a staircase, which half a pixel of penumbra hides.
    return blur(np.clip((horizon - z) / np.float32(0.2 * s.half + 0.2) - 0.15, 0, 1), 0.7)


def _soft(s: _Surface, rng: np.random.Generator) -> _Paint:
    """Diffuse studio light: shadow gathers in the gaps, and the ground is out of focus."""
    turn = rng.uniform(90, 160)
    key = _lambert(s, _towards(turn, 52))
    sky = 0.5 + 0.5 * s.normal[2]
    light = (0.6 * key + 0.42 * sky) * (1 - 0.9 * np.minimum(s.gap, 1)) + 0.05 * s.drift
    level = light * (0.38 + 0.42 * s.tone) + 0.02 * s.mottle
    a = np.deg2rad(turn)
    away = (1 + 1.2 * s.half) / s.c.pixel
    shadow = blur(moved(s.cover, -away * np.cos(a), away * np.sin(a)), 0.8 * away)
    ground = 0.95 + 0.4 * s.drift - 1.0 * shadow - 0.5 * s.gap
    return _Paint(level, ground, 0.10 * _shine(s, _towards(turn, 52), 18))


def _raking(s: _Surface, rng: np.random.Generator) -> _Paint:
    """A low sun from one side: warm where it falls, long cool shadows."""
    turn, elevation = rng.uniform(0, 360), rng.uniform(16, 26)
    lit = 1 - _cast(s, turn, elevation)
    key = np.minimum(_lambert(s, _towards(turn, elevation)) * 1.35, 1) * lit
    fill = (0.5 + 0.5 * s.normal[2]) * (1 - 0.6 * np.minimum(s.gap, 1))
    light = 0.8 * key + 0.24 * fill
    level = light * (0.5 + 0.42 * s.tone) + 0.03 * s.mottle * light
    ground = (0.05 + 1.3 * lit) * (1 + 0.1 * s.mottle + 0.15 * s.drift) - 0.3 * s.gap
    warm = np.where(s.cover > 0.5, 1.6 * key - 0.55, lit * 1.2 - 0.6)
    shine = 0.14 * lit * _shine(s, _towards(turn, 35), 20)
    return _Paint(level, ground, shine, (warm, 1 + 0.1 * (lit - 0.5)))


def _backlit(s: _Surface, rng: np.random.Generator) -> _Paint:
    """Light from behind: thin parts glow, thick ones keep dark edges, the ground is bright."""
    inside = blur(s.cover, 0.35 * s.half / s.c.pixel + 0.5)
    thick = np.clip(blur(s.z, 1.6 * s.half / s.c.pixel) / np.float32(s.half), 0, 1)
    lamp_x, lamp_y = rng.uniform(-0.2, 0.2, 2) * s.c.extent
    r2 = ((s.c.x - lamp_x) ** 2 + (s.c.y - lamp_y) ** 2) / np.float32((0.6 * s.c.extent) ** 2)
    lamp = np.exp(-r2)
    through = 1 - thick * (0.25 + 0.3 * s.z / np.float32(s.half))
    edge = np.clip(2.4 * (1 - inside), 0, 1) * np.clip(3.5 * thick - 0.5, 0, 1)
    level = (0.34 + 0.66 * lamp) * (0.16 + 0.62 * through + 0.4 * s.tone) * (1 - 0.66 * edge)
    ground = 0.6 + 1.5 * lamp - 0.3 * s.gap
    glow = 0.2 * blur(s.cover * level, 3.0 / s.c.pixel) * lamp
    return _Paint(level + 0.025 * s.mottle, ground, None, None, glow, 1.1)


def _electron(s: _Surface, rng: np.random.Generator) -> _Paint:
    """Scanning electron micrograph: edges bright, gaps black, a little grain.

    More electrons leave where the surface is steep, about as 1 / cos of the tilt.
    Source: Reimer, Scanning Electron Microscopy (1998), ch. 4.
    """
    tilt = np.minimum(1 / np.maximum(s.normal[2], 0.25) - 1, 3) / 3
    side = _lambert(s, _towards(rng.uniform(20, 160), 35))
    level = 0.08 + 0.32 * side + 0.16 * s.tone + 0.85 * np.sqrt(tilt) * (0.35 + 0.65 * side)
    level = level * (1 - 0.95 * np.minimum(s.gap, 1)) + 0.012 * s.mottle
    near = np.clip(2.2 * blur(s.cover, 2.2 * s.half / s.c.pixel), 0, 1)
    ground = 0.65 - 0.95 * near + 0.15 * s.drift
    return _Paint(level, ground, None, None, None, 0.66, 0.015)


def _glossy(s: _Surface, rng: np.random.Generator) -> _Paint:
    """Wet: sharp highlights, a mirrored sky, deep colour, bent light on the ground."""
    turn = rng.uniform(70, 150)
    key = _lambert(s, _towards(turn, 48))
    sky = np.clip(0.5 + 0.9 * s.normal[1], 0, 1)
    light = (0.55 * key + 0.3 * s.normal[2] + 0.2 * sky) * (1 - 0.9 * np.minimum(s.gap, 1))
    level = light * (0.32 + 0.42 * s.tone)
    # Two lamps a right angle apart: no fibre lies so that neither shines on it.
    shine = 0.9 * _shine(s, _towards(turn, 56), 60) + 0.45 * _shine(s, _towards(turn - 90, 58), 60)
    shine = shine * (0.85 + 0.12 * s.mottle) + 0.14 * (1 - s.normal[2]) ** 2 * sky * s.cover
    glints = 0.9 * np.clip(s.mottle - 2.4, 0, 1) * s.cover
    a, away = np.deg2rad(turn), 2.0 * s.half / s.c.pixel
    bent = blur(moved(s.cover, -away * np.cos(a), away * np.sin(a)), 0.9 * s.half / s.c.pixel)
    # Light gathers along one level of the shadow, as it does below a glass of water.
    caustic = np.exp(-(((bent - 0.42) / 0.1) ** 2))
    ground = 0.65 + 0.3 * s.drift - 0.7 * bent - 0.4 * s.gap + 0.7 * caustic
    return _Paint(level, ground, shine + glints, None, None, 1.18)


PAINTERS: dict[Light, Callable[[_Surface, np.random.Generator], _Paint]] = {
    "soft": _soft,
    "raking": _raking,
    "backlit": _backlit,
    "electron": _electron,
    "glossy": _glossy,
}


def _ink_table(colours: Array, saturation: float) -> Array:
    """`_ramp` at `STEPS` places from 0 to 1, its colours richer or greyer: (STEPS, 3)."""
    grey = (colours @ LUMA)[:, None]
    rich = np.clip(grey + (colours - grey) * np.float32(saturation), 0, 1)
    return _ramp(rich, np.linspace(0, 1, STEPS, dtype=np.float32))


def _ground_table(look: Look) -> Array:
    """Ground at `STEPS` brightnesses from 0 to `GROUND_TOP`: (STEPS, 3).

    Beyond near (1) light is added as on a screen, 1 - (1 - near) ** t, which never clips.
    A ground darker than the material stays so: its lightest tones are drawn together.
    """
    far, near = look.ground
    t = np.linspace(0, GROUND_TOP, STEPS, dtype=np.float32)[:, None]
    lit = 1 - (1 - near) ** np.maximum(t, 1)
    contrast = min(float(ink[1] @ LUMA) for ink in (look.first, look.second)) - float(near @ LUMA)
    gain = float((lit[-1] - near) @ LUMA)
    if contrast > 0 and gain > 0.4 * contrast:
        lit = near + (lit - near) * np.float32(0.4 * contrast / gain)
    table: Array = np.where(t < 1, far + (near - far) * t, lit)
    return table


def _look_up(table: Array, t: Array) -> Array:
    """Rows of a table at t (H, W) in [0, 1]: (H, W, 3)."""
    rows: Array = table[np.clip(t * np.float32(STEPS - 1), 0, STEPS - 1).astype(np.int16)]
    return rows


def _material(look: Look, owner: Array | None, paint: _Paint) -> Array:
    """Colour of the material, (H, W, 3); near the border of two, a mixture."""
    first = _look_up(_ink_table(look.first, paint.saturation), paint.level)
    if owner is None or look.first is look.second:
        return first
    second = _look_up(_ink_table(look.second, paint.saturation), paint.level)
    return first + (second - first) * owner[..., None]


def shade(
    c: Canvas,
    relief: Relief,
    owner: Array | None,
    look: Look,
    light: Light,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """Paint a structure as a macro photograph or micrograph in one of five lights.

    Edges stay where the relief has them, and colours near those of the look.

    Args:
        c: The canvas it was drawn on.
        relief: What to paint.
        owner: Share of the second material per pixel (H, W), where two meet.
        look: The colours.
        light: soft, raking, backlit, electron or glossy.
        rng: Decides where the light stands, and the texture.

    Returns:
        (H, W, 3) uint8.
    """
    s = _surface(c, relief, rng)
    paint = PAINTERS[light](s, rng)
    colour = _material(look, owner, paint)
    ground = _look_up(_ground_table(look), paint.ground / np.float32(GROUND_TOP))
    if paint.glow is not None:
        ground = ground + look.first[1] * paint.glow[..., None]
    picture = ground + (colour - ground) * s.cover[..., None]
    if paint.tint is not None:
        warm, bright = paint.tint
        picture = picture * (bright[..., None] + warm[..., None] * WARMTH)
    r2 = (c.x**2 + c.y**2) / np.float32(c.extent**2 / 2)
    picture = picture * (1 - np.float32(0.2) * r2)[..., None]
    grain = np.float32(paint.grain) * rng.standard_normal(s.cover.shape, dtype=np.float32)
    if paint.shine is not None:
        grain = grain + paint.shine
    return _bytes(picture + grain[..., None])
