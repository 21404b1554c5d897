"""Measurements of pictures whose numbers are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imagegen.measure import (
    luma_of,
    main_direction,
    measure,
    measure_all,
    measure_pixels,
    otsu_threshold,
    solid_fraction,
    solid_side_of,
    spacing_px,
)
from imagegen.png import PngNote, encode_png
from orbweave.errors import UsageError
from orbweave.records import Measurement, Motif, RenderRequest, Structure

SHAPES = [(256, 256), (201, 333)]


def stripes(
    direction_deg: float, period: float, *, duty: float | None = None, shape: Any = (256, 256)
) -> Any:
    """Parallel lines: a sine grating, or bright bars that fill `duty` of the period."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    a = np.deg2rad(direction_deg)
    phase = (-x * np.sin(a) - y * np.cos(a)) / period
    return 0.5 + 0.5 * np.sin(2 * np.pi * phase) if duty is None else (phase % 1 < duty) * 1.0


def checker(side: int, n: int = 256) -> Any:
    y, x = np.mgrid[:n, :n]
    return ((x // side + y // side) % 2).astype(float)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("period", [8, 16, 32])
@pytest.mark.parametrize("direction", [0, 30, 90, 135, 179])
def test_stripes_have_their_direction_and_spacing(direction: int, period: int, shape: Any) -> None:
    for duty in (None, 0.3):
        luma = stripes(direction, period, duty=duty, shape=shape)
        found = main_direction(luma)

        assert found.deg is not None
        off = (found.deg - direction + 90) % 180 - 90
        assert abs(off) < 0.5  # degrees
        assert found.coherence > 0.98
        assert spacing_px(luma) == pytest.approx(period, rel=0.02)


@pytest.mark.parametrize("direction", [0, 30, 90, 135])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.8])
def test_the_solid_share_of_bars_is_their_duty(direction: int, share: float) -> None:
    luma = stripes(direction, 16, duty=share, shape=(320, 320))
    assert solid_fraction(luma) == pytest.approx(share, abs=0.03)


def test_a_checkerboard_is_half_solid_isotropic_and_has_the_period_of_its_diagonals() -> None:
    found = measure_pixels(checker(16), picture="board")

    assert found.solid_fraction == 0.5
    assert found.direction_deg is None and found.anisotropy < 1e-6
    assert found.contrast == 0.5
    # Its strongest waves run along the diagonals: side x sqrt(2).
    assert found.spacing_px == pytest.approx(16 * np.sqrt(2), rel=0.02)


def test_white_noise_has_neither_direction_nor_spacing() -> None:
    rng = np.random.default_rng(0)
    for shape in ((128, 128), *SHAPES):
        luma = rng.uniform(size=shape)
        assert main_direction(luma).deg is None
        assert spacing_px(luma) is None


def test_blurred_noise_seldom_has_a_spacing() -> None:
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(1)
    fields = [gaussian_filter(rng.normal(size=(256, 256)), s) for s in (1, 2, 3, 4) * 5]
    assert sum(spacing_px(f / np.abs(f).max() / 2 + 0.5) is not None for f in fields) <= 1


def test_a_gradient_and_a_single_disc_have_no_spacing() -> None:
    y, x = np.mgrid[:200, :200] / 200
    assert spacing_px(x * 0.8) is None
    assert spacing_px(((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.09) * 1.0) is None


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_a_constant_picture_shows_nothing(value: float) -> None:
    found = measure_pixels(np.full((64, 64), value), picture="flat")

    assert found.direction_deg is None and found.spacing_px is None
    assert (found.solid_fraction, found.anisotropy) == (0.0, 0.0)
    assert found.contrast < 1e-12


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 2), (15, 200), (16, 16), (17, 31)])
def test_tiny_and_odd_pictures_are_measured_without_trouble(shape: tuple[int, int]) -> None:
    luma = np.random.default_rng(0).uniform(size=shape)
    found = measure_pixels(luma, picture="odd")
    assert 0 <= found.solid_fraction <= 1
    if min(shape) < 16:
        assert found.direction_deg is None and found.spacing_px is None


def test_turning_a_picture_turns_its_direction() -> None:
    luma = stripes(20, 12, duty=0.4)
    turned = main_direction(np.rot90(luma))  # a quarter turn anticlockwise
    assert turned.deg == pytest.approx(110, abs=0.5)


def test_scaling_a_picture_scales_its_spacing() -> None:
    luma = stripes(40, 12, duty=0.4)
    assert spacing_px(np.kron(luma, np.ones((2, 2)))) == pytest.approx(24, rel=0.02)


