"""`orbweave models list|show|export|convert`: what can talk and draw, and where it comes from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ui.commands import options

if TYPE_CHECKING:
    from orbweave.models import ModelRef

__all__ = ["application"]

LOOM = "loom"
"""The image model that ships as weights and is assembled on first use."""
KINDS: tuple[Literal["language"], Literal["image"]] = ("language", "image")
Name = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A name, folder, org/name, MODEL+ADAPTER or slerp(...)."),
]


def application() -> typer.Typer:
    """Return the group of commands about models."""
    app = typer.Typer(
        help="What can talk and draw, and where it comes from.", rich_markup_mode=None
    )
    app.callback(invoke_without_command=True)(_group)
    app.command("list")(list_all)
    app.command("show")(show)
    app.command("export")(export)
    app.command("convert")(convert)
    return app


def _group(context: typer.Context) -> None:
    """What can talk and draw, and where it comes from."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def list_all(as_json: options.Json = False) -> None:
    """List the models that have a name of their own."""
    from orbweave.models import ModelRef, list_models
    from ui.answer import Answer

    answer = Answer(as_json=as_json)
    rows = []
    for entry in list_models():
        is_here = _is_here(ModelRef.parse(entry.name))
        rows.append(entry.model_dump(mode="json") | {"is_here": is_here})
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        mark = "*" if row["is_here"] else " "
        answer.line(f"{mark} {row['name']:<{width}}  {row['kind']:<8}  {row['description']}")
    answer.end(rows, "* works now, offline; the others are fetched on first use")


def show(model: Name, as_json: options.Json = False) -> None:
    """Show what is known of a model: origin, licence, lineage, size, hash.

    Example: orbweave models show base
    """
    from orbweave.models import ModelRef, show_model
    from ui.answer import Answer

    answer = Answer(as_json=as_json)
    known = show_model(model)
    if model == LOOM:
        found = show_model(_located(model, answer.note))
        known |= {name: found[name] for name in ("folder", "parameters", "size_bytes", "sha256")}
    ref = ModelRef.parse(model)
    if _place(ref) == "adapter":
        known |= _of_adapter(ref)
    width = max(len(name) for name in known)
    for name, value in known.items():
        answer.line(f"{name:<{width}}  {_shown(name, value)}")
    answer.end(known)


def export(
    model: Name,
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write, made anew.")],
    kind: Annotated[str, typer.Option(help=f"One of {', '.join(KINDS)}.")] = KINDS[0],
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Copy a model into a plain Hugging Face folder that transformers and vLLM load.

    Example: orbweave models export base ./smollm2
    """
    from orbweave.models import export_model
    from ui.answer import Answer
    from ui.commands.choice import one_of
    from ui.target import check_target

    check_target(out, force=force, is_ours=_is_model, typed="DIR")
    answer = Answer(as_json=as_json, quiet=quiet)
    wanted: Literal["language", "image"] = one_of("--kind", kind, KINDS)
    export_model(
        _located(model, answer.note), out, kind=wanted, force=force, on_progress=answer.note
    )
    answer.end({"written": str(out), "model": model}, f"{model} written to {out}")


def convert(
    file: Annotated[Path, typer.Argument(help="A .ckpt, .bin, .pt or .pth file.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A .safetensors file to write.")],
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Say that you trust where the file came from.")
    ] = False,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Turn a pickled checkpoint into safetensors, in a process of its own.

    Example: orbweave models convert old.ckpt old.safetensors --trust-pickle
    """
    from imagegen.convert import convert_pickle
    from ui.answer import Answer

    n_tensors = convert_pickle(file, out, trust=trust_pickle, force=force)
    answer = Answer(as_json=as_json, quiet=quiet)
    answer.end({"written": str(out), "tensors": n_tensors}, f"{n_tensors} tensors written to {out}")


def _located(model: str, note: Callable[[str], None]) -> str:
    """Return the reference; for a model that is built or assembled first, its folder."""
    from orbweave.models import ModelRef

    ref = ModelRef.parse(model)
    if model == LOOM:
        from imagegen.assembly import assembled

        return str(assembled().folder)
    if ref.kind in {"adapter", "merge", "recipe"} or _place(ref) in {"adapter", "merge"}:
        from merging.build import resolve_model

        return str(resolve_model(ref, note))
    return model


def _of_adapter(ref: ModelRef) -> dict[str, object]:
    """Return what is known of a shipped adapter from its own folder: stages it came by, weights."""
    from orbweave.models import lineage, resolve_adapter, show_model
    from training.run import lineage as taught

    folder = resolve_adapter(ref)
    found = show_model(str(folder))
    weights = {name: found[name] for name in ("folder", "parameters", "size_bytes", "sha256")}
    *stages, first = taught(folder)
    names = [f"{one['recipe']}/{one['name']}" for one in stages]
    return weights | {"lineage": [ref.name, *names, *lineage(str(first["model"]))]}


def _is_here(ref: ModelRef) -> bool:
    """Whether a model works now, without the net."""
    from orbweave.models import ModelRef, cached_folder, catalogue_entry

    place = _place(ref)
    if place in {"embedded", "shipped"}:
        return True
    if place == "adapter":
        return all(_is_here(ModelRef.parse(p)) for p in catalogue_entry(ref.name).parents)
    if place == "merge":
        return _is_here(ModelRef.parse(catalogue_entry(ref.name).target))
    if ref.parents:
        return all(_is_here(parent) for parent in ref.parents)
    return cached_folder(ref) is not None


def _place(ref: ModelRef) -> str | None:
    """Return where a catalogue entry comes from."""
    from orbweave.models import catalogue_entry

    return catalogue_entry(ref.name).place if ref.kind == "catalogue" else None


def _is_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.json", "model_index.json"))


def _shown(name: str, value: object) -> str:
    """Return a value for reading; a dash where nothing is known."""
    if value is None:
        return "–"
    if isinstance(value, list):
        return " <- ".join(str(part) for part in value)
    if isinstance(value, int):
        return f"{value:,}" if name != "size_bytes" else f"{value / 1e6:,.1f} MB"
    return str(value)
