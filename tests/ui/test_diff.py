"""What changed between two prompt versions, as the views show it."""

from __future__ import annotations

import io
from pathlib import Path

from agents.events import Prompted
from orbweave.records import Design, ImagePrompt
from ui.report import render_report
from ui.terminal import TerminalView

OLD = "Thick golden lines cross a dark sheet."
NEW = "Thin golden lines cross a dark, wet sheet."


def test_the_terminal_shows_what_a_revision_changed() -> None:
    stream = io.StringIO()
    view = TerminalView(stream=stream, width=100)
    view.on_event(Prompted(0, ImagePrompt(title="Web", prompt=OLD)))
    change = "Thickness from 0.30 to 0.20 of the spacing."
    revised = ImagePrompt(title="Web", prompt=NEW, revises=0, changes=(change,))
    view.on_event(Prompted(1, revised))
    first, second = stream.getvalue().split("v1")
    assert OLD in first
    assert "[-Thick-] [+Thin+] golden lines cross a [-dark-] [+dark, wet+] sheet." in second
    assert f"changed: {change}" in second


def test_the_report_begins_with_the_best_version_and_shows_the_diff(
    finished: tuple[Design, Path],
) -> None:
    design, folder = finished
    (first,) = design.prompts
    worse = first.model_copy(
        update={
            "prompt": f"{first.prompt} <b>wet</b>",
            "revises": 0,
            "changes": ("Turned by <i>9</i> degrees.",),
        }
    )
    html = render_report(
        design.model_copy(update={"prompts": (first, worse), "best_version": 0}), folder
    )
    assert "This is version 0 of 2, counted from 0: the best one" in html
    assert "Version 1, after it" in html
    assert "<ins>&lt;b&gt;wet&lt;/b&gt;</ins>" in html
    assert "<li>Turned by &lt;i&gt;9&lt;/i&gt; degrees.</li>" in html


def test_the_report_says_how_far_from_its_targets_a_version_is(
    finished: tuple[Design, Path],
) -> None:
    design, folder = finished
    (critique,) = design.critiques
    near = design.model_copy(update={"critiques": (critique.model_copy(update={"distance": 0.5}),)})
    assert "Distance to the targets: 0.50 tolerances" in render_report(near, folder)
    assert "Distance to the targets" not in render_report(design, folder)
