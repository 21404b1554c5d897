"""A design as Markdown; what people and models wrote can make no markup of it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ui.document import Block, Figure, Heading, Paragraph, Quote, Source
from ui.markdown import aligned_table

__all__ = ["markdown_report"]

_MARKS = re.compile(r"([\\`*_{}\[\]<>#|~&!])")
_OPENERS = re.compile(r"^(\s*)([-+=])|^(\s*\d+)([.)])(?=\s|$)", re.MULTILINE)
"""What would begin a list, a rule or a title at the start of a line."""


def markdown_report(blocks: Sequence[Block]) -> str:
    """Return a document as Markdown; pictures are named by their paths."""
    return "\n\n".join(map(_markdown, blocks)) + "\n"


def _markdown(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {_plain(' '.join(block.text.split()))}"
    if isinstance(block, Paragraph):
        return _plain(block.text)
    if isinstance(block, Quote):
        return "\n".join(f"> {line}".rstrip() for line in _plain(block.text).splitlines())
    if isinstance(block, Source):
        where = f" <{_address(block.url)}>" if block.url else ""
        return f"- `{block.id}` {_plain(block.statement)} ({_plain(block.title)}){where}"
    if isinstance(block, Figure):
        return f"![{_plain(block.caption)}]({block.path})"
    rows = [[_plain(" ".join(cell.split())) for cell in row] for row in block.rows]
    return aligned_table(block.head, rows).rstrip()


def _plain(text: str) -> str:
    return _OPENERS.sub(r"\1\3\\\2\4", _MARKS.sub(r"\\\1", text))


def _address(url: str) -> str:
    return re.sub(r"[<>\s]", "", url)
