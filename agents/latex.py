r"""Transcripts as LaTeX that plain pdflatex compiles, whatever the models are called and say.

    text = latex(transcript)

The file is pure ASCII. Characters that LaTeX's own fonts can set become their commands, from the
table of pylatexenc; any other is shown by its number, as in [U+4E2D]. The Markdown beside it
has the characters themselves.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from itertools import zip_longest

from agents.transcript import Transcript, said_of

__all__ = ["escape", "latex"]

_ASCII = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
}
_TIED = frozenset("-,'")
"""Two of these in a row would be set as one other character."""
_NOT_IN_PLAIN_LATEX = re.compile(
    r"\\(cyr|CYR|C\b|U\b|mathbb\{[^A-Z]|mathscr|text(hvlig|nrleg|schwa|phi|glotstop|turnk|frac)"
    r"|nument|nobreakdash|arrowwave(left|right)|dblarrowupdown|DownArrowUpArrow|rightangle|i?iint"
    r"|(surf|vol|clw)integral|homothetic|lazysinv|approxnotequal|tildetrpl|allequal|estimates"
    r"|starequal|not(less)?greater(less)?|notlessgreater|truestate|forcesextra|VDash|original"
    r"|image|hermitconjmatrix|verymuch(less|greater)|precedesnotsimilar|udots|varperspcorrespond"
    r"|recorder|quarternote|flat|natural|sharp|clockoint|sqrint|boldsymbol)"
)
"""Commands of the table that need more than T1, textcomp and amssymb; found with pdflatex."""
_BARE_MATH = re.compile(r"\\(varepsilon|acute|Upsilon)\b")
"""Commands that the table forgets to put into math mode."""
_MATH_LETTERS = range(0x1D400, 0x1D800)
_LINE = 1_000
"""Longest line of the file, in escaped characters; TeX's buffer holds more."""

_HEAD = r"""\documentclass[11pt]{article}
\usepackage[T1]{fontenc}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\usepackage{textcomp}
\usepackage{amssymb}
\usepackage{graphicx}
\setlength{\parindent}{0pt}
\setlength{\parskip}{0.4em}
\setlength{\emergencystretch}{4em}
\sloppy
% A character that these fonts do not have.
\newcommand{\unseen}[1]{{\ttfamily [U+#1]}}
\newcommand{\speaker}[1]{\medskip{\sffamily\bfseries\small #1}\par}
"""


def latex(transcript: Transcript) -> str:
    """Return a transcript as a whole LaTeX document in ASCII."""
    parts = [
        _HEAD,
        r"\begin{document}",
        rf"\section*{{{escape(transcript.script)}}}",
        rf"Model {{\ttfamily {escape(transcript.model)}}}, seed {transcript.seed}.",
    ]
    system = None
    for turn in transcript.turns:
        parts.append(rf"\subsection*{{{turn.index + 1}. {escape(turn.turn)}}}")
        if turn.system != system:
            parts.append(_said("System", turn.system))
            system = turn.system
        parts.append(_said("User", turn.asked))
        if turn.is_finished:
            parts.append(_said("Assistant", turn.reply))
        if said_of(turn):
            parts.append(rf"{{\itshape {escape(said_of(turn))}\par}}")
        for path in transcript.pictures.get(turn.turn, ()):
            parts.append(rf"\includegraphics[width=0.6\linewidth]{{{path}}}\par")
    return "\n".join([*parts, r"\end{document}", ""])


def escape(text: str) -> str:
    r"""Return a text as LaTeX for text mode, on one or more lines of ASCII.

    Line ends become spaces; use it line by line where they matter.
    """
    out: list[str] = []
    width = 0
    whole = unicodedata.normalize("NFC", " ".join(text.split("\n")))
    for here, following in zip_longest(whole, whole[1:], fillvalue=""):
        piece = "\n" if here == " " and width > 80 else _escaped(here)
        if here in _TIED and here == following:
            piece += "{}"
        if width > _LINE and not piece.isspace():
            piece = "%\n" + piece  # a comment eats the line end, so that nothing is split
        out.append(piece)
        width = len(piece) if "\n" in piece else width + len(piece)
    return "".join(out)


def _said(speaker: str, text: str) -> str:
    """Return one speaker's words; lines stay lines and keep what they are indented by."""
    lines = []
    for line in text.strip().splitlines() or ["(nothing)"]:
        words = line.expandtabs(4)
        blanks = len(words) - len(words.lstrip(" "))
        # A brace pair first: what follows a command could be taken for its argument.
        lines.append(
            f"{{}}{'~' * min(blanks, 40)}{escape(words.strip())}\\par" if words.strip() else ""
        )
    return "\n".join([rf"\speaker{{{speaker}}}", r"\begin{quote}", *lines, r"\end{quote}"])


def _escaped(character: str) -> str:
    code = ord(character)
    if 0x20 <= code < 0x7F:
        return _ASCII.get(character, character)
    if code in _MATH_LETTERS:
        plain = unicodedata.normalize("NFKC", character)
        if plain != character:
            return "".join(map(_escaped, plain))
    known = _table().get(code)
    return f"{{{known}}}" if known else rf"\unseen{{{code:04X}}}"


@cache
def _table() -> dict[int, str]:
    """Return the characters beyond ASCII that plain pdflatex sets, with their commands."""
    from pylatexenc.latexencode import (  # type: ignore[import-untyped]
        get_builtin_uni2latex_dict,
    )

    return {
        code: rf"\ensuremath{{{command}}}" if _BARE_MATH.match(command) else command
        for code, command in get_builtin_uni2latex_dict().items()
        if code >= 0xA0
        and unicodedata.category(chr(code))[0] != "M"  # accents that stand alone
        and not _NOT_IN_PLAIN_LATEX.search(command)
    }
