"""Runs the studio: a socket at once, then the pages, then the models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_data_dir

from ui.studio.app import build_app
from ui.studio.desk import Desk
from ui.studio.front import Front
from ui.studio.gate import LOOPBACK, Gate

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["MCP_PATH", "serve", "usual_data"]

MCP_PATH = "/gradio_api/mcp/"
"""Where MCP clients are answered; Gradio chose it."""


def usual_data() -> Path:
    """Return where designs are kept if nobody says where."""
    return Path(user_data_dir("orbweave")) / "studio"


def serve(
    desk: Desk, *, host: str, port: int, passwords: Mapping[str, str], speaks_mcp: bool = False
) -> None:
    """Serve a desk until somebody interrupts; opens it first and closes it at the end.

    Args:
        desk: What to serve.
        host: Address to listen at; only 127.0.0.1 keeps the studio to this machine.
        port: Its port.
        passwords: By name; empty lets everybody in who reaches the port.
        speaks_mcp: Answer the Model Context Protocol too.

    Raises:
        OutputError: another studio works on the desk's folder.
        OSError: the port is taken.
    """
    import uvicorn

    is_local = host in LOOPBACK

    def build() -> FastAPI:
        # Passwords at this machine's own address mean a proxy before it, and others behind that.
        app = build_app(desk, speaks_mcp=speaks_mcp, is_private=is_local and not passwords)
        desk.work()  # only now: reading models beside it would delay the pages
        return app

    desk.open()
    try:
        front = Gate(Front(build), passwords=passwords, only_local=is_local)
        config = uvicorn.Config(
            front,
            host=host,
            port=port,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=3,
            # Behind a proxy the address is of no use to us, and a header can lie.
            proxy_headers=False,
        )
        uvicorn.Server(config).run()
    finally:
        desk.close()