def test_the_threshold_lies_between_two_levels() -> None:
    assert otsu_threshold(np.array([[0.2, 0.2, 0.8]])) == pytest.approx(0.5, abs=0.01)


def test_dark_lines_on_paper_are_the_solid() -> None:
    paper = 0.95 - 0.6 * stripes(0, 16, duty=0.25)
    web = 0.05 + 0.6 * stripes(0, 16, duty=0.25)

    assert solid_fraction(paper) == pytest.approx(0.25, abs=0.03)
    assert solid_fraction(web) == pytest.approx(0.25, abs=0.03)
    assert solid_fraction(paper, "bright") == pytest.approx(0.75, abs=0.03)
    assert solid_fraction(web, "dark") == pytest.approx(0.75, abs=0.03)


def test_a_look_says_which_side_is_solid() -> None:
    assert solid_side_of("golden on black") == "bright"
    assert solid_side_of("pink on white") == "dark"
    with pytest.raises(UsageError, match="wanted a look"):
        solid_side_of("golden")


def eight_bit(luma: Any) -> Any:
    return (luma * 255).round().astype(np.uint8)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_every_kind_of_picture_gives_the_same_numbers(tmp_path: Path, mode: str) -> None:
    luma = stripes(30, 16, duty=0.4)
    grey = Image.fromarray(eight_bit(luma))
    if mode == "I;16":
        image = Image.fromarray((luma * 65535).astype(np.uint16))
    else:
        image = grey.convert("RGB").convert(mode) if mode in ("P", "CMYK") else grey.convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    found = measure(path, picture="images/a.png")

    assert found.picture == "images/a.png"
    assert found.direction_deg == pytest.approx(30, abs=0.5)
    assert found.spacing_px == pytest.approx(16, rel=0.02)
    assert found.solid_fraction == pytest.approx(0.4, abs=0.02)
    assert found.contrast == pytest.approx(luma.std(), abs=0.01)


def test_transparent_parts_count_as_black(tmp_path: Path) -> None:
    rgba = np.full((32, 32, 4), 255, np.uint8)
    rgba[:, :16, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "a.png")
    luma = luma_of(tmp_path / "a.png")
    assert np.all(luma[:, :16] == 0) and np.allclose(luma[:, 16:], 1)


def test_measuring_twice_gives_the_same_record(tmp_path: Path) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (96, 130, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    assert measure(tmp_path / "a.png") == measure(tmp_path / "a.png")


def test_a_file_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n not really")
    with pytest.raises(UsageError, match="wanted a picture file"):
        measure(tmp_path / "a.png")
    with pytest.raises(UsageError, match="wanted a picture file"):
        measure(tmp_path / "none.png")


def test_a_gigantic_picture_is_refused(tmp_path: Path) -> None:
    Image.new("1", (9000, 9000)).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match="at most 64,000,000 pixels"):
        measure(tmp_path / "a.png")


def test_the_projects_own_structures_measure_near_their_parameters() -> None:
    from imagegen.scene import seed_picture
    from orbweave.records import Motif, Structure

    motif = Motif(family="parallel_veins", spacing=20, direction_deg=60, irregularity=0.1)
    structure = Structure(motifs=(motif,), look="white on black", seed=1)
    luma = seed_picture(structure, 256) / 255 @ np.array([0.2126, 0.7152, 0.0722])
    direction = main_direction(luma).deg

    assert direction == pytest.approx(60, abs=4)
    assert spacing_px(luma) == pytest.approx(20, rel=0.1)


def test_the_light_measurement_leaves_the_anatomy_out(tmp_path: Path) -> None:
    Image.fromarray(eight_bit(stripes(30, 16, duty=0.4))).save(tmp_path / "a.png")
    light, full = measure(tmp_path / "a.png"), measure_all(tmp_path / "a.png")

    assert light.anatomy is None
    assert full.anatomy is not None
    assert full.model_copy(update={"anatomy": None}) == light
    assert light.directions_deg == pytest.approx((30,), abs=1)
    assert light.spacings_px[0] == light.spacing_px
    assert light.solid_fraction_band is not None and light.threshold is not None


