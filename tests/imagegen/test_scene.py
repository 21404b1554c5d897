"""Scenes: motifs composed, painted flat or lit."""

import colorsys
import hashlib
import time

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from imagegen.canvas import Relief, blur, canvas, moved
from imagegen.looks import GROUNDS, LOOKS, MATERIALS, parse_look, shade
from imagegen.motifs import FAMILIES, draw_motif
from imagegen.scene import LIGHT_SHARES, lit_picture, random_structure, seed_picture
from orbweave.errors import UsageError
from orbweave.records import COMBINATIONS, LIGHTS, Motif, Structure

WEB, COMB = Motif(family="orb_web", thickness=0.15), Motif(family="honeycomb", thickness=0.2)
FOAM = Motif(family="trabecular_foam", spacing=30, thickness=0.5)


def test_a_seed_picture_repeats_and_another_seed_differs() -> None:
    first, again = (seed_picture(Structure(motifs=(WEB,), look=LOOKS[0], seed=4), 96) for _ in "ab")
    other = seed_picture(Structure(motifs=(WEB,), look=LOOKS[0], seed=5), 96)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_structure_scales_with_the_picture() -> None:
    structure = Structure(motifs=(COMB,), look=LOOKS[0], seed=1)
    small, large = seed_picture(structure, 128), seed_picture(structure, 256)
    shrunk = large.reshape(128, 2, 128, 2, 3).mean((1, 3))
    assert np.abs(shrunk - small).mean() < 12


@pytest.mark.parametrize("combine", COMBINATIONS[1:])
def test_both_materials_show_in_a_combination(combine) -> None:
    structure = Structure(motifs=(WEB, COMB), combine=combine, look="red and blue on black", seed=2)
    picture = seed_picture(structure, 128).astype(int)
    red, blue = (picture[..., i] - picture[..., 2 - i] > 60 for i in (0, 2))
    assert red.mean() > 0.02
    assert blue.mean() > 0.02


@pytest.mark.parametrize(
    ("structure", "sha256"),
    [
        (Structure(motifs=(WEB,), seed=4), "05148ab15ac6b8c9"),
        (
            Structure(
                motifs=(Motif(family="nacre_bricks", spacing=20, thickness=0.9, direction_deg=30),),
                look="pearl on navy",
                seed=7,
            ),
            "14b12dee6b7fd88e",
        ),
        (
            Structure(
                motifs=(
                    Motif(family="trabecular_foam", spacing=30, thickness=0.4),
                    Motif(family="leaf_veins", spacing=16, thickness=0.3),
                ),
                combine="inclusion",
                look="cream and green on red",
                seed=11,
            ),
            "fea471d3c0dfee93",
        ),
    ],
)
def test_seed_pictures_of_earlier_records_are_drawn_as_ever(structure, sha256: str) -> None:
    old = structure.model_dump(exclude={"light"})
    for light in ({}, {"light": "electron"}):
        picture = seed_picture(Structure.model_validate(old | light), 96)
        assert hashlib.sha256(picture.tobytes()).hexdigest()[:16] == sha256


@pytest.mark.parametrize("light", LIGHTS)
@pytest.mark.parametrize("motif", [WEB, COMB, FOAM])
def test_edges_stay_where_the_seed_picture_has_them(motif: Motif, light) -> None:
    structure = Structure(motifs=(motif,), look="white on black", light=light, seed=1)
    flat = seed_picture(structure, 128).mean(2)
    lit = lit_picture(structure, 128, 256.0).mean(2)
    assert np.corrcoef(flat.ravel(), lit.ravel())[0, 1] > 0.8
    agreement = {
        (x, y): np.corrcoef(flat.ravel(), moved(lit, x, y).ravel())[0, 1]
        for x in (-1, 0, 1)
        for y in (-1, 0, 1)
    }
    assert max(agreement, key=lambda shift: agreement[shift]) == (0, 0)


@pytest.mark.parametrize("light", LIGHTS)
def test_light_adds_tones_within_the_material(light) -> None:
    structure = Structure(motifs=(COMB,), look="white on black", light=light, seed=1)
    flat, lit = seed_picture(structure, 128), lit_picture(structure, 128, 256.0)
    inside = flat.mean(2) > 200
    assert len(np.unique(lit[inside].mean(1).round())) > 50
    assert lit[inside].mean(1).std() > 1.5 * flat[inside].mean(1).std()


def test_two_lights_never_look_alike() -> None:
    structure = Structure(motifs=(FOAM,), look="amber on teal", seed=5)
    lit = [
        lit_picture(structure.model_copy(update={"light": light}), 128, 256.0).astype(float)
        for light in LIGHTS
    ]
    gaps = [np.abs(a - b).mean() for i, a in enumerate(lit) for b in lit[:i]]
    assert min(gaps) > 8


def _hue(rgb: np.ndarray) -> tuple[float, float]:
    """Hue in degrees and saturation of a colour in [0, 255]."""
    h, s, _ = colorsys.rgb_to_hsv(*(rgb / 255))
    return 360 * h, s


