"""Numbers with units as a text writes them, made comparable by `pint`.

    (claim,) = claims("about 16 to 35 micrometres")
    claim.values, claim.kind        # (1.6e-05, 3.5e-05), "[length]"
    is_held(claim, claims("16-35 µm"))

Read are thousands with separators, powers ("10^6", "2.5 × 10⁴"), ranges, compound units
("MPa·m^0.5", "kg per cubic metre") and temperatures. Numbers in words ("six sides", "half")
are not. The one file that touches pint.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pint import UnitRegistry

__all__ = ["Claim", "claims", "is_held", "is_seen"]

TOLERANCE = 0.02
"""Relative difference up to which two numbers are the same; it forgives rounding."""
ROUGH_TOLERANCE = 0.05
"""The same for a number that is said to be about right."""
TEMPERATURE_TOLERANCE_K = 0.5
"""Two per cent of room temperature would be six degrees, so temperatures are held to this."""

SHARE = "dimensionless"
"""Kind of percentages, fractions and "times"."""
TEMPERATURE = "[temperature]"

_SCALES = {"thousand": 1e3, "million": 1e6, "billion": 1e9}
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻−", "0123456789--")
_RAISED = re.compile(r"⁻?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")

_DIGITS = r"(?:\d{1,3}(?:[,\u00a0\u2009\u202f]\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)"
_POWER_OF_TEN = r"10(?:\^[-−]?\d+|⁻?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)"
_NUMBER = rf"(?:{_POWER_OF_TEN}|{_DIGITS}(?:\s*[x×·*]\s*{_POWER_OF_TEN}|[eE][-+]?\d+)?)"

# Only what is listed is a unit: pint itself would read bars, rods, chains, hands and points.
_SYMBOL = (
    r"(?:[nµμmk]?g|ug|[nµμmck]?m|um|[nµμm]?s|[kMGT]?Pa|[pnµμmkM]?N|[mkM]?J|[mkM]?W|[kMG]?Hz"
    r"|[nµμm]?L|[mk]?mol|k?Da|[mk]?V|Ω|K|Å|h|min|d|px|dB|ppm|rpm|atm|psi)"
)
_NAME = (
    r"(?:(?:nano|micro|milli|centi|kilo|mega|giga|pico)?"
    r"(?:met(?:re|er)|gram|second|pascal|newton|joule|watt|lit(?:re|er)|dalton|hertz|kelvin)s?"
    r"|microns?|[aå]ngstr[oö]ms?|inch(?:es)?|foot|feet|miles?|minutes?|hours?|days?|weeks?"
    r"|months?|years?|tonnes?|hectares?|decibels?|pixels?)"
)
_POWER = r"(?:\^\(?[-−]?\d+(?:\.\d+|/2)?\)?|⁻?[¹²³]|[23](?![\d.]))"
_TERM = rf"(?:(?:square|cubic)\s)?(?:{_NAME}|{_SYMBOL}){_POWER}?(?![^\W\d_]|-shaped)"
# A space joins two symbols only before a power or a slash, as in "MPa m^0.5" and "MN m/kg".
_JOIN = rf"(?:\s?[·*/]\s?\(?|\s+per\s+|\s(?=(?:{_SYMBOL})(?:\^|⁻|[¹²³]|/)))"
_COMPOUND = rf"(?:1/)?{_TERM}(?:{_JOIN}{_TERM}\)?)*"
_CELSIUS = r"(?:°\s?C|deg\s?C|degrees?\s(?:Celsius|C)\b)"
_FAHRENHEIT = r"(?:°\s?F|degrees?\sFahrenheit)"
_ANGLE = r"(?:°|deg(?:rees?)?\b)"
_PERCENT = r"(?:(?:wt|vol)?\s?%|per\s?cent\b)"
_TIMES = r"(?:-?fold\b|times\b|[x×](?!\w))"
_UNIT = rf"(?:{_PERCENT}|{_CELSIUS}(?:/{_TERM})?|{_FAHRENHEIT}|{_ANGLE}|{_TIMES}|{_COMPOUND})"

_ROUGHLY = re.compile(
    r"(?:\b(?:about|around|roughly|approximately|some|nearly|almost|circa|ca\.)\s|[~≈]\s?)$", re.I
)
_ROUGHLY_CHARS = 20
"""As far back as the longest of these words is looked for."""
_CLAIM = re.compile(
    rf"(?<![\w.])(?P<low>(?:(?<![^\s(])[-−])?{_NUMBER})"
    r"(?:(?:\s*(?P<by>-|–|/|x|×|by|±)\s*|\s+(?:to|and|plus or minus)\s+)"
    rf"(?P<high>(?<=\s)[-−]?{_NUMBER}|{_NUMBER}))?"
    r"(?:\s*(?P<scale>thousand|million|billion)\b)?"
    rf"(?:(?:[\s-]|(?!s\b))(?P<unit>{_UNIT}))?"  # the 1980s are no seconds
)
_LISTED = re.compile(
    r"[\s,;]*(?:(?:against|versus|vs\.?|or|and|to|instead of|than|from|about|up to)\b[\s,]*)*"
)
"""What stands between numbers that share the unit of the last one."""
_ATOM = re.compile(
    rf"(?P<join>{_JOIN}|1/)?(?P<dimension>square\s|cubic\s)?"
    rf"(?P<unit>{_NAME}|{_SYMBOL})(?P<power>{_POWER})?(?![^\W\d_])\)?"
)
_SPECIAL = (
    (re.compile(_PERCENT), "percent"),
    (re.compile(_CELSIUS), "degree_Celsius"),
    (re.compile(_FAHRENHEIT), "degree_Fahrenheit"),
    (re.compile(_ANGLE), "angle_degree"),
    (re.compile(_TIMES), "dimensionless"),
)
"""Units that stand alone, and what pint calls them."""
_NAMES = {"px": "pixel", "dB": "level_decibel", "inches": "inch", "h": "hour", "d": "day"}
"""What pint calls, or would read, differently."""


class Claim(NamedTuple):
    """A number as a text states it."""

    text: str
    """As written, e.g. `16 to 35 µm`."""
    values: tuple[float, ...]
    """One value, or the two ends of a range, in base units of the SI; degrees for angles."""
    kind: str
    """Its dimension, e.g. `[length]`; `SHARE` for percentages; empty without a unit."""
    is_rough: bool = False
    """Whether the text says that it is about right."""


class _Unit(NamedTuple):
    kind: str
    size: float
    """Of one unit, in the base unit of the kind."""
    zero: float = 0.0
    """Where the unit's zero lies in the base unit; only temperatures have one."""


