"""`orbweave ui`: the design studio in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ui.commands import options

__all__ = ["ui"]


def ui(
    host: Annotated[
        str, typer.Option(help="Address to listen at; others than 127.0.0.1 let others in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Its port.")] = 7860,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where designs are kept [default: the user's data folder].",
            show_default=False,
        ),
    ] = None,
    auth: Annotated[
        str | None,
        typer.Option(
            metavar="NAME:PASSWORD|FILE",
            help="Let in only who knows one of these; a file holds one a line "
            "[default: everybody who reaches the port, each browser apart].",
            show_default=False,
        ),
    ] = None,
    mcp: Annotated[
        bool,
        typer.Option("--mcp", help="Offer the endpoints of docs/api.md to MCP clients too."),
    ] = False,
    workers: Annotated[int, typer.Option(min=1, max=16, help="Designs made at the same time.")] = 1,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Open the design studio: talk with the team in the browser, keep every design.

    The page answers at once and says when the models are ready. Ctrl-C closes the studio;
    what was under way can go on when it is opened again.

    Example: orbweave ui --port 7860 --data ~/designs
    """
    from ui.answer import Answer
    from ui.studio.desk import Desk
    from ui.studio.gate import LOOPBACK, read_auth
    from ui.studio.models import open_models
    from ui.studio.serve import MCP_PATH, serve, usual_data

    passwords = {} if auth is None else read_auth(auth)
    folder = (data or usual_data()).expanduser().absolute()
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    answer = Answer(as_json=as_json, quiet=quiet)
    if host not in LOOPBACK and not passwords:
        answer.note(f"everybody who reaches {address} may design here; --auth asks for a password")
    plan: dict[str, Any] = {"address": address, "data": str(folder), "workers": workers}
    if mcp:
        plan["mcp"] = f"{address}{MCP_PATH}"
        answer.note(f"MCP clients are answered at {plan['mcp']}")
    answer.end(plan, f"the studio is at {address}; designs are kept in {folder}")
    if not dry_run:
        serve(Desk(folder, open_models, n_workers=workers), host=host, port=port,
              passwords=passwords, speaks_mcp=mcp)  # fmt: skip
