"""A design as a document: headings, paragraphs, tables, pictures, whatever it is printed with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orbweave.records import Citation, Design, ImagePrompt, Measurement, Picture, Targets, Turn
from ui.report import safe_link, structure_in_words
from ui.verdicts import COMPARED, doubts, tally

__all__ = ["Block", "Figure", "Heading", "Paragraph", "Quote", "Source", "Table", "document"]

CAUTION = (
    "Statistics of the pictures are what a program counts in their pixels, "
    "not properties of a material."
)


@dataclass(frozen=True)
class Heading:
    """A title; level 1 is the document's own."""

    text: str
    level: int


@dataclass(frozen=True)
class Paragraph:
    """Plain text, lines and all."""

    text: str


@dataclass(frozen=True)
class Quote:
    """Words of a model or a person."""

    text: str


@dataclass(frozen=True)
class Source:
    """A fact, where it is from, and an address that may be followed; empty without one."""

    id: str
    statement: str
    title: str
    url: str


@dataclass(frozen=True)
class Table:
    """Rows as wide as the head."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Figure:
    """A picture, its path relative to the design folder."""

    path: str
    caption: str


Block = Heading | Paragraph | Quote | Source | Table | Figure


def document(design: Design, folder: Path) -> list[Block]:
    """Return everything a reader of the design wants, in order.

    Args:
        design: The record.
        folder: The design folder; pictures that are missing there are left out.
    """
    brief = design.brief
    blocks: list[Block] = [
        Heading(brief.concept, 1),
        Paragraph(
            f"Scale {brief.scale}, seed {brief.seed}, {_counted(len(design.prompts), 'version')} "
            f"of the prompt, {_counted(len(design.pictures), 'picture')}. "
            f"Why it stopped: {design.stop_reason}."
        ),
    ]
    for version, prompt in enumerate(design.prompts):
        blocks += _version(design, folder, version, prompt)
    blocks += [Heading("The conversation", 2)]
    if any(turn.checks for turn in design.turns):
        blocks.append(Paragraph(COMPARED))
    for turn in design.turns:
        blocks += _turn(turn)
    if design.facts:
        blocks += [Heading("The facts", 2), *map(_source, design.facts)]
    settings = [*design.environment.items(), *((k, f"{v:.1f} s") for k, v in _times(design))]
    if settings:
        blocks += [Heading("Settings", 2), Table(("what", "value"), tuple(settings))]
    return blocks


def _version(design: Design, folder: Path, version: int, prompt: ImagePrompt) -> list[Block]:
    best = " (the best)" if version == design.best_version and len(design.prompts) > 1 else ""
    blocks: list[Block] = [
        Heading(f"Version {version}{best}: {prompt.title}", 2),
        Quote(prompt.prompt),
    ]
    if prompt.negative_prompt:
        blocks.append(Paragraph(f"Not wanted: {prompt.negative_prompt}"))
    if prompt.structure is not None:
        blocks.append(Paragraph(f"Geometry: {structure_in_words(prompt.structure)}."))
    blocks += [Paragraph(f"Changed: {change}") for change in prompt.changes]
    pictures = [p for p in design.pictures if p.prompt_version == version]
    blocks += [Figure(p.path, _settings(p)) for p in pictures if (folder / p.path).is_file()]
    measured = {m.picture: m for m in design.measurements}
    shown = [(p, measured[p.path]) for p in pictures if p.path in measured]
    if shown:
        blocks += [_measures(shown, prompt.targets), Paragraph(CAUTION)]
    for critique in design.critiques:
        if critique.prompt_version == version:
            rows = tuple((name, f"{score:.1f} of 5") for name, score in critique.scores.items())
            blocks.append(Table(("judgement", "score"), rows))
            if critique.advice:
                blocks.append(Paragraph(f"Advice: {critique.advice}"))
    return blocks


def _settings(picture: Picture) -> str:
    r = picture.request
    return (
        f"Seed {picture.seed}; {r.model}, {r.scheduler}, {r.steps} steps, guidance {r.guidance:g}, "
        f"{r.width} x {r.height} pixels"
    )


def _measures(shown: list[tuple[Picture, Measurement]], wanted: Targets) -> Table:
    rows = (
        ("solid fraction", "solid_fraction", ""),
        ("main direction", "direction_deg", "°"),
        ("spacing", "spacing_px", " px"),
        ("anisotropy", "anisotropy", ""),
        ("contrast", "contrast", ""),
    )
    return Table(
        ("image statistic", "wanted", *(f"seed {picture.seed}" for picture, _ in shown)),
        tuple(
            (
                label,
                _number(getattr(wanted, name, None), unit),
                *(_number(getattr(measured, name), unit) for _, measured in shown),
            )
            for label, name, unit in rows
        ),
    )


def _turn(turn: Turn) -> list[Block]:
    said: list[Block] = [
        Heading(f"{turn.index}. {turn.speaker.replace('_', ' ')} ({turn.role}, {turn.model})", 3),
        Quote(turn.text.strip()),
    ]
    if turn.unsupported:
        loose = ", ".join(turn.unsupported)
        said.append(Paragraph(f"Not held by any fact the speaker was given: {loose}"))
    if turn.checks:
        told = (tally(turn), *doubts(turn, "plausible", "unsupported"))
        said += [Paragraph(f"{line[0].upper()}{line[1:]}") for line in told]
    return said


def _source(fact: Citation) -> Source:
    return Source(fact.id, fact.statement, fact.source_title, safe_link(fact.source_url))


def _times(design: Design) -> list[tuple[str, float]]:
    return list(design.timings_s.items())


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}{unit}" if abs(value) >= 10 else f"{value:.2f}{unit}"


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
