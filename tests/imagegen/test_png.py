"""The story inside a PNG: round trips, the text others read, and files one cannot trust."""

from __future__ import annotations

import io
import json
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagegen.png import (
    MAX_TEXT_BYTES,
    AdapterNote,
    PngNote,
    encode_png,
    parameters_text,
    read_note,
    read_parameters,
    read_request,
    sidecar_of,
    stripped,
)
from orbweave.errors import UsageError
from orbweave.records import Motif, RenderRequest, Structure

PIXELS = np.arange(16 * 24 * 3, dtype=np.uint8).reshape(16, 24, 3)


def note(prompt: str = "spider silk", **changes: object) -> PngNote:
    request = RenderRequest.model_validate({"prompt": prompt, "seeds": (7,)} | changes)
    return PngNote(request=request, geometry="text alone", environment={"torch": "2"})


def parsed_as_a1111(text: str) -> tuple[str, str, dict[str, str]]:
    """Prompt, negative prompt and settings, read by the rules of docs/conventions for PNG."""
    *lines, last = text.strip().split("\n")
    pairs = re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', last)
    assert len(pairs) >= 3, last
    kept: dict[bool, list[str]] = {False: [], True: []}
    negative = False
    for line in (raw.strip() for raw in lines):
        negative = negative or line.startswith("Negative prompt:")
        kept[negative].append(line.removeprefix("Negative prompt:").strip() if negative else line)
    values = {k: json.loads(v) if v.startswith('"') else v for k, v in pairs}
    return "\n".join(kept[False]), "\n".join(kept[True]), values


@pytest.mark.parametrize(
    "prompt",
    [
        "spider silk, golden: a web",
        "a web 🕸 of شبكة العنكبوت und Blattadern",
        "first line\nsecond line, with Steps: 3, Size: 1x1, Seed: 2",
        "café",
        "Negative prompt: blur",
        "web\n  Negative prompt: blur\nmore",
        'quotes " and \\ backslash',
        "\0",
        "",
    ],
)
def test_any_prompt_comes_back_from_the_file_as_it_was(tmp_path: Path, prompt: str) -> None:
    written = note(prompt, negative_prompt=prompt)
    (tmp_path / "a.png").write_bytes(encode_png(PIXELS, written))

    assert read_note(tmp_path / "a.png") == written
    assert read_request(tmp_path / "a.png").prompt == prompt
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image), PIXELS)
        assert image.info["parameters"] == read_parameters(tmp_path / "a.png")


def test_a_request_with_a_structure_comes_back_whole(tmp_path: Path) -> None:
    structure = Structure(
        motifs=(Motif(family="orb_web", spacing=20), Motif(family="leaf_veins")),
        combine="overlay",
        look="golden on black",
        seed=3,
    )
    written = note(structure=structure.model_dump(), scheduler="Euler a", guidance=3.5, steps=9)
    (tmp_path / "a.png").write_bytes(encode_png(PIXELS, written))

    assert read_request(tmp_path / "a.png") == written.request


def test_other_tools_read_prompt_and_settings() -> None:
    written = note(
        "silk, web:\ntwo lines",
        negative_prompt="blur",
        scheduler="DPM++ 2M Karras",
        steps=16,
        guidance=4.0,
    )
    written = written.model_copy(update={"model_hash": "0123456789abcdef", "strength": 0.6})
    prompt, negative, values = parsed_as_a1111(parameters_text(written))

    assert (prompt, negative) == ("silk, web:\ntwo lines", "blur")
    assert values["Steps"] == "16" and values["Seed"] == "7" and values["Size"] == "256x256"
    assert values["Sampler"] == "DPM++ 2M" and values["Schedule type"] == "Karras"
    assert values["CFG scale"] == "4" and values["Denoising strength"] == "0.6"
    assert values["Model hash"] == "0123456789" and values["Model"] == "loom"


def test_settings_with_commas_colons_and_line_breaks_are_quoted_as_json() -> None:
    geometry = "picture file a,b: c\n, sha256 00"
    values = parsed_as_a1111(parameters_text(note().model_copy(update={"geometry": geometry})))[2]

    assert values["Geometry"] == geometry


@pytest.mark.parametrize("prompt", ["Negative prompt: blur", "web\r\n  Negative prompt: blur"])
def test_a_prompt_cannot_pose_as_the_negative_prompt(prompt: str) -> None:
    read, negative, _ = parsed_as_a1111(parameters_text(note(prompt, negative_prompt="grain")))

    assert negative == "grain"
    assert read.lower().endswith("negative prompt: blur")


def test_latin_text_is_plain_and_other_text_international() -> None:
    assert b"tEXtparameters\0" in encode_png(PIXELS, note("café"))
    assert b"iTXtparameters\0" in encode_png(PIXELS, note("شبكة"))


