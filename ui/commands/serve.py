"""`orbweave serve`: models, teams and pictures for any client of OpenAI's protocol."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ui.commands import options

__all__ = ["serve"]

_OUT = Path("served")
"""Where designs and pictures go without --out."""


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes a free one.")
    ] = 8010,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A further model to offer: a folder, org/name, a merge or a server; may be "
            "given several times.",
            show_default=False,
        ),
    ] = None,
    auth_token_env: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Environment variable with the token that clients must give as API key.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for designs and pictures.")
    ] = _OUT,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Serve models, merges, teams and pictures behind OpenAI's addresses, until Ctrl-C.

    Example: orbweave serve --port 8010, then base_url="http://127.0.0.1:8010/v1" in any client
    """
    from agents.embedding import MiniLM
    from agents.engines import Engines
    from ui.answer import Answer
    from ui.design import workshop
    from ui.serve import Guard
    from ui.serve import serve as run
    from ui.serve_designer import Designer
    from ui.serve_shelf import Shelf

    answer = Answer(as_json=as_json, quiet=quiet)
    guard = Guard(host, _token(auth_token_env))
    shelf = Shelf(Engines(answer.note).open, model or ())
    if dry_run:
        answer.end(
            {"host": host, "port": port, "models": shelf.names()},
            f"dry run: would serve {', '.join(shelf.names())} on {host} port {port}",
        )
        return
    shop = replace(workshop(answer.note, MiniLM()), lends_engines=True)

    def started(address: str) -> None:
        answer.end(
            {"address": address, "models": shelf.names()}, f"serving on {address}; Ctrl-C ends it"
        )
        sys.stdout.flush()

    run(shelf, Designer(shop, shelf, out), guard, port, started)


def _token(variable: str | None) -> str | None:
    """Return the token that a variable holds, None without a variable.

    Raises:
        UsageError: there is nothing in it.
    """
    from orbweave.errors import UsageError

    if variable is None:
        return None
    token = os.environ.get(variable, "").strip()
    if not token:
        raise UsageError(
            f"wanted a token in the environment variable {variable}, found nothing; set it"
        )
    return token
