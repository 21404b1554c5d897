"""What a picture should measure, how far from it one is, and the seed that should bring it there.

A version's pictures start from a structure seed. How one is drawn, and what the drawing measures,
is known to a `Geometry`, which is handed in; here is what follows from it:

    wanted by the brief -> structure fitted to it -> targets -> picture -> measured
                                ^                                           |
                                +---- aims moved by what was missed --------+

Aims are in drawn units, what the drawing shall measure: a rendering that came out 0.1 too
solid is drawn 0.1 emptier next time, whatever thickness that takes; `agents.correction` has what
follows from several.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from agents.correction import Point, next_drawn, vain
from agents.roles import StopRule
from orbweave.records import SPACING_BOUNDS, Motif, Structure, Targets

__all__ = [
    "Geometry",
    "Seed",
    "Trial",
    "UNMEASURED",
    "StructureFor",
    "better",
    "distance",
    "first_seed",
    "geometry_of",
    "in_degrees",
    "next_seed",
    "off",
    "shortest_turn",
]

UNMEASURED = 10.0
"""Tolerances that a target counts of which the picture shows nothing; chosen by us."""
LEFT = {"solid_fraction": 4.0, "direction_deg": 3.0, "spacing_px": 3.0}
"""Tolerances a rendering may be from its drawing before it counts as having left its geometry;
chosen by us: renderings that follow it stay below 2, the solid fraction below 3."""
SOFTER = 0.65
"""Factor on the render strength of a picture that left its geometry, or whose seed has no number
left to turn; chosen by us."""
COARSER = 1.4
"""Factor on the spacing of a structure too fine to be rendered or measured; chosen by us."""
LEAST_STRENGTH = 0.3
"""Below it a rendering is hardly more than the drawing."""
STILL = 0.25
"""Tolerances within which a statistic is near enough to be left alone."""
NAMES = {"solid_fraction": "solid fraction", "direction_deg": "direction", "spacing_px": "spacing"}


@runtime_checkable
class Geometry(Protocol):
    """Chooses structure seeds, measures them as drawn and fits them to a measure."""

    @property
    def strength(self) -> float:
        """Render strength asked for, in (0, 1]."""
        ...

    def nearest(self, words: str, wanted: Targets) -> Mapping[str, str]:
        """Return families of motifs near to the words, nearest first, and what each looks like.

        Just one if the words name it, none if there is nothing to choose.
        """
        ...

    def look(self, family: str) -> str:
        """Return what one sees of a family, in plain words; empty if that is not known."""
        ...

    def choose(self, words: str, seed: int, family: str | None) -> Structure | None:
        """Return a structure for the words with `family` as its first motif; None for none."""
        ...

    def measure(self, structure: Structure) -> Targets:
        """Return what the structure measures as it is drawn; None where it has no such thing."""
        ...

    def lasting(self, structure: Structure) -> Targets:
        """Return what of `measure` a rendering can be held to."""
        ...

    def fit(self, structure: Structure, aims: Targets) -> Structure:
        """Return the structure with its numbers changed until its drawing meets the aims.

        As near as the ranges of `Motif` allow; an aim of None is left as it is.
        """
        ...

    def dress(self, structure: Structure, words: str) -> Structure:
        """Return the structure in the colours and the light of other words."""
        ...


@dataclass(frozen=True)
class Seed:
    """What a version's pictures start from and what they should measure."""

    structure: Structure | None = None
    targets: Targets = Targets()
    strength: float | None = None
    """Render strength; None leaves what was asked for."""
    changes: tuple[str, ...] = ()
    """What was changed against the seed before, a sentence each."""

    @property
    def text(self) -> str:
        """The seed as the engineer states it; empty if there is nothing to state."""
        lines = []
        if self.structure is not None:
            motifs = " and ".join(_in_words(motif) for motif in self.structure.motifs)
            lines.append(f"Structure: {motifs}.")
        aims = self.targets.model_dump(exclude_none=True)
        if aims:
            lines.append(f"To measure: {', '.join(_value(n, v) for n, v in aims.items())}.")
        return "\n".join([*lines, *self.changes])


class Trial(NamedTuple):
    """A version that was rendered."""

    structure: Structure | None
    strength: float | None
    """Render strength; None is what was asked for."""
    measured: Mapping[str, float | None]
    """Means over its pictures."""