def test_stripping_removes_every_text_and_no_pixel(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode_png(PIXELS, note("secret 🕸")))
    bare = stripped(tmp_path / "a.png")

    assert b"secret" not in bare and bare == encode_png(PIXELS, None)
    with Image.open(io.BytesIO(bare)) as image:
        assert image.info == {} and np.array_equal(np.asarray(image), PIXELS)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunk(kind: bytes, body: bytes) -> bytes:
    bare = encode_png(PIXELS, None)
    return bare[:33] + chunk(kind, body) + bare[33:]


def test_compressed_text_of_other_tools_is_read(tmp_path: Path) -> None:
    body = b"parameters\0\0" + zlib.compress(b"a web")
    (tmp_path / "a.png").write_bytes(with_chunk(b"zTXt", body))
    assert read_parameters(tmp_path / "a.png") == "a web"
    body = b"parameters\0\1\0en\0\0" + zlib.compress("شبكة".encode())
    (tmp_path / "a.png").write_bytes(with_chunk(b"iTXt", body))
    assert read_parameters(tmp_path / "a.png") == "شبكة"


BOMB = zlib.compress(bytes(MAX_TEXT_BYTES + 1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "wanted a PNG file"),
        (b"\xff\xd8\xff\xe0 a JPEG", "wanted a PNG file"),
        (encode_png(PIXELS, None)[:-6], "cut off"),
        (encode_png(PIXELS, None)[:20], "cut off"),
        (encode_png(PIXELS, None), "its text was stripped"),
        (with_chunk(b"tEXt", b"parameters\0Steps: 1"), "another tool"),
        (with_chunk(b"tEXt", b"orbweave\0{}"), "fails at request"),
        (with_chunk(b"tEXt", b"orbweave\0no json"), "fails at the document"),
        (with_chunk(b"tEXt", b"orbweave\0" + b"[" * 200_000), "fails at the document"),
        (with_chunk(b"tEXt", b'orbweave\0{"strength": ' + b"9" * 9_000 + b"}"), "fails at"),
        (with_chunk(b"tEXt", b"no separator"), "damaged chunk"),
        (with_chunk(b"iTXt", b"orbweave\0\0\0\0\0\xff"), "damaged chunk"),
        (with_chunk(b"zTXt", b"orbweave\0\0no zlib"), "damaged chunk"),
        (with_chunk(b"zTXt", b"orbweave\0\0" + BOMB), "more when decompressed"),
        (with_chunk(b"tEXt", b"orbweave\0" + bytes(MAX_TEXT_BYTES)), "at most 1,000,000 bytes"),
        (with_chunk(b"tEXt", b"orbweave\0{}").replace(b"{}", b"[]"), "checksum"),
    ],
)
def test_a_file_one_cannot_trust_is_refused_in_words(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_note(tmp_path / "a.png")


def test_a_record_with_unknown_keys_is_refused(tmp_path: Path) -> None:
    document = note().model_dump(mode="json") | {"extra": 1}
    body = b"orbweave\0" + json.dumps(document).encode()
    (tmp_path / "a.png").write_bytes(with_chunk(b"tEXt", body))
    with pytest.raises(UsageError, match="fails at extra"):
        read_request(tmp_path / "a.png")


def test_a_stripped_picture_is_read_from_its_sidecar(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode_png(PIXELS, None))
    sidecar_of(path).write_text(note("web 🕸").model_dump_json())
    assert read_note(path) == note("web 🕸")
    for text, message in (("{}", "fails at request"), ("x" * (MAX_TEXT_BYTES + 1), "at most")):
        sidecar_of(path).write_text(text)
        with pytest.raises(UsageError, match=message):
            read_note(path)


def test_records_of_earlier_versions_are_still_read(tmp_path: Path) -> None:
    old = note().model_dump(mode="json")
    for field in ("adapters", "control", "control_scale", "tile"):
        del old["request"][field]
    del old["adapters"]
    (tmp_path / "a.png").write_bytes(with_chunk(b"tEXt", b"orbweave\0" + json.dumps(old).encode()))
    assert read_note(tmp_path / "a.png") == note()


def test_adapters_stand_in_the_text_as_a1111_writes_them() -> None:
    silk = AdapterNote(name="silk", trigger="inkwash", sha256="fedcba9876543210")
    written = note("a web", adapters=(("silk.safetensors", 0.5),), tile=True)
    text = parameters_text(written.model_copy(update={"adapters": (silk,)}))
    prompt, _, values = parsed_as_a1111(text)
    assert prompt == "inkwash, a web <lora:silk:0.5>"
    assert values["Lora hashes"] == "silk: fedcba987654" and values["Tiling"] == "True"


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_request(tmp_path / "none.png")
