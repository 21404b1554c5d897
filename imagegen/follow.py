"""How well a picture follows what was asked: motifs, colours and numbers, one score in [0, 1].

Motifs and colours are judged by `imagegen.classifier`, which never saw a generated picture;
numbers are compared with what the structure's own drawing measures. The score is of pictures
of this project's kinds of motif; it knows no others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from imagegen.choose import asked_colours, choose_structure
from imagegen.expectation import angle_between
from imagegen.fit import lasting
from imagegen.measure import measure
from imagegen.motifs import FAMILIES
from imagegen.start import Pixels, read_picture
from orbweave.records import Measurement, Record, Structure, Targets

if TYPE_CHECKING:
    from imagegen.classifier import Classifier, Verdict

__all__ = ["Asked", "Follow", "Seen", "asked_by_prompt", "asked_by_structure", "follow", "ranked"]

Share = Annotated[float, Field(ge=0.0, le=1.0)]

PART_WEIGHTS = {"motifs": 2.0, "colours": 1.0, "numbers": 1.0}
"""Of the parts in the score, a weighted geometric mean; chosen by us: a picture of another motif
is wrong whatever its colours."""
FLOOR = 1e-3
"""Least a part counts, so that pictures without the motif can still be told apart."""
TOLERANCES = {"solid_fraction": 0.05, "spacing_px": 0.10, "direction_deg": 8.0}
"""Error at which a number counts half: absolute, share of what was asked, degrees."""
N_SHOWN = 3
"""Families, materials and grounds kept in a record."""


class Asked(Record):
    """What a picture should show."""

    families: tuple[str, ...]
    materials: tuple[str, ...] = ()
    """One or two; empty: no colour was asked for."""
    ground: str | None = None
    targets: Targets = Targets()
    """Numbers that the structure's own drawing measures; none where words alone were given."""


class Seen(Record):
    """What the classifier sees, the most probable first."""

    families: dict[str, Share]
    """Each for itself."""
    materials: dict[str, Share]
    grounds: dict[str, Share]


class Follow(Record):
    """How well one picture follows what was asked."""

    picture: str
    score: Share
    motifs: Share
    """Geometric mean of the probabilities of the families asked for."""
    colours: Share | None
    """The same of materials and ground; None if no colour was asked for."""
    numbers: Share | None
    """Mean agreement of what was measured, 1 equal, a half at the tolerance; None if no number
    was asked for."""
    asked: Asked
    seen: Seen
    measured: dict[str, float | None]
    """The numbers that were asked for; None where the picture has no such thing."""
    explanation: str


def asked_by_structure(structure: Structure, size_px: tuple[int, int]) -> Asked:
    """Return what a structure asks of its pictures.

    Args:
        structure: As drawn; its colours are all asked for.
        size_px: (width, height) of the picture.
    """
    materials, _, ground = structure.look.partition(" on ")
    return Asked(
        families=tuple(motif.family for motif in structure.motifs),
        materials=tuple(materials.split(" and ")),
        ground=ground,
        targets=lasting(structure, size_px),
    )


def asked_by_prompt(prompt: str) -> Asked:
    """Return what words alone ask for: the motifs they mean, and the colours they name."""
    families = tuple(m.family for m in choose_structure(prompt, 0).motifs)
    colours = asked_colours(prompt, len(families))
    return Asked(
        families=families,
        materials=tuple(name for name, _ in colours.materials),
        ground=colours.ground,
    )


def follow(path: Path, asked: Asked, classifier: Classifier, *, picture: str = "") -> Follow:
    """Judge one picture file.

    Args:
        path: Of any kind Pillow reads; its middle square is judged.
        asked: What it should show.
        classifier: As loaded by `imagegen.classifier.load_classifier`.
        picture: What to call it in the record; default: the path.

    Raises:
        UsageError: no picture.
    """
    verdict = classifier([shown_to(classifier, path)])[0]
    measurement = None if asked.targets == Targets() else measure(path)
    return judged(picture or str(path), asked, verdict, measurement)


def shown_to(classifier: Classifier, path: Path) -> Pixels:
    """Read a picture file as the classifier takes it: its middle square, made small."""
    side = classifier.config.side_px
    return read_picture(path, side, side)


def ranked(follows: Iterable[Follow]) -> list[Follow]:
    """Return judgements with the best first; of equal ones the earlier."""
    return sorted(follows, key=lambda each: -each.score)


