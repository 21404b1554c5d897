"""The story a PNG tells of itself: the `parameters` text others read, and our complete record.

Two text chunks: `parameters`, in the form AUTOMATIC1111's web UI writes and many tools
parse, and `orbweave`, one JSON document with everything needed to render the picture again.
Text that is not Latin-1 goes into iTXt (PNG specification, third edition, 11.3.3).
"""

from __future__ import annotations

import io
import json
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from imagegen.fields import in_words
from imagegen.picture_file import refuse_pipe
from orbweave import __version__
from orbweave.errors import UsageError, shown
from orbweave.records import Record, RenderRequest

__all__ = [
    "AdapterNote",
    "PngNote",
    "encode_png",
    "has_record",
    "parameters_text",
    "read_note",
    "read_parameters",
    "read_request",
    "read_texts",
    "sidecar_of",
    "stripped",
]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
MAX_TEXT_BYTES = 1_000_000
"""Longest text chunk read, after decompression; a long prompt has some 10,000."""
MAX_CHUNKS = 100_000
"""A 4096 x 4096 picture in the smallest usual IDAT pieces (8 kB) stays below this."""
PARAMETERS_KEY = "parameters"
NOTE_KEY = "orbweave"


class AdapterNote(Record):
    """What a picture knows of an adapter besides its reference and weight."""

    name: str
    """Without path and ending, as A1111 names it."""
    trigger: str = ""
    """Words that were put before the prompt, unless it held them."""
    sha256: str = ""


class PngNote(Record):
    """Everything a picture knows of its making; the JSON in the chunk `orbweave`."""

    schema_version: Literal[1] = 1
    request: RenderRequest
    """With `seeds` holding just this picture's seed."""
    geometry: str
    """Where the geometry came from: `structure seed: ...`, `sketched from the words: ...`, `text
    alone`, `picture file ...`."""
    strength: float | None = None
    """Share of the denoising done on the geometry; None where there was none."""
    model_hash: str = ""
    """First characters of the model's sha256; empty if unknown."""
    adapters: tuple[AdapterNote, ...] = ()
    """In the order of the request's."""
    lost_words: tuple[str, ...] = ()
    """Words of the prompt the text encoder did not read."""
    environment: dict[str, str] = {}
    """Versions, device and number type; they too decide the last bits of the pixels."""


def parameters_text(note: PngNote) -> str:
    """Return the text other tools read: prompt, negative prompt, one line of settings.

    The settings line has `Key: value` pairs; values with a comma, colon or line break are
    quoted as JSON strings. A prompt line that starts with `Negative prompt:` would be read
    as the negative prompt, so its first letter is written small; the JSON chunk keeps the
    exact words.

    Source: the form written by AUTOMATIC1111's stable-diffusion-webui, infotext.
    """
    r = note.request
    sampler, _, schedule = r.scheduler.partition(" Karras")
    pairs: dict[str, object] = {"Steps": r.steps, "Sampler": sampler}
    if "Karras" in r.scheduler:
        pairs["Schedule type"] = "Karras"
    pairs |= {"CFG scale": f"{r.guidance:g}", "Seed": r.seeds[0], "Size": f"{r.width}x{r.height}"}
    if note.model_hash:
        pairs["Model hash"] = note.model_hash[:10]
    pairs["Model"] = r.model
    hashes = [f"{a.name}: {a.sha256[:12]}" for a in note.adapters if a.sha256]
    if hashes:
        pairs["Lora hashes"] = ", ".join(hashes)
    if r.tile:
        pairs["Tiling"] = True
    if note.strength is not None:
        pairs["Denoising strength"] = f"{note.strength:g}"
    pairs["Geometry"] = note.geometry
    pairs["Version"] = f"orbweave {__version__}"
    settings = ", ".join(f"{key}: {_quoted(str(value))}" for key, value in pairs.items())
    parts = [_plain(_with_adapters(note))]
    if r.negative_prompt.strip():
        parts.append("Negative prompt: " + _plain(r.negative_prompt))
    return "\n".join([*parts, settings])