@pytest.mark.parametrize("light", LIGHTS)
def test_the_colours_of_the_look_are_recognised_in_every_light(light) -> None:
    looks = [f"{m} on black" for m in MATERIALS] + [f"grey on {g}" for g in GROUNDS] + [*LOOKS]
    cover = seed_picture(Structure(motifs=(FOAM,), look="white on black", seed=3), 96).mean(2)
    for look in looks:
        structure = Structure(motifs=(FOAM,), look=look, light=light, seed=3)
        material = np.array(MATERIALS[look.partition(" on ")[0]][1])
        ground = np.mean(GROUNDS[look.partition(" on ")[2]], 0)
        lit = lit_picture(structure, 96, 256.0)
        for asked, there in ((material, cover > 200), (ground, cover < 12)):
            hue, saturation = _hue(asked)
            if saturation > 0.25 and asked.max() > 30:  # greys and blacks have no hue
                off = abs((_hue(lit[there].mean(0))[0] - hue + 180) % 360 - 180)
                assert off < 25, (look, asked, lit[there].mean(0))


def test_a_backlit_ground_is_brighter_than_an_electron_micrographs() -> None:
    structure = Structure(motifs=(COMB,), look="golden on navy", seed=2)
    holes = seed_picture(structure, 128)[..., 0] < 40
    back, sem = (
        lit_picture(structure.model_copy(update={"light": light}), 128, 256.0)[holes].mean()
        for light in ("backlit", "electron")
    )
    assert back > 2 * sem


def test_wet_material_has_the_most_white_highlights() -> None:
    structure = Structure(motifs=(FOAM,), look="red on black", seed=2)
    white = {
        light: (
            lit_picture(structure.model_copy(update={"light": light}), 128, 256.0).min(2) > 150
        ).mean()
        for light in LIGHTS
    }
    assert max(white, key=lambda light: white[light]) == "glossy"


@pytest.mark.parametrize("seed", range(6))
def test_a_raking_shadow_falls_away_from_the_bright_flank(seed: int) -> None:
    c = canvas(128)
    r = np.hypot(c.x, c.y)
    cover = np.clip((40 - r) / 2, 0, 1)
    ball = Relief(cover, cover * np.sqrt(np.clip(1 - (r / 40) ** 2, 0, 1)), 0.5 * cover)
    look = parse_look("grey on white")
    lit = shade(c, ball, None, look, "raking", np.random.default_rng(seed)).mean(2)
    flank, ring = r < 36, (r > 44) & (r < 56)
    light = [((lit - lit[flank].mean()) * flank * axis).sum() for axis in (c.x, c.y)]
    shadow = [((lit[ring].mean() - lit) * ring * axis).sum() for axis in (c.x, c.y)]
    assert np.dot(light, shadow) / np.hypot(*light) / np.hypot(*shadow) < -0.8


@pytest.mark.parametrize("size", [64, 100, 128])
def test_any_size_can_be_lit(size: int) -> None:
    structure = Structure(motifs=(WEB, COMB), combine="half", look="red and blue on black", seed=2)
    for light in LIGHTS:
        lit = lit_picture(structure.model_copy(update={"light": light}), size, float(size))
        assert lit.shape == (size, size, 3)


def test_lighting_a_picture_takes_no_longer_than_sixteen_blurs_of_its_size() -> None:
    """25 ms of 256 pixels where a blur takes 1.55; a busy or slower machine slows down both."""
    c, rng = canvas(256), np.random.default_rng(0)
    relief, look = draw_motif(c, COMB, rng), parse_look("golden on brown")
    noise = rng.random((256, 256), np.float32)
    for light in LIGHTS:
        seconds, blurs = [], []
        for _ in range(7):
            begun = time.thread_time()
            shade(c, relief, None, look, light, rng)
            between = time.thread_time()
            gaussian_filter(noise, 4)
            seconds.append(between - begun)
            blurs.append(time.thread_time() - between)
        assert min(seconds) < 16 * min(blurs), light


@pytest.mark.parametrize("sigma", [0.7, 2.0, 6.0, 20.0])
def test_a_blurred_point_has_the_width_asked_for(sigma: float) -> None:
    a = np.zeros((200, 200), np.float32)
    a[100, 101] = 1
    blurred = blur(a, sigma)
    x = np.arange(200) - 101
    weight = blurred.sum(0)
    assert weight.sum() == pytest.approx(1, abs=0.02)
    assert np.sqrt((weight * x**2).sum()) == pytest.approx(sigma, rel=0.15)


def test_every_look_names_colours_that_exist() -> None:
    named = {look for f in FAMILIES.values() for look in f.looks} | set(LOOKS)
    assert all(parse_look(look).name == look for look in named)
    assert len(MATERIALS) * len(GROUNDS) >= 8


@pytest.mark.parametrize("look", ["", "golden", "golden on", "plaid on black", "red on mars"])
def test_an_unknown_look_is_refused_with_the_choices(look: str) -> None:
    with pytest.raises(UsageError, match=r"wanted a look .* materials: golden"):
        parse_look(look)


def test_random_structures_show_every_family_meeting_and_light() -> None:
    rng = np.random.default_rng(0)
    structures = [random_structure(rng) for _ in range(400)]
    assert {m.family for s in structures for m in s.motifs} == set(FAMILIES)
    assert {s.combine for s in structures} == set(COMBINATIONS)
    shares = [np.mean([s.light == light for s in structures]) for light in LIGHTS]
    assert shares == pytest.approx(LIGHT_SHARES, abs=0.06)