def claims(text: str) -> tuple[Claim, ...]:
    """Return the numbers a text states, without words such as "3D" and counts below ten.

    A number without a unit takes that of the next one where only words such as "against" stand
    between them, as in "687 against 372 MPa".
    """
    found: list[Claim] = []
    later: re.Match[str] | None = None
    unit = ""
    for match in reversed(list(_CLAIM.finditer(text))):
        is_listed = later and _LISTED.fullmatch(text, match.end(), later.start())
        unit = match["unit"] or (unit if is_listed else "")
        later = match
        if _is_number(match, unit):
            found.append(_claim(match, unit))
    return tuple(reversed(found))


def is_held(claim: Claim, held: Iterable[Claim]) -> bool:
    """Whether the numbers of one source hold a claim, both ends if it is a range.

    A number without a unit is held by one without a unit, or by a share: 0.4 by 40 %.
    """
    source = tuple(held)
    return all(any(_is_same(value, claim, other) for other in source) for value in claim.values)


def is_seen(claim: Claim) -> bool:
    """Whether a picture can show a number: a count, a length, an angle or a ratio in times.

    Percentages, and measures of what a material does, are nothing one sees.
    """
    if claim.kind == SHARE:
        return not re.search(rf"{_PERCENT}$", claim.text)
    return claim.kind in ("", "[length]", "[angle]")


def _is_same(value: float, claim: Claim, other: Claim) -> bool:
    kinds = {claim.kind, other.kind}
    if len(kinds - {""}) > 1 or ("" in kinds and kinds - {"", SHARE}):
        return False
    if claim.kind == TEMPERATURE:
        return any(abs(value - v) <= TEMPERATURE_TOLERANCE_K for v in other.values)
    tolerance = ROUGH_TOLERANCE if claim.is_rough else TOLERANCE
    # Unlike a comparison by hand this takes no number for near to an endless one.
    return any(math.isclose(value, v, rel_tol=tolerance) for v in other.values)


