"""Blind pairs, judged by keyboard: who wins is told at the end."""

from __future__ import annotations

import gradio as gr

from ui.studio.desk import Desk

__all__ = ["PATH", "TITLE", "build"]

TITLE = "Judge"
PATH = "judge"


def build(desk: Desk) -> None:
    """Lay out the page; `ui.studio.judge_room` fills it."""
    gr.HTML(
        '<div class="ow-table ow-room"></div>',
        elem_id="judge",
        js_on_load="window.orbweave.room(element, 'judge')",
        apply_default_css=False,
    )
