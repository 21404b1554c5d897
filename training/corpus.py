"""A corpus: documents, their chunks, and a ledger that says what became of every source.

    CORPUS/
        documents.jsonl   one document a line
        chunks.jsonl      one chunk a line; a text source that `orbweave train` reads as it is
        ledger.csv        every source: kept, or excluded and why; written last
        parts/            what was read so far, one file for each source

A part is written whole when its source is finished, so an interrupted run goes on where it
stopped, and sources read before are not opened again unless they changed. Gate, duplicates
and chunks are worked out anew from the parts each time: other settings cost no reading.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TextIO

from orbweave.errors import OutputError, UsageError, shown
from orbweave.files import write_text
from training.chunks import MAX_CHARS, Chunk, chunk
from training.duplicates import Copies
from training.quality import GATE, Quality, gate, quality
from training.sources import Document, Excluded, find, read

__all__ = ["LedgerRow", "Summary", "ingest", "is_corpus", "pending", "read_chunks"]

DOCUMENTS, CHUNKS, LEDGER, PARTS = "documents.jsonl", "chunks.jsonl", "ledger.csv", "parts"
_BUILD = 1
"""Raised when the same file shall be read anew because a reader changed."""


@dataclass(frozen=True)
class LedgerRow:
    """What became of one source."""

    source: str
    title: str
    status: str
    """`kept` or `excluded`."""
    reason: str = ""
    """Why excluded, a kind before the colon; empty if kept."""
    note: str = ""
    document: str = ""
    """Id of the document; empty where none could be read."""
    url: str = ""
    sha256: str = ""
    characters: int = 0
    chunks: int = 0
    chunks_left_out: int = 0
    """Chunks under the gate in a document that is above it."""
    score: float | None = None
    symbols: float | None = None
    repeats: float | None = None
    lines: float | None = None
    language: float | None = None
    """Text quality and its parts, see `training.quality`; empty where nothing was read."""


@dataclass(frozen=True)
class Summary:
    """The ledger in numbers."""

    total: int
    kept: int
    excluded: int
    chunks: int
    characters: int
    """In the chunks."""
    reasons: dict[str, int]
    """Kind of reason -> sources excluded for it, most frequent first."""


def ingest(
    sources: Sequence[Path],
    out: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    max_chars: int = MAX_CHARS,
    min_quality: float = GATE,
    about: Sequence[str] = (),
    force: bool = False,
) -> Summary:
    """Read sources into the corpus folder `out`; what an earlier run read there stays.

    Args:
        sources: Files and folders, see `training.sources`.
        out: The corpus; begun, or gone on with.
        on_progress: Is told (files finished, files in all).
        max_chars: Longest chunk.
        min_quality: Least text quality of documents and chunks, in [0, 1]; 0 keeps everything,
            for a corpus that is only distilled.
        about: A document that holds none of these words is off topic; empty keeps all.
        force: Forget what was read before and begin anew.

    Raises:
        UsageError: a source does not exist, a setting lies outside its range, or every source
            was excluded (the ledger is written then, too).
        OutputError: `out` is something else, or cannot be written.
    """
    if not 0 <= min_quality <= 1 or max_chars < 100:
        raise UsageError(
            f"wanted min_quality in [0, 1] and max_chars of at least 100, "
            f"got {min_quality} and {max_chars}"
        )
    files = find(sources)
    _check_ours(out)
    if force:
        for part in _known_parts(out).values():
            part.unlink()
    todo = pending(files, out)
    known = _known_parts(out)
    on_progress(len(files) - len(todo), len(files))
    for number, path in enumerate(todo, len(files) - len(todo) + 1):
        _read_into(path, out / PARTS, known)
        on_progress(number, len(files))
    summary = _assemble(out, max_chars, min_quality, about)
    if not summary.kept:
        raise UsageError(
            f"wanted at least one document, all {summary.total} sources were excluded "
            f"({_counted(summary.reasons)}); {out / LEDGER} says why"
        )
    return summary


def pending(files: Iterable[Path], out: Path) -> list[Path]:
    """Return the files that `ingest` would have to read."""
    known = {part.stem.partition("-")[2] for part in _known_parts(out).values()}
    return [path for path in files if "-".join(_stamp(path)) not in known]


def is_corpus(folder: Path) -> bool:
    """Tell whether a folder is a corpus, finished or begun."""
    return (folder / PARTS).is_dir() or (folder / LEDGER).is_file()


def read_chunks(corpus: Path) -> list[Chunk]:
    """Return the chunks of a finished corpus.

    Raises:
        UsageError: there is none, it is unfinished or empty, or a line is damaged.
    """
    if not (corpus / LEDGER).is_file():
        raise UsageError(
            f"wanted a finished corpus in {corpus}, found no {LEDGER}; "
            "make it with `orbweave ingest SOURCES... --out CORPUS`, or run that again"
        )
    try:
        with (corpus / CHUNKS).open(encoding="utf-8") as lines:
            chunks = [_chunk(json.loads(line)) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise UsageError(
            f"wanted chunks in {corpus / CHUNKS}, {shown(err, 120)}; run `orbweave ingest` again"
        ) from err
    if not chunks:
        raise UsageError(f"wanted at least one chunk in {corpus}, found none; see its {LEDGER}")
    return chunks


def _chunk(row: Mapping[str, Any]) -> Chunk:
    known = {field.name: row[field.name] for field in fields(Chunk)}
    return Chunk(**known | {"headings": tuple(row["headings"])})


def _check_ours(out: Path) -> None:
    """Raise OutputError unless `out` is new, empty, or a corpus."""
    is_free = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    if not is_free and not (out.is_dir() and is_corpus(out)):
        raise OutputError(
            f"wanted a new folder or an earlier corpus at {out}, found something else; "
            "choose another --out"
        )


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in reasons.items())


# ---------------------------------------------------------------- parts


def _stamp(path: Path) -> tuple[str, str]:
    """Return (place, state) of a file, 16 and 8 hex digits, without opening it."""
    stat = path.stat()
    state = f"{_BUILD} {stat.st_size} {stat.st_mtime_ns}"
    names = (str(path.resolve()), state)
    place, state = (hashlib.sha256(name.encode()).hexdigest() for name in names)
    return place[:16], state[:8]


def _known_parts(out: Path) -> dict[str, Path]:
    """Return place -> part; parts are called `<number>-<place>-<state>.json`."""
    return {part.stem.split("-")[1]: part for part in sorted((out / PARTS).glob("*-*-*.json"))}


def _read_into(path: Path, parts: Path, known: dict[str, Path]) -> None:
    """Read one file and write its part; the part of an earlier state of the file makes room."""
    place, state = _stamp(path)
    items = [{"kind": type(item).__name__, **asdict(item)} for item in read(path)]
    old = known.get(place)
    last = max((int(part.name.partition("-")[0]) for part in known.values()), default=0)
    number = old.name.partition("-")[0] if old else f"{last + 1:06d}"
    known[place] = parts / f"{number}-{place}-{state}.json"
    write_text(known[place], json.dumps(items, ensure_ascii=False))
    if old:
        old.unlink()


def _items(parts: Path) -> Iterator[Document | Excluded]:
    """Yield everything read so far, in the order of first reading."""
    for part in sorted(parts.glob("*-*-*.json")):
        for item in json.loads(part.read_bytes()):
            kind = item.pop("kind")
            yield Document(**item) if kind == Document.__name__ else Excluded(**item)


# ---------------------------------------------------------------- documents, chunks, ledger


def _assemble(out: Path, max_chars: int, min_quality: float, about: Sequence[str]) -> Summary:
    """Write documents, chunks and ledger from the parts; without ledger they are unfinished."""
    rows: list[LedgerRow] = []
    copies, links = Copies(), dict[str, str]()
    characters = 0
    (out / LEDGER).unlink(missing_ok=True)
    with _whole(out / DOCUMENTS) as documents, _whole(out / CHUNKS) as chunks:
        for item in _items(out / PARTS):
            if isinstance(item, Excluded):
                rows.append(LedgerRow(item.source, item.title, "excluded", item.reason))
                continue
            found = quality(item.text)
            row = _row(item, found)
            reason = (
                _off_topic(item, about) or gate(found, min_quality) or _copied(item, copies, links)
            )
            if reason is None:
                pieces = chunk(item, max_chars)
                good = [c for c in pieces if gate(quality(c.text), min_quality) is None]
                row = replace(row, chunks=len(good), chunks_left_out=len(pieces) - len(good))
                reason = None if good else "quality: each of its chunks alone is under the gate"
            if reason is not None:
                rows.append(replace(row, status="excluded", reason=reason, chunks=0))
                continue
            rows.append(row)
            characters += sum(len(c.text) for c in good)
            _write_line(documents, asdict(item))
            for piece in good:
                _write_line(chunks, asdict(piece))
    write_text(out / LEDGER, _table(rows))
    excluded = [row for row in rows if row.status == "excluded"]
    return Summary(
        total=len(rows),
        kept=len(rows) - len(excluded),
        excluded=len(excluded),
        chunks=sum(row.chunks for row in rows),
        characters=characters,
        reasons=dict(Counter(row.reason.partition(":")[0] for row in excluded).most_common()),
    )


def _row(document: Document, found: Quality) -> LedgerRow:
    return LedgerRow(
        source=document.source,
        title=document.title,
        status="kept",
        note=document.note,
        document=document.id,
        url=document.url,
        sha256=document.sha256,
        characters=len(document.text),
        score=round(found.score, 4),
        **{name: round(part, 4) for name, part in found._asdict().items()},
    )


def _off_topic(document: Document, about: Sequence[str]) -> str | None:
    text = f"{document.title}\n{document.text}".lower()
    if not about or any(word.lower() in text for word in about):
        return None
    return f"off topic: it holds none of {', '.join(about)}"


def _copied(document: Document, copies: Copies, links: dict[str, str]) -> str | None:
    """Return whose copy a document is, by its DOI or its words; None for a first one."""
    # An entry of a bibliography is a whole work; rows of other files may be parts of one.
    is_entry = Path(document.source.partition("#")[0]).suffix.lower() in {".bib", ".csv"}
    doi = document.url if is_entry and document.url.startswith("https://doi.org/") else ""
    if doi in links:
        return f"duplicate: same DOI as {links[doi]}"
    original = copies.original_of(document.source, document.text)
    if original is not None:
        return f"duplicate: {original[1]:.0%} of {original[0]}"
    if doi:
        links[doi] = document.source
    return None


def _table(rows: Sequence[LedgerRow]) -> str:
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, [field.name for field in fields(LedgerRow)])
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in asdict(row).items()} for row in rows)
    return table.getvalue()


def _write_line(file: TextIO, record: Mapping[str, Any]) -> None:
    file.write(json.dumps(record, ensure_ascii=False) + "\n")


@contextmanager
def _whole(path: Path) -> Iterator[TextIO]:
    """Yield a file that takes its name only when the block succeeds; a corpus may be large."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as err:
        raise OutputError(
            f"wanted to write {path}, the system said {shown(err.strerror or err)}; "
            "free some space or choose another place"
        ) from err
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
