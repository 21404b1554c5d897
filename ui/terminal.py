"""The terminal view: a team's events drawn as they come.

On a terminal, speakers who are still talking share a live region at the bottom, and each
finished turn moves up into the scroll-back as one block; elsewhere only the finished
blocks are printed, as plain lines. What models and sources say is data: it is never read
as markup and its control characters never reach the terminal.
"""

from __future__ import annotations

import io
import re
import sys
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TextIO, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from agents.diff import word_diff
from agents.events import (
    Critiqued,
    Event,
    FactsFound,
    Prompted,
    Rendered,
    RenderStep,
    Spoke,
    Stopped,
    TurnEnded,
    TurnStarted,
)
from orbweave.records import Brief, Citation, Measurement, Targets, Turn
from ui.verdicts import doubts, tally

__all__ = ["TerminalView", "plain"]

EXPERT_STYLES = {
    "silk": "gold3",
    "collagen": "light_coral",
    "leaf": "green3",
    "composite": "medium_purple1",
}
DOUBT = "orange_red1"
DIFF_STYLES = {"same": ("", ""), "removed": ("-", "red strike"), "added": ("+", "green")}
"""Sign around the words, as `wdiff` sets them, and style of each kind of change."""
ROLE_STYLES = {"expert": "cyan", "engineer": "dodger_blue1", "critic": "dark_orange"}
# ZWNJ, ZWJ and the two direction marks: scripts and emoji need them, and they cannot
# reorder more than their neighbours, as embeddings and overrides can.
HARMLESS_FORMATS = frozenset("\u200c\u200d\u200e\u200f")
LIVE_LINES = 3
"""Lines of each running turn shown in the live region; the whole text follows at its end."""
FACT_CHARS = 90
TITLE_CHARS = 48
MAX_WIDTH = 100
"""Columns; longer lines of prose are hard to read, however wide the window."""


def plain(text: str) -> str:
    """Return `text` without anything that could steer a terminal; newlines stay."""
    kept = (" " if c == "\t" else c for c in text)
    return "".join(
        c
        for c in kept
        if c == "\n"
        or c in HARMLESS_FORMATS
        or unicodedata.category(c)[0] not in {"C", "Z"}
        or c == " "
    )