def test_the_anatomy_of_bars_is_that_of_bars() -> None:
    found = measure_pixels(stripes(0, 16, duty=0.375), picture="bars", full=True).anatomy

    assert found is not None and found.struts is not None and found.pores is not None
    assert found.struts.median_px == pytest.approx(6, abs=0.6)
    assert found.pores.median_px == pytest.approx(10, abs=0.6)
    assert found.solid.percolates_across and not found.solid.percolates_down
    assert found.void.percolates_across and not found.void.percolates_down
    assert found.euler_number == found.solid.n_parts == 17  # the first and last are cut
    assert (found.skeleton.branch_points, found.skeleton.end_points) == (0, 0)
    assert found.repeat_px == pytest.approx(16, rel=0.02)
    assert found.spacing_across_px == pytest.approx(16, rel=0.02)
    assert found.spacing_along_px is None
    assert found.symmetry.mirror_left_right == pytest.approx(1)


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (16, 16), (17, 31)])
@pytest.mark.parametrize("full_range", [0.0, 1.0])
def test_tiny_odd_and_flat_pictures_have_an_anatomy(
    shape: tuple[int, int], full_range: float
) -> None:
    luma = np.random.default_rng(0).uniform(size=shape) * full_range
    found = measure_pixels(luma, picture="odd", full=True)
    assert found.anatomy is not None
    assert Measurement.model_validate_json(found.model_dump_json()) == found


def test_a_record_of_before_is_still_read() -> None:
    old = {
        "picture": "a.png",
        "solid_fraction": 0.5,
        "direction_deg": None,
        "anisotropy": 0.1,
        "spacing_px": 16.0,
        "contrast": 0.5,
    }
    assert Measurement.model_validate(old).anatomy is None


def test_the_record_in_a_picture_says_which_side_is_solid(tmp_path: Path) -> None:
    # Mostly pale, thin dark lines: by the pixels alone the lines would be the solid.
    pixels = np.stack([eight_bit(0.9 - 0.8 * stripes(0, 16, duty=0.25))] * 3, -1)
    motif = Motif(family="silk_bundle")
    structure = Structure(motifs=(motif,), look="white on brown")
    note = PngNote(request=RenderRequest(prompt="silk", structure=structure), geometry="")
    (tmp_path / "ours.png").write_bytes(encode_png(pixels, note))
    (tmp_path / "other.png").write_bytes(encode_png(pixels, None))

    assert measure(tmp_path / "ours.png").solid_fraction == pytest.approx(0.75, abs=0.03)
    assert measure(tmp_path / "other.png").solid_fraction == pytest.approx(0.25, abs=0.03)
    dark = measure(tmp_path / "ours.png", solid="dark")
    assert (dark.solid_side, dark.solid_fraction) == ("dark", pytest.approx(0.25, abs=0.03))


@pytest.mark.parametrize("fault", ["another version", "no JSON", "too long"])
def test_a_record_that_cannot_be_read_is_noted(tmp_path: Path, fault: str) -> None:
    note = PngNote(request=RenderRequest(prompt="a web"), geometry="text alone")
    text = note.model_dump_json().replace('"geometry"', '"where"')
    info = PngInfo()
    info.add_text("orbweave", {"no JSON": "{", "too long": "x" * 1_000_001}.get(fault, text))
    Image.fromarray(eight_bit(stripes(0, 16))).save(tmp_path / "a.png", pnginfo=info)
    (told,) = [n for n in measure(tmp_path / "a.png").notes if "record" in n]
    assert told.startswith("its record cannot be read, so its pixels say which side is solid")
    assert not [n for n in measure(tmp_path / "a.png", solid="dark").notes if "record" in n]


@pytest.mark.parametrize("name", ["a.png", "a.bmp"])
def test_a_picture_without_a_record_has_no_note_of_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.json").write_text("{}")  # somebody's, of the same name
    Image.fromarray(eight_bit(stripes(0, 16))).save(tmp_path / name)
    assert measure(tmp_path / name).notes == ()


def test_what_a_reader_should_know_of_the_file_is_noted(tmp_path: Path) -> None:
    Image.new("RGBA", (20, 20)).save(tmp_path / "a.png")
    notes = measure(tmp_path / "a.png").notes
    assert notes == (
        "transparent in 100% of the pixels, counted as black",
        "one flat tone, no structure to measure",
    )


def test_measuring_needs_no_more_than_four_arrays_as_large_as_the_picture() -> None:
    import tracemalloc

    luma = np.random.default_rng(0).uniform(size=(1000, 1100))
    measure_pixels(luma[:64], picture="warm")
    tracemalloc.start()
    measure_pixels(luma, picture="noise")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * luma.nbytes


def test_the_light_measurement_of_256_pixels_is_fast_enough_for_the_loop() -> None:
    import time

    luma = np.random.default_rng(0).uniform(size=(256, 256))
    measure_pixels(luma, picture="warm")
    start = time.process_time()
    measure_pixels(luma, picture="noise")
    assert time.process_time() - start < 0.15
