"""A user's own corpora as facts: what `orbweave ingest` wrote, or facts in the shipped form.

    own = read_corpora([Path("corpus")])
    load_knowledge(own=own)

Of an ingested corpus every sentence that could stand alone is a fact: a quotation, word for word,
with its document as the source. A file of facts is read as it is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

from agents.claims import sentences
from agents.knowledge import OWN, Fact, OwnFacts, read_fact
from orbweave.errors import UsageError, shown
from orbweave.records import Corpus

__all__ = ["read_corpora"]

CHUNKS = "chunks.jsonl"
"""As `orbweave ingest` calls it in the folder of a corpus."""
_MIN_WORDS, _MAX_WORDS = 8, 60
"""Words of a sentence that can be a fact; the sentence model reads about 200 words at most."""
_MARKUP = re.compile(r"^\s*(?:[#|>*+-]|\d+[.)]\s|!\[)")
_SHOWN_LINES = 5
"""Broken lines that an error names."""


class _Quoted(NamedTuple):
    """A sentence of a document."""

    text: str
    title: str
    place: str
    """Address of the document, or its file."""


def read_corpora(places: Sequence[Path]) -> tuple[OwnFacts, ...]:
    """Return what each corpus says; ids of quotations count upwards over all of them.

    Args:
        places: Folders that `orbweave ingest` made, or files of facts in the shipped form.

    Raises:
        UsageError: a place is none of these, says nothing, or holds broken lines, which are
            named by file and line.
    """
    numbers = count(1)
    return tuple(_read(place, lambda: f"{OWN}-{next(numbers):06d}") for place in places)


def _read(place: Path, new_id: Callable[[], str]) -> OwnFacts:
    path = (place / CHUNKS if place.is_dir() else place).absolute()
    try:
        content = path.read_bytes()
        lines = content.decode("utf-8").split("\n")
    except OSError as err:
        raise UsageError(
            f"wanted facts in {shown(place)}, the system said {shown(err.strerror or err)}; give "
            "a folder made by `orbweave ingest SOURCES... --out CORPUS`, or a file of facts"
        ) from err
    except UnicodeDecodeError as err:
        raise UsageError(f"wanted text in UTF-8 in {path}, got {shown(err)}; save it so") from err
    read = _quotations if path.name == CHUNKS else _as_they_are
    facts = tuple(read(lines, path, new_id))
    if not facts:
        raise UsageError(f"wanted at least one fact in {path}, found none; give another corpus")
    digest = hashlib.sha256(content).hexdigest()
    return OwnFacts(Corpus(path=str(path), sha256=digest, n_facts=len(facts)), facts)


def _as_they_are(lines: Sequence[str], path: Path, _: Callable[[], str]) -> Iterator[Fact]:
    facts: dict[str, Fact] = {}

    def take(line: str, where: str) -> None:
        fact = read_fact(line, where)
        if fact.id in facts:
            raise UsageError(f"{fact.id} comes again")
        facts[fact.id] = fact

    _each(lines, path, take)
    yield from facts.values()


def _quotations(lines: Sequence[str], path: Path, new_id: Callable[[], str]) -> Iterator[Fact]:
    quoted: dict[str, _Quoted] = {}

    def take(line: str, where: str) -> None:
        chunk = json.loads(line)
        title = " / ".join([chunk["title"], *chunk["headings"]])
        for text in _statements(chunk["text"]):
            quoted.setdefault(text, _Quoted(text, title, chunk["url"] or chunk["source"]))

    _each(lines, path, take)
    for each in quoted.values():
        yield Fact(
            id=new_id(),
            domain=OWN,
            topic="quotation",
            statement=each.text,
            quantity=None,
            visual=None,
            source_title=each.title,
            source_url=each.place,
        )


def _statements(text: str) -> Iterator[str]:
    """Yield the sentences of a text that could stand alone: no headings, tables or lists."""
    for paragraph in re.split(r"\n\s*\n", text):
        if not _MARKUP.match(paragraph):
            for sentence in sentences(" ".join(paragraph.split())):
                n_words = len(sentence.split())
                if _MIN_WORDS <= n_words <= _MAX_WORDS and sentence[-1] in ".!?\"')]":
                    yield sentence


def _each(lines: Sequence[str], path: Path, take: Callable[[str, str], None]) -> None:
    """Hand every line on; name all that cannot be read.

    Raises:
        UsageError: there are such lines.
    """
    broken: dict[int, str] = {}
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                take(line, f"line {number}")
        except (UsageError, ValueError, KeyError, TypeError, AttributeError) as err:
            broken[number] = shown(err, 80)
    if broken:
        some = "; ".join(f"line {n}: {why}" for n, why in list(broken.items())[:_SHOWN_LINES])
        raise UsageError(
            f"wanted a fact or a chunk in every line of {path}, {len(broken)} are broken ({some}); "
            "mend them, or run `orbweave ingest` again"
        )
