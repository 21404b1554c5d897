"""Picture files of all kinds as a start: what is wrong with one is told, what is left out too."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagegen.picture_file import opened_picture
from imagegen.png import read_texts
from imagegen.start import read_picture
from orbweave.errors import UsageError

RAMP = np.repeat(np.arange(64, dtype=np.uint8)[None] * 4, 64, axis=0)


def saved(pixels: np.ndarray, path: Path) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def test_every_fault_is_told_with_what_mends_it(tmp_path: Path) -> None:
    whole = saved(RAMP, tmp_path / "whole.png").read_bytes()
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    for name, told in {
        "none.png": "No such file or directory; check the path",
        "": "Is a directory; check the path",
        "empty.png": "which is empty; save it again",
        "text.png": "in no form that is known; save it again",
        "cut.png": r"which is damaged \(.*\); copy or save it again",
    }.items():
        with pytest.raises(UsageError, match=f"wanted a picture file, got .*{told}"):
            read_picture(tmp_path / name, 64, 64)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    for read in (lambda path: read_picture(path, 64, 64), read_texts):
        with pytest.raises(UsageError, match="file, got .*a.png, a pipe or device; save it as a f"):
            read(tmp_path / "a.png")


def test_a_file_that_another_program_would_draw_is_refused(tmp_path: Path) -> None:
    head = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n"
    (tmp_path / "a.eps").write_text(head + "(%pipe%touch seen) (w) file\n%%EOF\n")
    with pytest.raises(UsageError, match="a EPS file of drawing commands, .*; save it as PNG"):
        read_picture(tmp_path / "a.eps", 64, 64)


@pytest.mark.parametrize("side", [9_000, 30_000])
def test_a_huge_picture_is_refused_by_its_head(tmp_path: Path, side: int) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + crc

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    body = head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    with pytest.raises(UsageError, match="at most 64,000,000 pixels.*; scale it down"):
        read_picture(tmp_path / "a.png", 64, 64)


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "tif", "webp", "bmp"])
def test_a_damaged_start_is_read_or_refused_in_words(tmp_path: Path, kind: str) -> None:
    whole = saved(RAMP, tmp_path / f"a.{kind}").read_bytes()
    rng = np.random.default_rng(0)
    for n in range(60):
        spoilt = bytearray(whole[: len(whole) if n % 3 else int(rng.integers(len(whole)))])
        for place in rng.integers(0, max(len(spoilt), 1), 6) if spoilt else ():
            spoilt[place] = int(rng.integers(256))
        (tmp_path / f"b.{kind}").write_bytes(spoilt)
        try:
            read = read_picture(tmp_path / f"b.{kind}", 16, 16)
        except UsageError:
            continue
        assert read.shape == (16, 16, 3)


def test_an_animated_or_transparent_start_is_said_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames = [Image.fromarray(np.roll(RAMP, n, 1)) for n in (0, 20, 40)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    saved(np.dstack([RAMP] * 4), tmp_path / "b.png")
    saved(np.dstack([RAMP] * 3), tmp_path / "c.png")
    for name in ("a.gif", "b.png", "c.png"):
        read_picture(tmp_path / name, 64, 64)
    assert [record.getMessage().split("/")[-1] for record in caplog.records] == [
        "a.gif: first of 3 pictures in the file",
        "b.png: transparent parts, counted as black",
    ]


def test_deep_grey_is_stretched_and_never_wrapped_round(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved(RAMP.astype(np.int32) * 1000, tmp_path / "a.tif")
    read = read_picture(tmp_path / "a.tif", 64, 64)[..., 0].astype(int)
    assert (np.diff(read[0]) >= 0).all() and (read[0, 0], read[0, -1]) == (0, 255)
    assert "stretched to the range 0 to 1" in caplog.text


def test_a_start_with_nan_is_refused(tmp_path: Path) -> None:
    saved(np.full((8, 8), np.nan, np.float32), tmp_path / "a.tif")
    with pytest.raises(UsageError, match="finite values"):
        read_picture(tmp_path / "a.tif", 8, 8)


def test_a_fault_of_the_block_itself_that_is_told_in_words_stays_so(tmp_path: Path) -> None:
    path = saved(RAMP, tmp_path / "a.png")
    with pytest.raises(UsageError, match="told in words"), opened_picture(path):
        raise UsageError("told in words")
