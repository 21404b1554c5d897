r"""A design as LaTeX that plain pdflatex compiles beside its pictures."""

from __future__ import annotations

from collections.abc import Sequence

from agents.latex import escape
from ui.document import Block, Figure, Heading, Paragraph, Quote, Source, Table

__all__ = ["latex_report"]

_HEAD = r"""\documentclass[11pt,a4paper]{article}
\usepackage[T1]{fontenc}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\usepackage{textcomp}
\usepackage{amssymb}
\usepackage{graphicx}
\usepackage{longtable}
\setlength{\parindent}{0pt}
\setlength{\parskip}{0.5em}
\setlength{\emergencystretch}{4em}
\sloppy
% A character that these fonts do not have.
\newcommand{\unseen}[1]{{\ttfamily [U+#1]}}
"""
_SECTIONS = {1: "section*", 2: "subsection*", 3: "subsubsection*"}


def latex_report(blocks: Sequence[Block]) -> str:
    """Return a document as LaTeX in ASCII; pictures are named by their paths."""
    parts = [_HEAD, r"\begin{document}", *map(_latex, blocks), r"\end{document}", ""]
    return "\n".join(parts)


def _latex(block: Block) -> str:
    if isinstance(block, Heading):
        return rf"\{_SECTIONS[block.level]}{{{escape(block.text)}}}"
    if isinstance(block, Paragraph):
        return f"{{}}{_lines(block.text)}\\par"
    if isinstance(block, Quote):
        return f"\\begin{{quote}}\n{{}}{_lines(block.text)}\n\\end{{quote}}"
    if isinstance(block, Source):
        where = f"{block.title}{f', {block.url}' if block.url else ''}"
        return (
            rf"{{\ttfamily {escape(block.id)}}} {escape(block.statement)} "
            rf"{{\itshape {escape(where)}}}\par"
        )
    if isinstance(block, Figure):
        return (
            f"\\begin{{center}}\\includegraphics[width=0.6\\linewidth]{{{block.path}}}\\\\\n"
            f"{{\\small {escape(block.caption)}}}\\end{{center}}"
        )
    return _table(block)


def _table(table: Table) -> str:
    columns = f"p{{0.3\\linewidth}}*{{{len(table.head) - 1}}}{{l}}"
    if len(table.head) == 2:
        columns = r"p{0.3\linewidth}p{0.6\linewidth}"
    rows = [table.head, *table.rows]
    # A brace pair first: a cell that begins with a bracket would be read as an option.
    lines = [" & ".join(f"{{}}{escape(cell)}" for cell in row) + r" \\" for row in rows]
    body = "\n".join([lines[0], r"\hline", *lines[1:]])
    return f"\\begin{{longtable}}{{{columns}}}\n{body}\n\\end{{longtable}}"


def _lines(text: str) -> str:
    return "\\par\n{}".join(escape(line) for line in text.splitlines() if line.strip())