def _with_adapters(note: PngNote) -> str:
    """The prompt as it would be typed into A1111: trigger words first, adapters last."""
    prompt = note.request.prompt
    triggers = [a.trigger for a in note.adapters if a.trigger.lower() not in prompt.lower()]
    weights = [weight for _, weight in note.request.adapters]
    named = zip(note.adapters, weights, strict=False)
    tags = "".join(f" <lora:{a.name}:{weight:g}>" for a, weight in named)
    return ", ".join([*dict.fromkeys(triggers), prompt]) + tags


def _plain(prompt: str) -> str:
    """Prompt lines as they can stand in the text: no NUL, no false `Negative prompt:`."""
    text = prompt.replace("\0", " ").replace("\r\n", "\n").replace("\r", "\n")
    return re.sub(r"(?m)^([^\S\n]*)N(?=egative prompt:)", r"\1n", text)


def _quoted(value: str) -> str:
    if not re.search(r'[,:\n\r"]', value):
        return value
    return json.dumps(value, ensure_ascii=False)


def encode_png(pixels: NDArray[np.uint8], note: PngNote | None) -> bytes:
    """Return a PNG file as bytes.

    Args:
        pixels: (H, W, 3) uint8, red green blue.
        note: What to write beside the pixels; None writes a bare picture.
    """
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    bare = buffer.getvalue()
    if note is None:
        return bare
    texts = {PARAMETERS_KEY: parameters_text(note), NOTE_KEY: note.model_dump_json()}
    # Before the pixels, where readers that stop at them still find it: after IHDR, always 25 bytes.
    at = len(SIGNATURE) + 25
    return bare[:at] + b"".join(_text_chunk(k, t) for k, t in texts.items()) + bare[at:]


def _text_chunk(key: str, text: str) -> bytes:
    try:
        kind, body = b"tEXt", key.encode("ascii") + b"\0" + text.encode("latin-1")
    except UnicodeEncodeError:
        # Uncompressed (two zero bytes), no language, no translated key.
        kind, body = b"iTXt", key.encode("ascii") + b"\0\0\0\0\0" + text.encode()
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def read_note(path: Path) -> PngNote:
    """Return the record a picture of ours carries, or that lies beside it.

    Raises:
        UsageError: not a PNG, damaged, without our chunk, or a record of another version.
    """
    texts = read_texts(path)
    if NOTE_KEY not in texts and sidecar_of(path).is_file():
        texts[NOTE_KEY] = _sidecar_text(sidecar_of(path))
    if NOTE_KEY not in texts:
        hint = (
            "it has settings of another tool only, which name no complete request; "
            "`orbweave reproduce` goes as far as they do"
            if PARAMETERS_KEY in texts
            else "its text was stripped, or another program wrote it"
        )
        raise UsageError(f"wanted a picture with an Orbweave record, got {path}: {hint}")
    try:
        return PngNote.model_validate_json(texts[NOTE_KEY])
    except ValidationError as err:
        first = err.errors()[0]
        where = in_words(first["loc"]) or "the document"
        raise UsageError(
            f"wanted an Orbweave record of version 1 in {path}, got one that fails at "
            f"{where}: {first['msg']}; it was edited, or written by another version"
        ) from err


def has_record(path: Path) -> bool:
    """Whether a PNG carries a record of ours, or text too damaged to tell; other files do not."""
    try:
        return NOTE_KEY in read_texts(path)
    except UsageError:
        with _opened(path) as file:
            return file.read(len(SIGNATURE)) == SIGNATURE


def read_request(path: Path) -> RenderRequest:
    """Return the request that made a picture; raises as `read_note`."""
    return read_note(path).request


def read_parameters(path: Path) -> str | None:
    """Return the `parameters` text of a PNG of any tool, None if it has none.

    Raises:
        UsageError: not a PNG, or damaged.
    """
    return read_texts(path).get(PARAMETERS_KEY)


def sidecar_of(path: Path) -> Path:
    """Return where a picture's record lies if it is written beside it as well."""
    return path.with_suffix(".json")


def _sidecar_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise _too_long(path, "more")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise UsageError(f"wanted a record in {path}, got no readable text") from err


