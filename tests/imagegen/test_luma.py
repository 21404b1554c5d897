"""Pictures of every kind and every fault: read with a note, or refused in words."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagegen.luma import REC_709, luma_of, read_luma
from orbweave.errors import UsageError

RAMP = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def test_luma_weighs_the_colours_as_rec_709(tmp_path: Path) -> None:
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    luma = luma_of(saved(Image.fromarray(colours), tmp_path / "a.png"))
    assert luma[0] == pytest.approx([0.2126, 0.7152, 0.0722, 1.0])


def test_a_large_picture_is_never_held_with_its_colours_as_floats(tmp_path: Path) -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (1601, 1600, 4), np.uint8)
    path = saved(Image.fromarray(rgba), tmp_path / "a.png", compress_level=0)
    tracemalloc.start()
    luma = luma_of(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30 * luma.size  # bytes; four floats are 32
    whole = rgba / 255
    assert (luma == whole[..., :3] @ REC_709 * whole[..., 3]).all()


def test_16_bit_grey_keeps_its_fine_steps(tmp_path: Path) -> None:
    deep = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    for name in ("a.png", "a.tif"):
        luma, notes = read_luma(saved(Image.fromarray(deep), tmp_path / name))
        assert luma == pytest.approx(deep / 65535)
        assert len(np.unique(luma)) == 64 * 64
        assert notes == ()


def test_a_palette_shows_its_colours_and_not_its_numbers(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 7)
    image.putpalette([0] * 21 + [255, 255, 255] + [0] * 744)
    assert luma_of(saved(image, tmp_path / "a.png")) == pytest.approx(1.0)


def test_of_an_animation_the_first_picture_counts_and_a_note_says_so(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.roll(RAMP, 9 * k, 0)) for k in range(3)]
    path = saved(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    luma, notes = read_luma(path)
    assert luma == pytest.approx(RAMP / 255, abs=0.01)
    assert notes == ("first of 3 pictures in the file",)


def test_transparent_pixels_count_as_black_and_a_note_says_how_many(tmp_path: Path) -> None:
    rgba = np.full((32, 32, 4), 255, np.uint8)
    rgba[:, :8, 3] = 0
    luma, notes = read_luma(saved(Image.fromarray(rgba), tmp_path / "a.png"))
    assert luma[:, :8].max() == 0 and luma[:, 8:].min() == 1
    assert notes == ("transparent in 25% of the pixels, counted as black",)


def test_a_wholly_transparent_picture_is_noted_as_flat(tmp_path: Path) -> None:
    _, notes = read_luma(saved(Image.new("RGBA", (20, 20)), tmp_path / "a.png"))
    assert "one flat tone, no structure to measure" in notes


def test_float_grey_beyond_0_to_1_is_stretched_and_noted(tmp_path: Path) -> None:
    path = saved(Image.fromarray(RAMP.astype(np.float32) * 10), tmp_path / "a.tif")
    luma, notes = read_luma(path)
    assert (luma.min(), luma.max()) == (0, 1)
    assert notes == ("grey values from 0 to 2550 stretched to the range 0 to 1",)


def test_a_float_picture_with_nan_is_refused(tmp_path: Path) -> None:
    path = saved(Image.fromarray(np.full((8, 8), np.nan, np.float32)), tmp_path / "a.tif")
    with pytest.raises(UsageError, match="finite values"):
        luma_of(path)


def test_an_empty_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    for path in (tmp_path / "a.png", tmp_path):
        with pytest.raises(UsageError, match="wanted a picture file, got"):
            luma_of(path)


def test_a_bomb_is_refused_before_a_pixel_is_decoded(tmp_path: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    for side, told in ((10_000, "10000 x 10000"), (60_000, "at most 64,000,000 pixels")):
        head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000)))
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b""))
        with pytest.raises(UsageError, match=told):
            luma_of(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "tif", "webp", "bmp"])
def test_damaged_files_are_read_or_refused_in_words(tmp_path: Path, kind: str) -> None:
    whole = saved(Image.fromarray(RAMP), tmp_path / f"a.{kind}").read_bytes()
    rng = np.random.default_rng(0)
    for n in range(60):
        spoilt = bytearray(whole[: len(whole) if n % 3 else int(rng.integers(len(whole)))])
        for place in rng.integers(0, max(len(spoilt), 1), 6) if spoilt else ():
            spoilt[place] = int(rng.integers(256))
        path = tmp_path / f"b.{kind}"
        path.write_bytes(spoilt)
        try:
            luma = luma_of(path)
        except UsageError:
            continue
        assert np.isfinite(luma).all() and luma.min() >= 0 and luma.max() <= 1
