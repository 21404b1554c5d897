"""The pages as one application: Gradio's, our downloads, the assets, one theme."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from ui.studio.desk import Desk

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["build_app"]

ASSETS = Path(__file__).with_name("assets")
SCRIPTS = ("studio.js", "rooms.js")
MAX_UPLOAD = "20mb"
FRAME = """
@media (max-width: 480px) {
  .nav-holder nav { justify-content: space-between !important; gap: 0 !important; }
  .nav-holder nav { padding: 0 8px !important; }
  .nav-holder nav a { padding: 6px 4px !important; font-size: .9375rem; }
  .gradio-container > .main { padding: 12px !important; }
}
"""
"""Style of what lies around the pages; Gradio confines `css` to their contents."""


def build_app(desk: Desk, *, speaks_mcp: bool = False, is_private: bool = False) -> FastAPI:
    """Return the ASGI application of a desk; importing Gradio takes seconds.

    Args:
        desk: What is served.
        speaks_mcp: Offer the endpoints of `ui.studio.api` over the Model Context Protocol too.
        is_private: Only this machine's own people come in: they may name its folders.
    """
    # Read by Gradio: nothing is reported to anybody, and no statistics are made of every click.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)
    import gradio as gr
    from fastapi import FastAPI
    from gradio.components.navbar import Navbar

    from ui.studio.api import hide_others, offer
    from ui.studio.corridor import hang_rooms
    from ui.studio.downloads import DOWNLOADS, sender
    from ui.studio.pages import PAGES
    from ui.studio.questions import QUESTIONS, answerer
    from ui.studio.theme import theme

    first, *others = PAGES
    with gr.Blocks(title="Orbweave", analytics_enabled=False) as blocks:
        Navbar(main_page_name=first.TITLE)
        offer(desk)  # first: no function of a page may take one of their names
        first.build(desk)
    for page in others:
        with blocks.route(page.TITLE, page.PATH):
            Navbar(main_page_name=first.TITLE)
            page.build(desk)
    hide_others(blocks)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_route(DOWNLOADS, sender(desk))
    app.add_route(QUESTIONS, answerer(desk), methods=["POST"])
    hang_rooms(app, desk, is_private=is_private)
    script = "".join((ASSETS / name).read_text("utf-8") for name in SCRIPTS)
    with warnings.catch_warnings():
        # Gradio warns that it will not render pages on the server, as it was told not to.
        warnings.filterwarnings("ignore", "SSR mode is not supported")
        mounted: FastAPI = gr.mount_gradio_app(
            app,
            blocks,
            path="/",
            theme=theme(),
            css=(ASSETS / "studio.css").read_text("utf-8"),
            head=f"<script>{script}</script><style>{FRAME}</style>",
            footer_links=[],
            run_history=False,
            max_file_size=MAX_UPLOAD,
            ssr_mode=False,
            enable_monitoring=False,
            mcp_server=speaks_mcp,
            allowed_paths=[],  # pictures and archives go through `downloads`, owner by owner
        )
    if speaks_mcp and blocks.mcp_server_obj is None:
        raise RuntimeError(f"wanted to answer MCP, Gradio could not: {blocks.mcp_error}")
    return mounted
