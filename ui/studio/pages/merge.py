"""Two models become one: their geometry, a mixing desk for t, and the slider between them."""

from __future__ import annotations

import gradio as gr

from ui.studio.desk import Desk

__all__ = ["PATH", "TITLE", "build"]

TITLE = "Merge"
PATH = "merge"


def build(desk: Desk) -> None:
    """Lay out the page; `ui.studio.merge_room` fills it."""
    gr.HTML(
        '<div class="ow-table ow-room"></div>',
        elem_id="merge",
        js_on_load="window.orbweave.room(element, 'merge')",
        apply_default_css=False,
    )
