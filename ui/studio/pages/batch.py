"""A table of concepts becomes a batch: plan, run, watch, browse, take home."""

from __future__ import annotations

import gradio as gr

from ui.studio.desk import Desk

__all__ = ["PATH", "TITLE", "build"]

TITLE = "Batch"
PATH = "batch"


def build(desk: Desk) -> None:
    """Lay out the page; `ui.studio.batch_room` fills it."""
    gr.HTML(
        '<div class="ow-table ow-room"></div>',
        elem_id="batch",
        js_on_load="window.orbweave.room(element, 'batch')",
        apply_default_css=False,
    )