class _NoTrailingBlanks(io.TextIOBase):
    """A text stream without the blanks rich fills lines up with, which logs do not want."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        self._file.write(re.sub(r" +(?=\n)", "", text))
        return len(text)

    def flush(self) -> None:
        self._file.flush()


@dataclass
class _Running:
    """A turn that has begun and not ended."""

    started: TurnStarted
    text: str = ""
    pieces: int = 0
    """Pieces of text so far; an engine streams about one token each."""
    since: float = 0.0


@dataclass
class TerminalView:
    """Draws the events of one design. Use as a context manager: it owns the live region."""

    stream: TextIO | None = None
    """Where to draw; None is stdout at the time of use."""
    clock: Callable[[], float] = time.monotonic
    width: int | None = None
    _facts: dict[str, Citation] = field(default_factory=dict)
    _prompts: dict[int, str] = field(default_factory=dict)
    """Prompt texts by version, to show what a revision changed."""
    _running: dict[int, _Running] = field(default_factory=dict)
    _note: str = ""
    _steps: tuple[int, int] | None = None
    _live: Live | None = None

    def __post_init__(self) -> None:
        file = self.stream or sys.stdout
        if not file.isatty():
            file = cast(TextIO, _NoTrailingBlanks(file))
        console = Console(file=file, width=self.width, highlight=False, emoji=False)
        if console.width > MAX_WIDTH:
            console.width = MAX_WIDTH
        self.console = console

    def __enter__(self) -> TerminalView:
        if self.console.is_terminal:
            self._live = Live(
                get_renderable=self._bottom,
                console=self.console,
                refresh_per_second=8,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._running.clear()
            self._note, self._steps = "", None
            self._live.stop()
            self._live = None

    def begin(self, brief: Brief) -> None:
        """Print the head: the concept and what is fixed about it."""
        self.console.print(Rule(style="dim"))
        self.console.print(Text(plain(brief.concept), style="bold"))
        self.console.print(Text(f"{brief.scale} · seed {brief.seed}", style="dim"))

    def note(self, text: str) -> None:
        """Show what is being waited for; only on a terminal, and only while it lasts."""
        self._note = plain(text)

    def say(self, text: str) -> None:
        """Print one plain line."""
        self.console.print(Text(plain(text)), soft_wrap=True)

    def on_event(self, event: Event) -> None:
        """Draw one event."""
        match event:
            case FactsFound():
                self._on_facts(event)
            case TurnStarted():
                self._note = ""
                self._running[event.index] = _Running(event, since=self.clock())
            case Spoke():
                self._on_text(event)
            case TurnEnded():
                self._running.pop(event.turn.index, None)
                self.console.print(self._block(event.turn))
            case Prompted():
                self._prompts[event.version] = event.prompt.prompt
                before = self._prompts.get(-1 if (n := event.prompt.revises) is None else n)
                self.console.print(_prompt_panel(event, before))
            case RenderStep():
                self._note = ""
                self._steps = (event.step, event.total)
            case Rendered():
                self._steps = None
                self.console.print(_measured(event))
            case Critiqued():
                self.console.print(_scores(event))
            case Stopped():
                self.console.print(Text(f"\nStopped: {plain(event.reason)}", style="dim"))

    def _on_facts(self, event: FactsFound) -> None:
        self._facts = {fact.id: fact for fact in event.facts}
        counts = [
            f"{domain} ({sum(fact.domain == domain for fact in event.facts)} facts)"
            for domain in event.domains
        ]
        if n_own := sum(fact.domain == "own" for fact in event.facts):
            counts.append(f"{n_own} of your own")
        self.console.print(Text(f"experts for this concept: {', '.join(counts)}", style="dim"))
        if event.note:
            self.console.print(Text(f"Note: {plain(event.note)}", style="yellow"))

    def _on_text(self, event: Spoke) -> None:
        running = self._running.get(event.index)
        if running is not None:
            running.text += event.text
            running.pieces += 1

    def _block(self, turn: Turn) -> RenderableType:
        """Return a finished turn: who, with what, the words, their facts and what these hold."""
        style = _style(turn.speaker, turn.role)
        pace = f" · {_pace(turn.n_tokens, turn.seconds)}" if turn.seconds > 0 else ""
        head = Text.assemble(
            ("\n● ", style),
            (_name(turn.speaker), f"bold {style}"),
            (f"  {plain(turn.model)} · {turn.n_tokens} tokens{pace}", "dim"),
        )
        rows: list[RenderableType] = [head, Padding(_body(turn, style), (0, 0, 0, 2))]
        for fact_id in dict.fromkeys(turn.cited):
            fact = self._facts.get(fact_id)
            if fact is not None:
                rows.append(Padding(_fact_line(fact), (0, 0, 0, 4)))
        if turn.unsupported:
            numbers = ", ".join(plain(number) for number in turn.unsupported)
            rows.append(Padding(Text(f"not in the given facts: {numbers}", DOUBT), (0, 0, 0, 4)))
        if turn.checks:
            rows.append(Padding(Text(tally(turn), "dim"), (0, 0, 0, 4)))
        # What a prompt paints need be in no fact: only an expert's word is doubted aloud.
        for doubt in doubts(turn, "unsupported") if turn.role == "expert" else ():
            rows.append(Padding(Text(plain(doubt), DOUBT), (0, 0, 0, 4)))
        return Group(*rows)

    def _bottom(self) -> RenderableType:
        """Return the live region: running turns, the bar, or what is waited for."""
        rows: list[RenderableType] = []
        for running in self._running.values():
            rows.extend(self._running_rows(running))
        if self._steps is not None:
            rows.append(_bar(*self._steps))
        if self._note and not rows:
            rows.append(Spinner("dots", Text(self._note, style="dim")))
        return Group(*rows)

    def _running_rows(self, running: _Running) -> list[RenderableType]:
        started = running.started
        style = _style(started.speaker, started.role)
        seconds = self.clock() - running.since
        pace = _pace(running.pieces, seconds) if running.pieces and seconds > 0 else "…"
        head = Text.assemble(
            ("○ ", style),
            (_name(started.speaker), f"bold {style}"),
            (f"  {plain(started.model)} · {pace}", "dim"),
        )
        lines = Text(plain(running.text)).wrap(self.console, max(20, self.console.width - 4))
        tail = Text("\n").join(list(lines)[-LIVE_LINES:])
        return [head, Padding(tail, (0, 0, 0, 2))]


def _style(speaker: str, role: str) -> str:
    known = (style for part, style in EXPERT_STYLES.items() if part in speaker)
    return (
        next(known, ROLE_STYLES.get(role, "cyan"))
        if role == "expert"
        else ROLE_STYLES.get(role, "magenta")
    )


def _pace(n_tokens: int, seconds: float) -> str:
    rate = n_tokens / seconds
    return f"{rate:.0f} tok/s" if rate >= 10 else f"{rate:.1f} tok/s"


def _name(speaker: str) -> str:
    return plain(speaker).replace("_", " ")


def _body(turn: Turn, style: str) -> Text:
    """Return the words with the ids of cited facts and unsupported numbers in colour."""
    body = Text(plain(turn.text).strip())
    for fact_id in turn.cited:
        body.highlight_regex(rf"(?<!\w){re.escape(fact_id)}(?!\w)", style=style)
    for number in turn.unsupported:
        body.highlight_regex(re.escape(number), style=DOUBT)
    return body


def _fact_line(fact: Citation) -> Text:
    statement = _short(plain(fact.statement), FACT_CHARS)
    source = _short(plain(fact.source_title), TITLE_CHARS)
    return Text.assemble(
        (f"{plain(fact.id)}  ", "dim bold"), (statement, "dim"), (f" ({source})", "dim italic")
    )


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def _prompt_panel(event: Prompted, before: str | None) -> RenderableType:
    """Return a prompt, with the words that a revision added and removed if it is one."""
    prompt = event.prompt
    rows = [Text(plain(prompt.prompt)) if before is None else _diff(before, prompt.prompt)]
    rows += [Text(f"changed: {plain(change)}", style="dim") for change in prompt.changes]
    if prompt.negative_prompt:
        rows.append(Text(f"not: {plain(prompt.negative_prompt)}", style="dim"))
    if prompt.structure is not None:
        rows.append(Text(f"geometry seeded from: {_structure(prompt)}", style="dim"))
    wanted = _targets(prompt.targets)
    if wanted:
        rows.append(Text(f"to measure: {wanted}", style="dim"))
    # A panel's title is read as markup, unlike everything else here.
    title = escape(_short(plain(prompt.title), 60)) or "prompt"
    return Padding(
        Panel(
            Group(*rows),
            title=f"{title} · v{event.version}",
            title_align="left",
            border_style="dodger_blue1",
        ),
        (1, 0, 0, 0),
    )


def _diff(before: str, now: str) -> Text:
    """Return the words of both versions; signs say what colours say, for logs and for all eyes."""
    text = Text()
    for piece in word_diff(plain(before), plain(now)):
        sign, style = DIFF_STYLES[piece.change]
        words = piece.text.strip()
        shown = f"[{sign}{words}{sign}]" if sign else words
        text.append(shown, style).append(" ")
    text.rstrip()
    return text


def _structure(prompt_or_none: object) -> str:
    structure = getattr(prompt_or_none, "structure", None)
    if structure is None:
        return "nothing"
    families = " + ".join(motif.family.replace("_", " ") for motif in structure.motifs)
    joint = "" if structure.combine == "single" else f", {structure.combine}"
    return f"{families}{joint}, {structure.look}"


def _targets(targets: Targets) -> str:
    parts = []
    if targets.solid_fraction is not None:
        parts.append(f"solid fraction {targets.solid_fraction:.2f}")
    if targets.direction_deg is not None:
        parts.append(f"direction {targets.direction_deg:.0f}°")
    if targets.spacing_px is not None:
        parts.append(f"spacing {targets.spacing_px:.0f} px")
    return ", ".join(parts)


def _measured(event: Rendered) -> RenderableType:
    """Return one row per picture with its image statistics."""
    table = Table(box=None, pad_edge=False, header_style="dim", title_justify="left")
    table.add_column("picture", overflow="fold")
    for name in ("solid", "direction", "anisotropy", "spacing"):
        table.add_column(name, justify="right")
    by_path = {measurement.picture: measurement for measurement in event.measurements}
    for picture in event.pictures:
        table.add_row(Text(plain(picture.path)), *_cells(by_path.get(picture.path)))
    rows: list[RenderableType] = [table]
    lost = next((p.lost_words for p in event.pictures if p.lost_words), ())
    if lost:
        rows.append(
            Text(f"beyond the text window, not drawn: {plain(' '.join(lost))}", style="yellow")
        )
    rows.append(Text("image statistics, not material properties", style="dim italic"))
    return Padding(Group(*rows), (1, 0, 0, 2))


def _cells(measurement: Measurement | None) -> Sequence[str]:
    if measurement is None:
        return ("–",) * 4
    direction, spacing = measurement.direction_deg, measurement.spacing_px
    return (
        f"{measurement.solid_fraction:.2f}",
        "–" if direction is None else f"{direction:.0f}°",
        f"{measurement.anisotropy:.2f}",
        "–" if spacing is None else f"{spacing:.0f} px",
    )


def _scores(event: Critiqued) -> RenderableType:
    critique = event.critique
    line = Text("\n  scores ", style="dim")
    for name, value in critique.scores.items():
        line.append(f"{plain(name)} ", style="dim").append(f"{value:.1f}/5  ", style="bold")
    rows = [line]
    for name, aim in critique.wanted.model_dump(exclude_none=True).items():
        got = critique.measured.get(name)
        shown = "nothing measurable" if got is None else f"{got:.2f}"
        rows.append(Text(f"  {name}: wanted {aim:.2f}, measured {shown}", style="dim"))
    if critique.distance is not None:
        rows.append(Text(f"  distance to targets: {critique.distance:.2f} tolerances", style="dim"))
    return Group(*rows)


def _bar(step: int, total: int) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_row(
        Text("rendering", style="dim"),
        ProgressBar(total=max(total, 1), completed=step, width=40),
        Text(f"{step}/{total} steps", style="dim"),
    )
    return grid
