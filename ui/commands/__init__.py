"""The commands of `orbweave`, one thin file each: parse, call, report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from orbweave import __version__
from ui.commands import options

__all__ = ["application", "build"]


def _version(shown: bool) -> None:
    if shown:
        typer.echo(f"orbweave {__version__}")
        raise typer.Exit()


def build(*, debug: bool = False) -> Callable[..., Any]:
    """Return the whole command line as a callable that takes `args` and returns a code."""
    from typer.main import get_command

    return get_command(application(debug=debug)).main


def application(*, debug: bool = False) -> typer.Typer:
    """Return the Typer application; nothing heavy is imported until a command runs."""
    from ui.commands import (
        ablate,
        batch,
        converse,
        design,
        distill,
        env,
        evaluate,
        follow,
        homogenise,
        ingest,
        jobs,
        judge,
        measure,
        merge,
        models,
        relief,
        render,
        reproduce,
        serve,
        study,
        train,
        ui,
    )
    from ui.commands.text import TextCommand

    app = typer.Typer(
        name="orbweave",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_root)
    app.command("design", cls=TextCommand)(design.design)
    app.command("batch")(batch.batch)
    app.add_typer(jobs.application(), name="jobs")
    app.command("converse")(converse.converse)
    app.command("judge")(judge.judge)
    app.command("render", cls=TextCommand)(render.render)
    app.command("reproduce")(reproduce.reproduce)
    app.command("measure")(measure.measure)
    app.command("follow")(follow.follow)
    app.command("relief")(relief.relief)
    app.command("homogenise")(homogenise.homogenise)
    app.command("ingest")(ingest.ingest)
    app.command("distill")(distill.distill)
    app.command("train")(train.train)
    app.command("ablate")(ablate.ablate)
    app.add_typer(merge.application(), name="merge")
    app.command("evaluate")(evaluate.evaluate)
    app.command("serve")(serve.serve)
    app.command("study")(study.study)
    app.add_typer(models.application(), name="models")
    app.command("ui")(ui.ui)
    app.command("env")(env.env)
    return app


def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and leave.", is_eager=True, callback=_version
        ),
    ] = False,
    debug: options.Debug = False,
) -> None:
    """Weave a concept from biology into a picture: experts talk, a diffusion model draws."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
