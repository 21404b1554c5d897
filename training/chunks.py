"""Documents cut into pieces of bounded length that know where they come from.

Every piece is a span of its document's text: pieces do not overlap and leave out nothing but
white space. Cuts fall between sections where they can, else between paragraphs, else between
sentences, and inside a sentence only if it is longer than a whole piece.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from training.sources import Document

__all__ = ["MAX_CHARS", "Chunk", "chunk", "sentence_ends"]

MAX_CHARS = 4_000
"""About a thousand tokens of English: two fit a training row, with room for a teacher's prompt."""
_LEAST_SHARE = 0.25
"""A heading begins a new piece once the last one holds this share of the bound."""

Span = tuple[int, int]
"""(start, end) in characters of the document's text."""


@dataclass(frozen=True)
class Chunk:
    """One piece of a document."""

    id: str
    """`<document>:<start>-<end>` in characters, so the id names exactly this text."""
    document: str
    title: str
    headings: tuple[str, ...]
    """Headings above its first words, outermost first."""
    text: str
    source: str
    url: str


def chunk(document: Document, max_chars: int = MAX_CHARS) -> list[Chunk]:
    """Return the pieces of a document, in order, each at most `max_chars` long.

    Raises:
        ValueError: `max_chars` is below 1.
    """
    if max_chars < 1:
        raise ValueError(f"max_chars must be at least 1, got {max_chars}")
    text = document.text
    paths = _heading_paths(text)
    return [
        Chunk(
            id=f"{document.id}:{start}-{end}",
            document=document.id,
            title=document.title,
            headings=next((path for last, path in paths if last > start), ()),
            text=text[start:end],
            source=document.source,
            url=document.url,
        )
        for start, end in _packed(text, max_chars)
    ]


_HEADING = re.compile(r"(#{1,6}) +(.+?)[ #]*$")
_FENCE = re.compile(r"(?:```|~~~)")


def _packed(text: str, max_chars: int) -> Iterator[Span]:
    """Yield spans of neighbouring parts that fit together."""
    start = end = -1
    for part_start, part_end in _parts(text, max_chars):
        is_due = text[part_start] == "#" and end - start >= _LEAST_SHARE * max_chars
        if start >= 0 and (is_due or part_end - start > max_chars):
            yield start, end
            start = part_start
        elif start < 0:
            start = part_start
        end = part_end
    if start >= 0:
        yield start, end


def _parts(text: str, max_chars: int) -> Iterator[Span]:
    """Yield paragraphs, tables and code, with the headings above them where that fits."""
    head: Span | None = None
    for start, end in _blocks(text):
        if _HEADING.match(text[start:end]):
            if head and end - head[0] > max_chars:
                yield from _fitted(text, *head, max_chars)
                head = None
            head = (head[0] if head else start, end)
            continue
        if head and end - head[0] > max_chars:
            # What is too long is cut anyway: its first piece keeps the heading.
            is_cut = end - start > max_chars
            if not is_cut:
                yield from _fitted(text, *head, max_chars)
            start = head[0] if is_cut else start
        elif head:
            start = head[0]
        head = None
        yield from _fitted(text, start, end, max_chars)
    if head:
        yield from _fitted(text, *head, max_chars)


def _blocks(text: str) -> Iterator[Span]:
    """Yield spans between blank lines; a heading is one of its own, a fence is never opened."""
    start, position, is_fenced = -1, 0, False
    for line in text.split("\n"):
        end = position + len(line)
        is_heading = not is_fenced and _HEADING.match(line) is not None
        is_blank = not is_fenced and not line.strip()
        if (is_heading or is_blank) and start >= 0:
            yield start, position - 1
            start = -1
        if is_heading:
            yield position, end
        elif not is_blank and start < 0:
            start = position
        if _FENCE.match(line):
            is_fenced = not is_fenced
        position = end + 1
    if start >= 0:
        yield start, len(text)


def _fitted(text: str, start: int, end: int, max_chars: int) -> Iterator[Span]:
    """Yield a long block in pieces, cut after the last sentence, line or word that fits."""
    while end - start > max_chars:
        window = text[start : start + max_chars]
        cut = next((at for at in _cuts(window) if at), max_chars)
        yield start, start + len(window[:cut].rstrip())
        start += cut
        start += len(text[start:end]) - len(text[start:end].lstrip())
    if start < end:
        yield start, end


def _cuts(window: str) -> Iterator[int]:
    """Yield where to cut: after a sentence, a line, a clause, a word; 0 where there is none."""
    yield max(sentence_ends(window), default=0)
    yield window.rfind("\n") + 1
    for mark in (";", ":", ","):
        found = window.rfind(mark + " ")
        yield found + 1 if found > len(window) // 2 else 0
    yield window.rfind(" ") + 1


_SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*(?=\s+[\"'“‘(\[]?[^\Wa-z_])")
"""A mark, perhaps a closing quote, then a blank and anything but a small letter."""
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|cf|vs|al|Figs?|Eqs?|Refs?|Nos?|Vol|pp?|Dr|Prof|St|approx|ca|resp|Sect|Tab|"
    r"Chap|ed|eds|sp|spp|var|[A-Z])|\b\d{1,2})\.$"
)
"""Full stops that end no sentence: abbreviations, initials, the number of a list."""


def sentence_ends(text: str) -> Iterable[int]:
    """Return the positions just behind each sentence that another one follows."""
    ends = (match.end() for match in _SENTENCE_END.finditer(text))
    return [at for at in ends if not _ABBREVIATION.search(text[max(0, at - 12) : at])]


def _heading_paths(text: str) -> list[tuple[int, tuple[str, ...]]]:
    """Return (end, headings above it, outermost first) of every block that is no heading."""
    path: list[tuple[int, str]] = []
    paths = []
    for start, end in _blocks(text):
        found = _HEADING.match(text[start:end])
        if found:
            level = len(found[1])
            path = [*(pair for pair in path if pair[0] < level), (level, found[2])]
        else:
            paths.append((end, tuple(heading for _, heading in path)))
    return paths