@dataclass(frozen=True)
class Unmeasured:
    """A geometry made of a plain function: its structures are drawn as they come."""

    structure_for: Callable[[str, int], Structure | None]
    strength: float = 1.0

    def nearest(self, words: str, wanted: Targets) -> Mapping[str, str]:
        """Return nothing to choose from."""
        return {}

    def look(self, family: str) -> str:
        """Return nothing: it knows no families."""
        return ""

    def choose(self, words: str, seed: int, family: str | None) -> Structure | None:
        """Return what the function returns."""
        return self.structure_for(words, seed)

    def measure(self, structure: Structure) -> Targets:
        """Return nothing: it draws nothing."""
        return Targets()

    def lasting(self, structure: Structure) -> Targets:
        """Return nothing."""
        return Targets()

    def fit(self, structure: Structure, aims: Targets) -> Structure:
        """Return the structure as it is."""
        return structure

    def dress(self, structure: Structure, words: str) -> Structure:
        """Return the structure as it is."""
        return structure


StructureFor = Geometry | Callable[[str, int], Structure | None]
"""How structure seeds come about: a geometry, or just a function of a prompt's text and a seed,
whose structures are neither measured nor changed; None for no structure."""


def geometry_of(given: StructureFor) -> Geometry:
    """Return a geometry as it is, and a plain function as one that measures nothing."""
    return given if isinstance(given, Geometry) else Unmeasured(given)


def off(name: str, wanted: float, got: float | None, rule: StopRule) -> float:
    """Return how far a statistic is from its target, in tolerances: 1 is just met.

    Args:
        name: A field of `Targets`.
        wanted: The target.
        got: What was measured; None, for no such thing in the picture, counts `UNMEASURED`.
        rule: The tolerances.
    """
    if got is None:
        return UNMEASURED
    if name == "direction_deg":
        return abs(shortest_turn(got, wanted)) / rule.direction_deg
    if name == "spacing_px":
        return abs(wanted - got) / wanted / rule.spacing
    return abs(wanted - got) / rule.solid_fraction


def distance(
    targets: Targets, measured: Mapping[str, float | None], rule: StopRule
) -> float | None:
    """Return the distance of a picture to its targets; None if it has none.

    The mean over the targets of |wanted - measured| / tolerance: 0 is met exactly, 1 met just
    so. Directions count the shorter way round, spacing relative to what is wanted.
    """
    aims = targets.model_dump(exclude_none=True)
    if not aims:
        return None
    misses = [off(name, wanted, measured.get(name), rule) for name, wanted in aims.items()]
    return round(sum(misses) / len(misses), 4)


def better(now: tuple[float | None, float], best: tuple[float | None, float], gain: float) -> bool:
    """Whether one version improves on another, each given as (distance, mean score).

    Nearer to the targets is better; where there are none, a higher score is.
    """
    if now[0] is not None and best[0] is not None:
        return now[0] <= best[0] - gain
    return now[1] >= best[1] + gain


def shortest_turn(start_deg: float, end_deg: float) -> float:
    """Return the turn of a line from one direction to another, in [-90, 90), anticlockwise."""
    return (end_deg - start_deg + 90) % 180 - 90


def in_degrees(direction_deg: float) -> str:
    """Return the direction of a line in whole degrees, 0 to 179, in words."""
    whole = round(direction_deg) % 180
    return f"{whole} degree{'s' * (whole != 1)}"


def first_seed(
    geometry: Geometry, words: str, seed: int, wanted: Targets, family: str | None = None
) -> Seed:
    """Return the seed of a first version: a structure for the words, fitted to what is wanted.

    Its targets are what the brief wants and, where that says nothing, what the drawing measures
    and a rendering can be held to.

    Args:
        geometry: Draws and measures.
        words: The prompt.
        seed: Decides every accident.
        wanted: By the brief.
        family: The first motif; None leaves it to the words.
    """
    structure = geometry.choose(words, seed, family)
    if structure is None:
        return Seed(targets=wanted)
    fitted = geometry.fit(structure, wanted) if wanted != Targets() else structure
    own = geometry.lasting(fitted).model_dump(exclude_none=True)
    targets = Targets.model_validate(own | wanted.model_dump(exclude_none=True))
    return Seed(fitted, targets)