def judged(picture: str, asked: Asked, verdict: Verdict, measurement: Measurement | None) -> Follow:
    """Return the judgement of a picture that was classified and, if numbers count, measured."""
    motifs = _mean([verdict.families.get(name, 0.0) for name in asked.families])
    colours = _colour_part(asked, verdict)
    targets = asked.targets.model_dump(exclude_none=True) if measurement else {}
    measured = {name: getattr(measurement, name) for name in targets}
    numbers = None
    if targets:
        numbers = sum(_near(name, targets[name], measured[name]) for name in targets) / len(targets)
    parts = {"motifs": motifs, "colours": colours, "numbers": numbers}
    return Follow(
        picture=picture,
        score=_score(parts),
        motifs=motifs,
        colours=colours,
        numbers=numbers,
        asked=asked,
        seen=Seen(**{k: _most(v) for k, v in verdict._asdict().items()}),
        measured=measured,
        explanation=_explanation(asked, verdict, targets, measured),
    )


def _score(parts: dict[str, float | None]) -> float:
    given = {name: value for name, value in parts.items() if value is not None}
    total = sum(PART_WEIGHTS[name] for name in given)
    logs = sum(PART_WEIGHTS[name] * math.log(max(value, FLOOR)) for name, value in given.items())
    return math.exp(logs / total)


def _mean(values: Sequence[float]) -> float:
    """Geometric mean: of two things that were asked for, both must be there."""
    return math.prod(values) ** (1 / len(values))


def _colour_part(asked: Asked, verdict: Verdict) -> float | None:
    # Two materials share the probability between them.
    n = len(asked.materials)
    materials = [min(n * verdict.materials.get(name, 0.0), 1.0) for name in asked.materials]
    values = [_mean(materials)] if materials else []
    if asked.ground is not None:
        values.append(verdict.grounds.get(asked.ground, 0.0))
    return _mean(values) if values else None


def _near(name: str, wanted: float, came: float | None) -> float:
    """Agreement of a number: 1 equal, a half at the tolerance, 0 if there is none."""
    if came is None:
        return 0.0
    error = {
        "solid_fraction": abs(came - wanted),
        "spacing_px": abs(came / wanted - 1),
        "direction_deg": angle_between(came, wanted),
    }[name]
    return 1 / (1 + (error / TOLERANCES[name]) ** 2)


def _most(shares: dict[str, float]) -> dict[str, float]:
    best = sorted(shares.items(), key=lambda item: -item[1])[:N_SHOWN]
    return {name: round(share, 4) for name, share in best}


NUMBERS = {
    "solid_fraction": ("solid", "{:.2f}"),
    "spacing_px": ("spacing", "{:.1f} px"),
    "direction_deg": ("direction", "{:.0f}°"),
}
"""How numbers are called and written."""


def _explanation(
    asked: Asked, verdict: Verdict, targets: dict[str, float], measured: dict[str, float | None]
) -> str:
    """Say what was asked and what is seen, in one line."""
    wanted = [" and ".join(_name(family) for family in asked.families)]
    look = " and ".join(asked.materials) or "any colour"
    if asked.materials or asked.ground:
        wanted.append(f"{look} on {asked.ground or 'any ground'}")
    found = {name: verdict.families.get(name, 0.0) for name in asked.families}
    other, share = max(
        ((n, p) for n, p in verdict.families.items() if n not in found), key=lambda item: item[1],
        default=("", 0.0),
    )  # fmt: skip
    if share > min(found.values()):
        found[other] = share
    seen = [f"{_name(name)} {_digits(share)}" for name, share in found.items()]
    for shares in (verdict.materials, verdict.grounds):
        n_best = len(asked.materials) if shares is verdict.materials else 1
        best = list(_most(shares).items())[: max(n_best, 1)]
        seen.append(" and ".join(f"{name} {_digits(share)}" for name, share in best))
    line = f"asked: {', '.join(wanted)}; seen: {', '.join(seen[:-1])} on {seen[-1]}"
    for name, value in targets.items():
        (noun, form), came = NUMBERS[name], measured[name]
        line += f"; {noun} {'none' if came is None else form.format(came)} for {form.format(value)}"
    return line


def _name(family: str) -> str:
    return FAMILIES[family].names[0] if family in FAMILIES else family


def _digits(share: float) -> str:
    return f"{share:.2f}".removeprefix("0")
