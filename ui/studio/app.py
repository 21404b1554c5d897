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
MAX_UPLOAD = "20mb"


def build_app(desk: Desk) -> FastAPI:
    """Return the ASGI application of a desk; importing Gradio takes seconds."""
    # Read by Gradio: nothing is reported to anybody, and no statistics are made of every click.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)
    import gradio as gr
    from fastapi import FastAPI
    from gradio.components.navbar import Navbar

    from ui.studio.downloads import DOWNLOADS, sender
    from ui.studio.pages import PAGES
    from ui.studio.questions import QUESTIONS, answerer
    from ui.studio.theme import theme

    first, *others = PAGES
    with gr.Blocks(title="Orbweave", analytics_enabled=False) as blocks:
        Navbar(main_page_name=first.TITLE)
        first.build(desk)
    for page in others:
        with blocks.route(page.TITLE, page.PATH):
            Navbar(main_page_name=first.TITLE)
            page.build(desk)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_route(DOWNLOADS, sender(desk))
    app.add_route(QUESTIONS, answerer(desk), methods=["POST"])
    script = (ASSETS / "studio.js").read_text("utf-8")
    with warnings.catch_warnings():
        # Gradio warns that it will not render pages on the server, as it was told not to.
        warnings.filterwarnings("ignore", "SSR mode is not supported")
        mounted: FastAPI = gr.mount_gradio_app(
            app,
            blocks,
            path="/",
            theme=theme(),
            css=(ASSETS / "studio.css").read_text("utf-8"),
            head=f"<script>{script}</script>",
            footer_links=[],
            run_history=False,
            max_file_size=MAX_UPLOAD,
            ssr_mode=False,
            enable_monitoring=False,
            mcp_server=False,
            allowed_paths=[],  # pictures and archives go through `downloads`, owner by owner
        )
    return mounted