def next_seed(
    geometry: Geometry,
    words: str,
    last: Seed,
    measured: Mapping[str, float | None],
    rule: StopRule,
    earlier: Sequence[Trial] = (),
) -> Seed:
    """Return a seed whose rendering should come nearer to the targets than `last` did.

    Each aim follows from what every version drawn in the same colours and light missed its
    target by. In other colours other shades count as solid, so there the targets themselves
    are drawn. What is met stays while something else is missed. Beyond what numbers can mend:

    - A target that neither the drawing nor the picture shows: a second motif goes, for the two
      hide each other, and a single one is drawn coarser.
    - The picture is far from as solid as its drawing, and no thickness mends it: thin lines
      are lost or swell; it is drawn coarser.
    - The picture's lines left those of its drawing, or the numbers end before the aims are
      reached and the spacing is wanted as it is: it is rendered at less strength.

    Args:
        geometry: Draws and measures.
        words: The revised prompt, for colours and light.
        last: The seed that was rendered, the one to start from.
        measured: Means over its pictures.
        rule: The tolerances.
        earlier: The other versions, in any order.
    """
    if last.structure is None:
        return Seed(targets=last.targets)
    drawn = geometry.measure(last.structure).model_dump(exclude_none=True)
    wanted = last.targets.model_dump(exclude_none=True)
    unseen = [
        name
        for name, aim in wanted.items()
        if name not in drawn and off(name, aim, measured.get(name), rule) >= LEFT[name]
    ]
    left = [
        name
        for name in wanted
        if name in drawn and off(name, drawn[name], measured.get(name), rule) >= LEFT[name]
    ]
    astray = [name for name in left if name != "solid_fraction"]
    dressed = geometry.dress(last.structure, words)
    if unseen and len(dressed.motifs) > 1:
        return _alone(geometry, dressed, last, unseen)
    trials = [Trial(last.structure, last.strength, measured), *earlier]
    points = _points(geometry, dressed, last.strength, trials, wanted)
    misses = {name: off(name, aim, measured.get(name), rule) for name, aim in wanted.items()}
    # A number that is turned moves the others too: a target that is met is not put at risk.
    near = [n for n in misses if misses[n] <= (1 if max(misses.values()) > 1 else STILL)]
    is_redressed = dressed != last.structure
    aims = _aims(points, wanted, near=() if is_redressed else near, skip=astray)
    fitted = geometry.fit(dressed, aims) if aims != Targets() else dressed
    short = _short(aims, geometry.measure(fitted), rule)
    swollen = [n for n in left if n not in astray and n in points and vain(points[n])]
    lost = unseen or swollen or [name for name in short if name == "solid_fraction"]
    if lost and "spacing_px" not in wanted:
        return _coarser(geometry, dressed, last, lost)
    strength, told = last.strength, []
    if astray or short:
        before = strength or geometry.strength
        softer = round(max(LEAST_STRENGTH, before * SOFTER), 3)
        if softer < before:
            strength = softer
            why = "the picture left its geometry" if astray else "its numbers end there"
            told.append(
                f"Render strength from {before:.2f} down to {strength:.2f}: {why} "
                f"({_listed(astray or short)})."
            )
    if fitted.look != last.structure.look:
        told.append(f"Colours from {last.structure.look} to {fitted.look}.")
    told += _changes(last.structure, fitted, last.targets, measured)
    return Seed(fitted, last.targets, strength, tuple(told))


def _alone(geometry: Geometry, structure: Structure, last: Seed, unseen: Sequence[str]) -> Seed:
    """Return the seed with its first motif alone, fitted to the targets."""
    kept, *others = structure.motifs
    single = structure.model_copy(update={"motifs": (kept,), "combine": "single"})
    names = " and ".join(motif.family.replace("_", " ") for motif in others)
    told = f"Without {names}: the picture did not show the {_listed(unseen)} wanted."
    return Seed(geometry.fit(single, last.targets), last.targets, last.strength, (told,))


def _coarser(geometry: Geometry, structure: Structure, last: Seed, lost: Sequence[str]) -> Seed:
    """Return the seed drawn coarser, fitted to the targets."""
    _, limit = SPACING_BOUNDS
    motifs = tuple(
        motif.model_copy(update={"spacing": round(min(motif.spacing * COARSER, limit), 2)})
        for motif in structure.motifs
    )
    fitted = geometry.fit(structure.model_copy(update={"motifs": motifs}), last.targets)
    told = (
        f"Spacing from {structure.motifs[0].spacing:.1f} to {motifs[0].spacing:.1f} px: lines too "
        f"fine to be rendered hide the {_listed(lost)}."
    )
    return Seed(fitted, last.targets, last.strength, (told,))


def _short(aims: Targets, drawn: Targets, rule: StopRule) -> list[str]:
    """Return the aims that the drawing misses by more than a tolerance."""
    reached = drawn.model_dump(exclude_none=True)
    return [
        name
        for name, aim in aims.model_dump(exclude_none=True).items()
        if name in reached and off(name, aim, reached[name], rule) > 1
    ]