def stripped(path: Path) -> bytes:
    """Return the PNG without any text chunk; the pixels stay as they are, bit for bit.

    Raises:
        UsageError: not a PNG, or damaged.
    """
    with _opened(path) as file:
        kept = [c for c in _chunks(file, path) if c.kind not in TEXT_CHUNKS]
        pieces = [SIGNATURE]
        for chunk in kept:
            file.seek(chunk.offset)
            pieces.append(file.read(chunk.length + 12))
    return b"".join(pieces)


class _Chunk(NamedTuple):
    kind: bytes
    offset: int
    """Of the length field, from the start of the file."""
    length: int
    """Bytes of the body alone."""


def _opened(path: Path) -> BinaryIO:
    try:
        refuse_pipe(path, "PNG")
        return path.open("rb")
    except OSError as err:
        raise UsageError(f"wanted a PNG file, got {path}: {err.strerror}; check the path") from err


def _chunks(file: BinaryIO, path: Path) -> Iterator[_Chunk]:
    """Walk over the chunks without reading their bodies."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    start = file.read(len(SIGNATURE))
    if start != SIGNATURE:
        came = f"which starts with {shown(start, 20)}" if start else "which is empty"
        raise UsageError(f"wanted a PNG file, got {path}, {came}; give the file as it was written")
    offset = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        file.seek(offset)
        head = file.read(8)
        length, kind = struct.unpack(">I4s", head) if len(head) == 8 else (0, b"")
        if not kind or offset + length + 12 > size:
            raise UsageError(
                f"wanted a whole PNG file, got {path}, cut off at {size:,} bytes; copy it again"
            )
        yield _Chunk(kind, offset, length)
        if kind == b"IEND":
            return
        offset += length + 12
    raise UsageError(f"wanted a PNG of at most {MAX_CHUNKS:,} chunks, got more in {path}")


def read_texts(path: Path) -> dict[str, str]:
    """Return all text of a PNG by key; the first of two chunks with one key counts.

    Raises:
        UsageError: not a PNG, damaged, or text that is too long or not readable.
    """
    texts: dict[str, str] = {}
    with _opened(path) as file:
        for chunk in _chunks(file, path):
            if chunk.kind not in TEXT_CHUNKS:
                continue
            if chunk.length > MAX_TEXT_BYTES:
                raise _too_long(path, f"{chunk.length:,} bytes")
            file.seek(chunk.offset + 8)
            body = file.read(chunk.length)
            if struct.unpack(">I", file.read(4))[0] != zlib.crc32(chunk.kind + body):
                raise UsageError(
                    f"wanted a sound PNG file, got {path} with a text chunk whose checksum "
                    "is wrong; copy it again"
                )
            try:
                key, text = _decoded(chunk.kind, body, path)
            except (ValueError, zlib.error) as err:  # UnicodeDecodeError is a ValueError
                raise UsageError(
                    f"wanted readable text in {path}, got a damaged chunk; copy the file again"
                ) from err
            texts.setdefault(key, text)
            if sum(map(len, texts.values())) > 4 * MAX_TEXT_BYTES or len(texts) > 1_000:
                raise _too_long(path, "more in all its chunks")
    return texts


def _decoded(kind: bytes, body: bytes, path: Path) -> tuple[str, str]:
    """(key, text) of one text chunk; PNG specification 11.3.3."""
    key, rest = body.split(b"\0", 1)
    if kind == b"tEXt":
        return key.decode("latin-1"), rest.decode("latin-1")
    if kind == b"zTXt":
        return key.decode("latin-1"), _inflated(rest[1:], path).decode("latin-1")
    compressed = rest[:1] == b"\1"
    _, _, data = rest[2:].split(b"\0", 2)
    return key.decode("latin-1"), (_inflated(data, path) if compressed else data).decode()


def _inflated(data: bytes, path: Path) -> bytes:
    machine = zlib.decompressobj()
    out = machine.decompress(data, MAX_TEXT_BYTES + 1)
    if len(out) > MAX_TEXT_BYTES:
        raise _too_long(path, "more when decompressed")
    return out


def _too_long(path: Path, came: str) -> UsageError:
    return UsageError(
        f"wanted text of at most {MAX_TEXT_BYTES:,} bytes in {path}, got {came}; "
        "no tool writes so much, save the picture without it"
    )
