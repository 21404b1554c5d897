"""Everything somebody has designed: search, rate, repeat, put on boards, take home."""

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
        board = gr.Dropdown(
            [ANY], value=ANY, label="Board", min_width=120, allow_custom_value=True, elem_id="board"
        )
        since = gr.Textbox(label="From", placeholder="2026-01-31", min_width=110, max_length=20)
        until = gr.Textbox(label="To", placeholder="2026-12-31", min_width=110, max_length=20)
    # Written by the page's script: whose pictures to resemble, and that a board has changed.
    like = gr.Textbox(visible="hidden", elem_id="like")
    changed = gr.Textbox(visible="hidden", elem_id="changed")
    fields = [words, domain, model, stars, board, since, until, like]
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
        board: str,
        since: str,
        until: str,
        like: str,
        request: gr.Request,
    ) -> Any:
        """Return the designs that fit, as HTML, and the models and boards to choose from."""
        owner = request.headers[OWNER_HEADER]
        own = [card(sitting) for sitting in desk.sittings(owner)]
        wanted = Search(
            words,
            "" if domain == ANY else domain,
            "" if model == ANY else model,
            since or "",
            until or "",
            stars or 0,
            "" if board == ANY else board,
            like or "",
        )
        try:
            boards = desk.boards(owner).read()
            found = search(own, wanted, boards)
        except OrbweaveError as err:
            return f'<p class="ow-quiet">{escape(str(err))}</p>', gr.skip(), gr.skip()
        return (
            _told(found, own, wanted) + cards(found[:MOST], boards),
            gr.Dropdown(choices=[ANY, *_models(own)]),
            gr.Dropdown(choices=[ANY, *boards]),
        )

    changes = [each.change for each in (words, domain, model, stars, board, like, changed)]
    # A date is heard when it is whole: after Enter, or when the field is left.
    dates = [event for each in (since, until) for event in (each.submit, each.blur)]
    gr.on(
        [*changes, *dates],
        library,
        inputs=fields,
        outputs=[shown, model, board],
        api_visibility="private",
        show_progress="hidden",
        trigger_mode="always_last",
    )
    blocks = gr.context.Context.root_block
    assert blocks is not None  # `build` is called inside it
    blocks.load(
        library, fields, [shown, model, board], api_visibility="private", show_progress="hidden"
    )


def _told(found: list[Card], own: list[Card], wanted: Search) -> str:
    """Return how many there are and, where pictures are compared, with whose."""
    rest = f" The first {MOST} are shown; search for the others." if len(found) > MOST else ""
    if not wanted.like:
        return f'<p class="ow-quiet" role="status">{len(found)} of {len(own)} designs.{rest}</p>'
    model = next(each for each in own if each.id == wanted.like)
    return (
        f'<p class="ow-like" role="status">{_counted(found)}, those first whose pictures '
        f"measure most like those of <b>{escape(model.title or model.concept)}</b>.{rest} "
        '<button type="button" class="ow-button" data-like="">All designs</button></p>'
    )


def _counted(found: list[Card]) -> str:
    return "1 design" if len(found) == 1 else f"{len(found)} designs"


def _models(own: list[Card]) -> list[str]:
    return sorted({model for each in own for model in each.models})
