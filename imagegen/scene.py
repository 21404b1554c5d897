"""One or two motifs composed into a picture: the bare seed, or a lit training sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from imagegen.canvas import Array, Canvas, Relief, canvas, waves
from imagegen.looks import GROUNDS, LOOKS, MATERIALS, flat, ink_of, parse_look, shade
from imagegen.motifs import FAMILIES, draw_motif, random_motif
from orbweave.records import COMBINATIONS, LIGHTS, Motif, Structure

__all__ = ["compose", "lit_picture", "random_structure", "seed_picture", "training_pair"]

LIGHT_SHARES = (0.35, *(0.65 / (len(LIGHTS) - 1),) * (len(LIGHTS) - 1))
"""How often random structures stand in each light; soft, the default, most."""


Draw = Callable[[Canvas, Motif, np.random.Generator], Relief]
"""Draws one motif; `imagegen.motifs.draw_motif`, or a network."""


class Composition(NamedTuple):
    """A drawn structure and, per pixel, which motif owns it (0 first, 1 second)."""

    relief: Relief
    owner: Array | None


def _mix(a: Relief, b: Relief, share: Array) -> Relief:
    return Relief(*(p + (q - p) * share for p, q in zip(a, b, strict=True)))


def _region(c: Canvas, combine: str, rng: np.random.Generator) -> tuple[Array, Array]:
    """Share of the second motif in [0, 1] and a groove along the border where it belongs."""
    turn = rng.uniform(0, 180)
    along, _ = c.turned(turn)
    edge = np.float32(1.2 * c.pixel)
    if combine == "half":
        d = along + waves(c.x, c.y, 0.8 * c.extent, rng, 3) * np.float32(0.02 * c.extent)
        share = np.clip(d / edge + 0.5, 0, 1)
        return share, np.clip(1 - np.abs(d) / (2 * edge), 0, 1)
    if combine == "inclusion":
        cx, cy = rng.uniform(-0.12, 0.12, 2) * c.extent
        rx, ry = rng.uniform(0.24, 0.34, 2) * c.extent
        r = np.hypot(
            (c.x - np.float32(cx)) / np.float32(rx), (c.y - np.float32(cy)) / np.float32(ry)
        )
        d = (1 - r) * np.float32(min(rx, ry))
        return np.clip(d / edge + 0.5, 0, 1), np.clip(1 - np.abs(d) / (2.5 * edge), 0, 1)
    ragged = waves(c.x, c.y, 0.13 * c.extent, rng, 5) * np.float32(0.11 * c.extent)
    return np.clip((along + ragged) / np.float32(3 * c.pixel) + 0.5, 0, 1), np.zeros_like(c.x)


def compose(
    c: Canvas, structure: Structure, rng: np.random.Generator, draw: Draw = draw_motif
) -> Composition:
    """Draw the motifs of a structure, each by `draw`, and combine them."""
    first = draw(c, structure.motifs[0], rng)
    if structure.combine == "single":
        return Composition(first, None)
    second = draw(c, structure.motifs[1], rng)
    if structure.combine == "overlay":
        # The first motif lies on top and throws a soft shadow on the second.
        shadow = np.clip(gaussian_filter(first.cover, 2.0 / c.pixel) * 0.6, 0, 1) * (
            1 - first.cover
        )
        under = Relief(
            second.cover, second.height * (0.55 - 0.2 * shadow), second.tone * (1 - 0.7 * shadow)
        )
        top = np.clip(first.cover * 1.2, 0, 1)
        height = under.height + (0.35 + 0.65 * first.height - under.height) * top
        cover = np.maximum(first.cover, under.cover)
        tone = under.tone + (first.tone - under.tone) * top
        return Composition(Relief(cover, height, tone), 1 - top)
    share, groove = _region(c, structure.combine, rng)
    mixed = _mix(first, second, share)
    return Composition(
        Relief(np.maximum(mixed.cover * (1 - groove), 0), mixed.height * (1 - groove), mixed.tone),
        share,
    )


def seed_picture(structure: Structure, size_px: int, draw: Draw = draw_motif) -> NDArray[np.uint8]:
    """Draw the bare geometry in flat colours: what image-to-image starts from.

    Args:
        structure: Motifs, combination, look and seed; the seed decides every accident.
        size_px: Side of the picture; the structure scales with it.
        draw: What draws a motif.

    Returns:
        (size_px, size_px, 3) uint8.

    Raises:
        UsageError: an unknown family or look.
    """
    c = canvas(size_px)
    composition = compose(c, structure, np.random.default_rng(structure.seed), draw)
    look = parse_look(structure.look)
    return flat(composition.relief, ink_of(look, composition.owner), look)


def lit_picture(structure: Structure, size_px: int, extent: float) -> NDArray[np.uint8]:
    """Draw a structure in its light: a training sample. (size, size, 3) uint8."""
    return training_pair(structure, size_px, extent)[1]


def training_pair(
    structure: Structure, size_px: int, extent: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw a structure in flat colours and in its light, each (size, size, 3) uint8.

    Args:
        structure: Its seed decides every accident.
        size_px: Side of the pictures.
        extent: Side of the view, in pixels of a 256-pixel picture.
    """
    c = canvas(size_px, extent)
    rng = np.random.default_rng(structure.seed)
    relief, owner = compose(c, structure, rng)
    look = parse_look(structure.look)
    return flat(relief, ink_of(look, owner), look), shade(
        c, relief, owner, look, structure.light, rng
    )


def _random_look(rng: np.random.Generator, families: list[str], two: bool) -> str:
    """A look that suits the motif, any named one, or any pair of colours with contrast."""
    kind = rng.uniform()
    if not two and kind < 0.35:
        return str(rng.choice(FAMILIES[families[0]].looks))
    if not two and kind < 0.6:
        return str(rng.choice(LOOKS))
    while True:
        ground = str(rng.choice(list(GROUNDS)))
        first, second = (str(m) for m in rng.choice(list(MATERIALS), 2, replace=False))
        middle = [np.mean(MATERIALS[m][1]) for m in (first, second)]
        if all(abs(m - np.mean(GROUNDS[ground][1])) > 60 for m in (middle if two else middle[:1])):
            return f"{first} and {second} on {ground}" if two else f"{first} on {ground}"


def random_structure(
    rng: np.random.Generator, *, double_share: float = 0.3, scale: float = 1.0
) -> Structure:
    """Draw one or two random motifs with a look and a light, families evenly."""
    two = rng.uniform() < double_share
    families = [str(f) for f in rng.choice(list(FAMILIES), 2 if two else 1, replace=False)]
    if two and "diatom_pores" in families and rng.uniform() < 0.7:
        families = ["honeycomb" if f == "diatom_pores" else f for f in families]
        two = len(set(families)) == 2
        families = families if two else families[:1]
    look = _random_look(rng, families, two and rng.uniform() < 0.75)
    return Structure(
        motifs=tuple(random_motif(f, rng, scale) for f in families),
        combine=str(rng.choice(COMBINATIONS[1:])) if two else "single",  # type: ignore[arg-type]
        look=look,
        seed=int(rng.integers(2**31)),
        # Drawn last, so that a generator's geometries stay what they were before there was light.
        light=LIGHTS[int(rng.choice(len(LIGHTS), p=LIGHT_SHARES))],
    )
