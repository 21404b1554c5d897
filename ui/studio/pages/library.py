"""Everything somebody has designed: search, rate, repeat, take home."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from orbweave.errors import OrbweaveError
from orbweave.records import DOMAINS
from ui.studio.desk import Desk
from ui.studio.gate import OWNER_HEADER
from ui.studio.library import Card, Search, card, search
from ui.studio.table import cards

__all__ = ["PATH", "TITLE", "build"]

TITLE = "Library"
PATH = "library"
ANY = "any"
MOST = 60
"""Cards shown at once; a search finds the rest."""


def build(desk: Desk) -> None:
    """Lay out the page."""
    with gr.Row(elem_id="search"):
        words = gr.Textbox(label="Words", placeholder="silk membrane", scale=3, elem_id="words")
        domain = gr.Dropdown([ANY, *DOMAINS], value=ANY, label="Domain", min_width=120)
        model = gr.Dropdown([ANY], value=ANY, label="Model", min_width=120, allow_custom_value=True)
        stars = gr.Dropdown(
            [(ANY, 0), *((f"{n} stars or more", n) for n in range(1, 6))],
            value=0,
            label="Rating",
            min_width=120,
            elem_id="rating",
        )
        since = gr.Textbox(label="From", placeholder="2026-01-31", min_width=110, max_length=20)
        until = gr.Textbox(label="To", placeholder="2026-12-31", min_width=110, max_length=20)
    fields = [words, domain, model, stars, since, until]
    shown = gr.HTML(
        elem_id="library",
        js_on_load="window.orbweave.library(element)",
        apply_default_css=False,
    )

    def library(
        words: str,
        domain: str,
        model: str,
        stars: int,
        since: str,
        until: str,
        request: gr.Request,
    ) -> Any:
        """Return the designs that fit, as HTML, and the models there are to choose from."""
        own = [card(sitting) for sitting in desk.sittings(request.headers[OWNER_HEADER])]
        wanted = Search(
            words,
            "" if domain == ANY else domain,
            "" if model == ANY else model,
            since or "",
            until or "",
            stars or 0,
        )
        try:
            found = search(own, wanted)
        except OrbweaveError as err:
            return f'<p class="ow-quiet">{escape(str(err))}</p>', gr.skip()
        return _listing(found, len(own)), gr.Dropdown(choices=[ANY, *_models(own)])

    gr.on(
        [words.change, domain.change, model.change, stars.change, since.submit, until.submit],
        library,
        inputs=fields,
        outputs=[shown, model],
        api_name="library",
        show_progress="hidden",
        trigger_mode="always_last",
    )
    blocks = gr.context.Context.root_block
    assert blocks is not None  # `build` is called inside it
    blocks.load(library, fields, [shown, model], api_visibility="private", show_progress="hidden")


def _listing(found: list[Card], n_own: int) -> str:
    rest = f" The first {MOST} are shown; search for the others." if len(found) > MOST else ""
    told = f'<p class="ow-quiet" role="status">{len(found)} of {n_own} designs.{rest}</p>'
    return told + cards(found[:MOST])


def _models(own: list[Card]) -> list[str]:
    return sorted({model for each in own for model in each.models})