def _is_number(match: re.Match[str], unit: str) -> bool:
    """Keep measured things; drop names such as "3D" and bare one-digit counts."""
    if re.match(r"-?[dD]\b", match.string[match.end("low") :]):
        return False
    bare = not (unit or match["high"] or match["scale"])
    return not (bare and len(match["low"]) == 1)


def _claim(match: re.Match[str], written: str) -> Claim:
    numbers = [_value(match[part]) for part in ("low", "high") if match[part]]
    unit = _unit(written) if written else _Unit("", 1.0)
    if match["by"] == "/" and not written and _is_fraction(numbers):
        numbers, unit = [numbers[0] / numbers[1]], _Unit(SHARE, 1.0)
    factor = unit.size * _SCALES.get(match["scale"] or "", 1.0)
    before = match.string[max(0, match.start() - _ROUGHLY_CHARS) : match.start()]
    is_rough = _ROUGHLY.search(before) is not None
    values = tuple(unit.zero + number * factor for number in numbers)
    return Claim(match[0].strip(), values, unit.kind, is_rough)


def _is_fraction(numbers: list[float]) -> bool:
    """Whether "low/high" is a share such as 2/3 and not a pair such as 12/14 or 33/2.9."""
    return len(numbers) == 2 and numbers[0] < numbers[1] <= 10 and all(n % 1 == 0 for n in numbers)


def _value(written: str) -> float:
    """Return a number as written, e.g. "1,200" or "2.5 × 10⁴"."""
    raised = _RAISED.sub(lambda digits: "^" + digits[0].translate(_SUPERSCRIPTS), written)
    plain = re.sub(r"[,\s]", "", raised).replace("−", "-")
    if "10^" not in plain:
        return float(plain)
    factor, _, power = plain.rpartition("10^")
    return float(factor.rstrip("x×·*") or 1) * float(f"1e{power}")  # 10.0**999 would raise


@lru_cache(maxsize=1024)
def _unit(written: str) -> _Unit:
    """Return what a unit as written is to the base units of its dimension.

    What pint cannot reckon with, such as "kg^400/m^400" or "m^0", is a kind of its own.
    """
    registry = _registry()
    name = _expression(written.strip())
    try:
        one, none = (registry.Quantity(n, name).to_base_units() for n in (1.0, 0.0))
    except (ArithmeticError, AttributeError, KeyError, RecursionError):
        return _Unit(written.strip(), 1.0)
    zero = float(none.magnitude)
    return _Unit(str(one.dimensionality), float(one.magnitude) - zero, zero)


def _expression(written: str) -> str:
    """Return a unit as pint reads it, e.g. `megapascal*meter**0.5` for "MPa m^0.5"."""
    for pattern, name in _SPECIAL:
        if pattern.fullmatch(written):
            return name
    parts, rest, is_below = [], written, False
    if alone := re.match(_CELSIUS, rest):  # a rate, so of a difference
        parts, rest = ["delta_degree_Celsius"], rest[alone.end() :]
    for atom in _ATOM.finditer(rest):
        join = atom["join"] or ""
        is_below = "/" in join or "per" in join or (is_below and "(" in rest and "*" in join)
        power = {"square ": "2", "cubic ": "3"}.get(atom["dimension"] or "", atom["power"] or "1")
        power = power.translate(_SUPERSCRIPTS).strip("^()")
        exponent = 0.5 if power == "1/2" else float(power)
        name = _NAMES.get(atom["unit"], atom["unit"]).replace("å", "a").replace("ö", "o")
        parts.append(f"{name}**{-exponent if is_below else exponent}")
    return "*".join(parts)


@cache
def _registry() -> UnitRegistry[float]:
    """Return pint's units; angles and levels are kinds of their own, not bare numbers."""
    from pint import UnitRegistry

    registry: UnitRegistry[float] = UnitRegistry()
    registry.define("angle_degree = [angle]")
    registry.define("level_decibel = [level]")
    return registry
