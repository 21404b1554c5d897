"""One design as one HTML file: pictures, prompt, conversation, facts, settings.

The file needs nothing beside it (pictures are data URIs, no script, no web font) and
takes nothing on trust: every text is escaped, and only http and https links are links.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from agents.diff import Piece, word_diff
from orbweave.records import (
    Citation,
    Critique,
    Design,
    ImagePrompt,
    Measurement,
    Picture,
    Structure,
    Targets,
    Turn,
)
from ui.template import environment
from ui.verdicts import COMPARED, reason, tally

__all__ = ["Segment", "marked", "render_report", "safe_link", "structure_in_words"]

TEMPLATE = "report.html.j2"


class Segment(NamedTuple):
    """A piece of text; `href` and `note` are empty where nothing is marked."""

    text: str
    href: str = ""
    note: str = ""


@dataclass(frozen=True)
class Version:
    """One prompt version with everything that followed from it."""

    number: int
    prompt: ImagePrompt
    segments: list[Segment]
    """The prompt, its phrases linked to the turns they came from."""
    pictures: list[tuple[Picture, Measurement | None, str]]
    """Picture, what it measures, its data URI."""
    critique: Critique | None
    diff: tuple[Piece, ...]
    """What changed in the words against the version it was made from; empty for a first one."""
    seed_picture: str
    """Data URI of the bare geometry; empty if the picture was not seeded."""
    structure: str
    """The geometry in words; empty if the picture was not seeded."""


def render_report(design: Design, folder: Path) -> str:
    """Return the report as HTML.

    Args:
        design: The record; the paths of its pictures are relative to `folder`.
        folder: The design folder. Bare geometries are `images/seed-structure*.png` there.
    """
    pages = environment()
    pages.filters["link"] = safe_link
    pages.filters["spoken"] = lambda name: name.replace("_", " ")
    versions = [_version(design, folder, number) for number in range(len(design.prompts))]
    said = {turn.index: _said(turn, design.facts) for turn in design.turns}
    used = {fact_id for turn in design.turns for fact_id in turn.cited}
    return pages.get_template(TEMPLATE).render(
        design=design,
        versions=versions,
        last=_result(versions, design.best_version),
        said=said,
        used=used,
        known={fact.id for fact in design.facts},
        compared=COMPARED,
        tally=tally,
        reason=reason,
        speakers={turn.index: turn.speaker for turn in design.turns},
        wanted=_wanted,
        number=_number,
    )


def _result(versions: Sequence[Version], best: int | None) -> Version | None:
    """Return the version the report begins with: the best one, else the last."""
    if not versions:
        return None
    return versions[-1 if best is None or best >= len(versions) else best]


def marked(text: str, marks: Mapping[str, tuple[str, str]]) -> list[Segment]:
    """Split `text` where a key of `marks` occurs; values are (href, note).

    Longer keys win over shorter ones, the case is ignored, and a key inside a longer word
    is left alone: "vein" is not marked in "veins".
    """
    keys = sorted((k for k in marks if k.strip()), key=len, reverse=True)
    if not keys:
        return [Segment(text)]
    folded = {key.casefold(): marks[key] for key in keys}
    pattern = re.compile(
        r"(?<!\w)(" + "|".join(re.escape(key) for key in keys) + r")(?!\w)", re.IGNORECASE
    )
    segments = []
    for part in pattern.split(text):
        href, note = folded.get(part.casefold(), ("", ""))
        if part:
            segments.append(Segment(part, href, note))
    return segments


def safe_link(url: str) -> str:
    """Return `url` if it is http or https, else an empty string."""
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        return ""
    return url.strip() if parts.scheme in {"http", "https"} and parts.netloc else ""


def _version(design: Design, folder: Path, number: int) -> Version:
    prompt = design.prompts[number]
    speakers = {turn.index: turn.speaker.replace("_", " ") for turn in design.turns}
    marks = {
        origin.phrase: (
            f"#turn-{origin.turn}",
            f"from turn {origin.turn}, {speakers.get(origin.turn, 'unknown')}",
        )
        for origin in prompt.origins
    }
    measured = {measurement.picture: measurement for measurement in design.measurements}
    pictures = [
        (picture, measured.get(picture.path), _data_uri(folder / picture.path))
        for picture in design.pictures
        if picture.prompt_version == number
    ]
    structure = next((p.request.structure for p, _, _ in pictures if p.request.structure), None)
    seed_file = folder / "images" / f"seed-structure-{number}.png"
    return Version(
        number=number,
        prompt=prompt,
        segments=marked(prompt.prompt, marks),
        pictures=pictures,
        critique=next((c for c in design.critiques if c.prompt_version == number), None),
        diff=_diff(design, prompt),
        seed_picture=_data_uri(seed_file) if structure and seed_file.is_file() else "",
        structure=structure_in_words(structure) if structure else "",
    )


def _diff(design: Design, prompt: ImagePrompt) -> tuple[Piece, ...]:
    if prompt.revises is None or prompt.revises >= len(design.prompts):
        return ()
    return word_diff(design.prompts[prompt.revises].prompt, prompt.prompt)


def structure_in_words(structure: Structure) -> str:
    """Return the geometry as one readable line, lengths in pixels of a 256-pixel picture."""
    motifs = [
        f"{motif.family.replace('_', ' ')} (spacing {_number(motif.spacing)} px, "
        f"thickness {_number(motif.thickness)} of it, "
        f"direction {_number(motif.direction_deg)}°, "
        f"irregularity {_number(motif.irregularity)})"
        for motif in structure.motifs
    ]
    joint = {"single": ""}.get(structure.combine, f", combined as {structure.combine}")
    return f"{' and '.join(motifs)}{joint}; look {structure.look}; seed {structure.seed}"


def _said(turn: Turn, facts: Sequence[Citation]) -> list[Segment]:
    """Return a turn's text with cited facts linked and unsupported numbers noted."""
    statements = {fact.id: fact.statement for fact in facts}
    marks = {
        fact_id: (f"#fact-{fact_id}", statements[fact_id])
        for fact_id in turn.cited
        if fact_id in statements
    }
    # The brackets around an id belong to the link.
    marks |= {f"[{fact_id}]": mark for fact_id, mark in marks.items()}
    marks |= {number: ("", "no fact given to the speaker holds it") for number in turn.unsupported}
    return marked(turn.text, marks)


def _wanted(targets: Targets, name: str) -> float | None:
    value = getattr(targets, name, None)
    return float(value) if value is not None else None


def _number(value: float | None) -> str:
    """Return a number as people write it; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 10 or value == int(value) else f"{value:.2f}"


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