def _points(
    geometry: Geometry,
    dressed: Structure,
    strength: float | None,
    trials: Sequence[Trial],
    wanted: Mapping[str, float],
) -> dict[str, list[Point]]:
    """Return where every statistic came out, of the versions alike but for their numbers."""
    points: dict[str, list[Point]] = {}
    for trial in trials:
        if trial.structure is None or trial.strength != strength:
            continue
        if _kind(trial.structure) != _kind(dressed):
            continue
        drawn = geometry.measure(trial.structure).model_dump(exclude_none=True)
        for name, aim in wanted.items():
            got, own = trial.measured.get(name), drawn.get(name)
            if got is not None and own is not None:
                point = Point(_beyond(name, aim, own), _beyond(name, aim, got))
                points.setdefault(name, []).append(point)
    return points


def _aims(
    points: Mapping[str, Sequence[Point]],
    wanted: Mapping[str, float],
    near: Sequence[str],
    skip: Sequence[str],
) -> Targets:
    """Return what the drawing shall measure for its rendering to meet the targets.

    A statistic of a picture that left its geometry is aimed at itself: its target, drawn. So is
    one of which nothing is known.

    Args:
        points: Where it came out so far.
        wanted: The targets.
        near: Statistics that are near enough to be left alone.
        skip: Statistics of which the pictures left their geometry.
    """
    aims: dict[str, float] = {}
    for name, aim in wanted.items():
        if name in skip or (name not in points and name not in near):
            aims[name] = aim
        elif name not in near:
            aims[name] = _at(name, aim, next_drawn(points[name]))
    return Targets.model_validate(aims)


def _kind(structure: Structure) -> tuple[object, ...]:
    """Return all of a structure but the numbers that are corrected."""
    families = tuple(motif.family for motif in structure.motifs)
    return families, structure.combine, structure.look, structure.light, structure.seed


def _beyond(name: str, aim: float, value: float) -> float:
    """Return how far a statistic lies beyond its target, in a unit in which steps add up."""
    if name == "direction_deg":
        return shortest_turn(aim, value)
    return math.log(value / aim) if name == "spacing_px" else value - aim


def _at(name: str, aim: float, beyond: float) -> float:
    """Return the value that lies so far beyond its target, see `_beyond`."""
    if name == "direction_deg":
        return round(aim + beyond, 1) % 180
    return aim * math.exp(beyond) if name == "spacing_px" else min(max(aim + beyond, 0.01), 0.99)


def _changes(
    old: Structure, new: Structure, targets: Targets, measured: Mapping[str, float | None]
) -> list[str]:
    """Return each change of the first motif that differs in a number, and why, in a sentence."""
    told = []
    for field, name in _MEASURED_BY.items():
        wanted = getattr(targets, name)
        pairs = zip(old.motifs, new.motifs, strict=True)
        numbers = [(getattr(a, field), getattr(b, field)) for a, b in pairs]
        changed = next((pair for pair in numbers if pair[0] != pair[1]), None)
        if changed is None or wanted is None:
            continue
        got = measured.get(name)
        seen = "nothing measurable" if got is None else _value(name, got)
        if name == "direction_deg":
            part = f"Direction from {round(changed[0]) % 180} to {in_degrees(changed[1])}"
        else:
            part = _PARTS[field].format(*changed)
        told.append(f"{part}: the picture measured {seen} where {_value(name, wanted)} is wanted.")
    return told


def _listed(names: Sequence[str]) -> str:
    return " and ".join(NAMES[name] for name in names)


_MEASURED_BY = {
    "thickness": "solid_fraction",
    "direction_deg": "direction_deg",
    "spacing": "spacing_px",
}
"""Numbers of a motif and the statistic each is changed for."""
_PARTS = {
    "thickness": "Thickness from {:.2f} to {:.2f} of the spacing",
    "spacing": "Spacing from {:.1f} to {:.1f} px",
}
_UNITS = {"solid_fraction": "{:.2f}", "direction_deg": "{}", "spacing_px": "{:.1f} px"}


def _value(name: str, value: float) -> str:
    number = in_degrees(value) if name == "direction_deg" else value
    return f"{NAMES[name]} {_UNITS[name].format(number)}"


def _in_words(motif: Motif) -> str:
    return (
        f"{motif.family.replace('_', ' ')}, spacing {motif.spacing:.1f} px, thickness "
        f"{motif.thickness:.2f} of it, direction {in_degrees(motif.direction_deg)}"
    )
