"""`orbweave merge RECIPE OUT`: two models become one; and the commands that prepare it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from ui.commands import options

if TYPE_CHECKING:
    from merging.plan import Cell
    from ui.answer import Answer

__all__ = ["application", "merge"]

DEFAULT = "recipe"
"""The command that `orbweave merge` means where the first word is none."""


class MergeGroup(TyperGroup):
    """Reads `merge RECIPE OUT` as `merge recipe RECIPE OUT`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default command first, unless a command or help is asked for."""
        if not args or args[0] not in {*self.commands, *ctx.help_option_names}:
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


def application() -> typer.Typer:
    """Return the group of commands about merging."""
    from ui.commands.merge_compare import compare
    from ui.commands.merge_sweep import sweep

    app = typer.Typer(
        cls=MergeGroup,
        subcommand_metavar="RECIPE OUT | COMMAND [ARGS]...",
        rich_markup_mode=None,
    )
    app.callback()(_group)
    app.command(DEFAULT)(merge)
    app.command("compare")(compare)
    app.command("sweep")(sweep)
    return app


def _group() -> None:
    """Merge language models; compare them before, and try many merges.

    `orbweave merge RECIPE OUT` is short for `orbweave merge recipe RECIPE OUT`. A file or folder
    that is called like a command is written ./compare.
    """


def merge(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A recipe in mergekit's YAML, or slerp(MODEL, MODEL, t=0.4), or MODEL+ADAPTER.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder to write, made anew.", show_default=False)
    ],
    partial: Annotated[
        bool, typer.Option("--partial", help="Take from the base what does not fit.")
    ] = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Merge language models into a plain Hugging Face folder.

    Example: orbweave merge "slerp(base, ./silk, profile=paper)" ./silk-merged
    """
    from merging.build import merge as write
    from orbweave.logbook import logged
    from ui.answer import Answer
    from ui.progress import both
    from ui.target import check_target

    check_target(out, force=force, is_ours=_is_merge, typed="OUT")
    answer = Answer(as_json=as_json, quiet=quiet)
    if dry_run:
        _plan(recipe, out, answer, partial=partial)
        return
    begin = time.perf_counter()
    with logged("merge", recipe, out) as entry:
        told = both(answer.note, entry.note)
        findings = write(recipe, out, partial=partial, force=force, on_progress=told)
    seconds = round(time.perf_counter() - begin, 2)
    for finding in findings:
        answer.line(f"{finding.level}: {finding.text}")
    answer.end(
        {"written": str(out), "findings": [f._asdict() for f in findings], "seconds": seconds},
        f"merged model written to {out} in {seconds:.1f} s",
    )


def _plan(recipe: str, out: Path, answer: Answer, *, partial: bool) -> None:
    """Say what stands against the merge, and which share each layer would get."""
    from merging.build import preview
    from merging.folder import refuse_faults
    from merging.plan import share_table

    found = preview(recipe, partial=partial, on_progress=answer.note)
    for finding in found.findings:
        answer.line(f"{finding.level}: {finding.text}")
    refuse_faults(found.findings)
    cells = share_table(found.steps)
    for line in _table(cells):
        answer.line(line)
    if not found.steps:
        answer.line("mergekit would merge this, so there is no table of shares")
    document: dict[str, Any] = {
        "out": str(out),
        "findings": [finding._asdict() for finding in found.findings],
        "tensors": len(found.steps),
        "shares": [cell._asdict() for cell in cells],
    }
    answer.end(document, f"dry run: would write {out}")


def _table(cells: Sequence[Cell]) -> list[str]:
    """Return one line per layer: the share of the last parent for each kind of weight."""
    rows: dict[str, dict[str, str]] = {}
    for cell in cells:
        layer = "" if cell.layer is None else str(cell.layer)
        share = f"{cell.shares[-1]:.3f}" if cell.shares else "–"
        if cell.layer is None:
            rows[cell.part] = {"": share}
        else:
            rows.setdefault(layer, {})[cell.part] = share
    parts = list(dict.fromkeys(part for row in rows.values() for part in row if part))
    width = max((len(name) for name in rows), default=0)
    lines = [f"{'layer':<{width}}  {'  '.join(parts)}"] if parts else []
    for name, row in rows.items():
        shares = "  ".join(f"{row.get(part, ''):<{len(part)}}" for part in parts)
        lines.append(f"{name:<{width}}  {row.get('', shares)}".rstrip())
    return lines


def _is_merge(folder: Path) -> bool:
    return (folder / "mergekit_config.yml").is_file()
