"""What a text claims: the facts it cites and the numbers it states, checked against facts.

A number counts as held when a fact gives the same quantity, in any unit of the same kind:
"0.5 µm" is held by "500 nm". Numbers in words ("six sides", "half") are not checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = [
    "Claim",
    "cited_ids",
    "claims",
    "sentences",
    "share_held",
    "shared_words",
    "unsupported",
    "without_citations",
]

_ID = r"[a-z]+-\d{4}"
_CITATION = re.compile(rf"\s*\[({_ID}(?:\s*,\s*{_ID})*)\]")
_ABBREVIATIONS = r"(?<!\be\.g)(?<!\bi\.e)(?<!\bapprox)(?<!\bvs)(?<!\bca)(?<!\bFig)"
_SENTENCE_END = re.compile(rf"{_ABBREVIATIONS}([.!?][\"')]?(?:\s*\[[^\]]*\])*)\s+(?=[A-Z\"'(])")

_TOLERANCE = 0.02
"""Relative difference below which two numbers are the same; it forgives rounding."""

_SCALES = {"thousand": 1e3, "million": 1e6, "billion": 1e9}

_UNITS: dict[str, tuple[str, float]] = {
    **dict.fromkeys(("nm", "nanometre", "nanometer"), ("m", 1e-9)),
    **dict.fromkeys(("µm", "μm", "um", "micrometre", "micrometer", "micron"), ("m", 1e-6)),
    **dict.fromkeys(("mm", "millimetre", "millimeter"), ("m", 1e-3)),
    **dict.fromkeys(("cm", "centimetre", "centimeter"), ("m", 1e-2)),
    **dict.fromkeys(("m", "metre", "meter"), ("m", 1.0)),
    **dict.fromkeys(("km", "kilometre", "kilometer"), ("m", 1e3)),
    **dict.fromkeys(("inch", "inches"), ("m", 0.0254)),
    **dict.fromkeys(("px", "pixel"), ("px", 1.0)),
    "Pa": ("Pa", 1.0),
    "kPa": ("Pa", 1e3),
    "MPa": ("Pa", 1e6),
    "GPa": ("Pa", 1e9),
    **dict.fromkeys(("%", "percent", "wt%", "vol%"), ("%", 1.0)),
    **dict.fromkeys(("°", "deg", "degree"), ("deg", 1.0)),
    **dict.fromkeys(("times", "-fold", "fold", "x", "×", "-times"), ("times", 1.0)),
    **dict.fromkeys(("mg", "milligram"), ("g", 1e-3)),
    **dict.fromkeys(("g", "gram"), ("g", 1.0)),
    **dict.fromkeys(("kg", "kilogram"), ("g", 1e3)),
    **dict.fromkeys(("ms", "millisecond"), ("s", 1e-3)),
    **dict.fromkeys(("s", "second"), ("s", 1.0)),
    **dict.fromkeys(("min", "minute"), ("s", 60.0)),
    **dict.fromkeys(("h", "hour"), ("s", 3_600.0)),
    **dict.fromkeys(("d", "day"), ("s", 86_400.0)),
}
"""Unit as written -> (kind, size in the kind's base unit). Plurals in -s are understood."""

_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_CLAIM = re.compile(
    rf"(?<![\w.])(?P<low>{_NUMBER})"
    rf"(?:\s*(?:-|–|to|and|/|x|×|by|±)\s*(?P<high>{_NUMBER}))?"
    r"(?:\s*(?P<scale>thousand|million|billion)\b)?"
    r"(?:[\s-]?(?P<unit>wt%|vol%|%|°C|°|-fold\b|[A-Za-zµμ×][\w/^·²³*()µμ-]*))?"
)
_FILLER = frozenset(
    """about above across add after all along also among and any are around because been between
    both build but by can create design does each every for from give has have how into its keep
    let like look looks made make more most much must near not one only other out over place put
    same set shape should such than that the their them then there these they this through toward
    use used using very was way were what when where which while who will with would""".split()
)
"""Words that say nothing about what a sentence is on."""


class Claim(NamedTuple):
    """A number as a text states it."""

    text: str
    """As written, e.g. `16 to 35 µm`."""
    values: tuple[float, ...]
    """One value, or the two ends of a range, in the base unit of `kind`."""
    kind: str
    """m, Pa, %, deg, g, s, times; an unknown unit as written; empty without a unit."""


def cited_ids(text: str) -> tuple[str, ...]:
    """Return the fact ids named in square brackets, each once, in order."""
    found = (one for group in _CITATION.findall(text) for one in re.findall(_ID, group))
    return tuple(dict.fromkeys(found))


def without_citations(text: str) -> str:
    """Return the text with its bracketed ids removed."""
    return _CITATION.sub("", text).strip()


def sentences(text: str) -> tuple[str, ...]:
    """Split prose into sentences; a citation after the full stop stays with its sentence."""
    marked = _SENTENCE_END.sub(r"\1\n", text.strip())
    return tuple(part.strip() for part in marked.splitlines() if part.strip())


def claims(text: str) -> tuple[Claim, ...]:
    """Return the numbers a text states, without ids, list numbers and words such as "3D"."""
    plain = re.sub(r"(?m)^\s*\d+[.)]\s", "", without_citations(text))
    return tuple(_claim(match) for match in _CLAIM.finditer(plain) if _is_number(match))


def unsupported(text: str, sources: Iterable[str]) -> tuple[str, ...]:
    """Return the numbers of a text that no source holds, as written, each once.

    Args:
        text: What somebody said.
        sources: Statements and quantities that may hold its numbers.
    """
    held = [claim for source in sources for claim in claims(source)]
    loose = (claim.text for claim in claims(text) if not _is_held(claim, held))
    return tuple(dict.fromkeys(loose))


def shared_words(text: str, source: str) -> int:
    """Return how many different words of content two texts share, by their first five letters."""
    return len(_stems(text) & _stems(source))


def share_held(text: str, sources: Iterable[str]) -> float:
    """Return the share, in [0, 1], of a text's words of content that its sources hold too."""
    ours = _stems(text)
    held = frozenset[str]().union(*(_stems(source) for source in sources))
    return len(ours & held) / len(ours) if ours else 0.0


def _stems(text: str) -> frozenset[str]:
    words = re.findall(r"[a-z]{3,}", without_citations(text).lower())
    return frozenset(word.removesuffix("s")[:5] for word in words if word not in _FILLER)


def _is_number(match: re.Match[str]) -> bool:
    """Keep measured things; drop names such as "3D", years and bare one-digit counts."""
    after = match.string[match.end("low") :]
    if re.match(r"-?[dD]\b", after):
        return False
    known = _unit(match["unit"] or "")[0] in _KINDS
    bare = not (known or match["high"] or match["scale"])
    return not (bare and len(match["low"]) == 1)


def _claim(match: re.Match[str]) -> Claim:
    written = match["unit"] or ""
    kind, size = _unit(written)
    factor = size * _SCALES.get(match["scale"] or "", 1.0)
    numbers = [match[part] for part in ("low", "high") if match[part]]
    end = match.end("unit") if kind in _KINDS or written in _UNITS else _end_of_number(match)
    text = match.string[match.start() : end].strip()
    values = tuple(float(number.replace(",", "")) * factor for number in numbers)
    return Claim(text, values, kind if kind in _KINDS else "")


def _end_of_number(match: re.Match[str]) -> int:
    return max(match.end(part) for part in ("low", "high", "scale"))


def _unit(written: str) -> tuple[str, float]:
    for name in (written, written.rstrip("s"), written.lower(), written.lower().rstrip("s")):
        if name in _UNITS:
            return _UNITS[name]
    return written, 1.0


_KINDS = frozenset(kind for kind, _ in _UNITS.values())


def _is_held(claim: Claim, held: Sequence[Claim]) -> bool:
    return all(any(_same(value, claim.kind, other) for other in held) for value in claim.values)


def _same(value: float, kind: str, other: Claim) -> bool:
    """Compare within a kind; a number whose unit is unknown to us is compared by value alone."""
    if kind and other.kind and kind != other.kind:
        return False
    return any(abs(value - v) <= _TOLERANCE * max(abs(value), abs(v)) for v in other.values)
