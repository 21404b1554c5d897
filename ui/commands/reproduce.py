"""`orbweave reproduce IMAGE`: draw a picture again from what it says of itself."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from orbweave.errors import OrbweaveError, OutputError, UsageError
from orbweave.records import RenderRequest
from ui.commands import options

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["reproduce"]


def reproduce(
    image: Annotated[
        Path,
        typer.Argument(
            help="A PNG of Orbweave, AUTOMATIC1111, InvokeAI, ComfyUI or Fooocus.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Keep the new picture in this file.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Draw with this model; needed where the picture names one by another name.",
            show_default=False,
        ),
    ] = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Render a picture again from its own settings and say whether the pixels match.

    Exits with 1 if they differ. Example: orbweave reproduce designs/web-0/images/v0-seed-0.png
    """
    from imagegen.precheck import check_request
    from orbweave.files import check_output, write_bytes
    from ui.answer import Answer
    from ui.bar import bar

    story = _story(image, model)
    pixels = _pixels(image)  # before the long work, for they may be damaged
    if out is not None:
        check_output(out, force=force)
        if out.is_dir():
            raise OutputError(
                f"wanted to write the file {out}, found a folder; choose another name"
            )
    check_request(story.request, None, None, is_seeded=story.request.structure is not None)
    answer = Answer(as_json=as_json, quiet=quiet)
    for unknown in story.unknown:
        answer.note(f"not taken over from {story.tool}: {unknown}")
    if dry_run:
        answer.end(_plan(image, story), f"dry run: would draw {image} with {story.request.model}")
        return
    from imagegen.device import environment
    from imagegen.pipeline import Renderer

    answer.note(f"loading the image model {story.request.model}")
    with TemporaryDirectory() as folder:
        with bar("rendering", "step") as on_step:
            drawn = Renderer().render(story.request, Path(folder), on_step=on_step)
        again = Path(folder) / Path(drawn[0].path).name
        pixels_again = _pixels(again)
        difference = _difference(pixels, pixels_again)
        if out is not None:
            write_bytes(out, again.read_bytes(), force=force)
    now = environment()
    document: dict[str, Any] = {
        "picture": str(image),
        "tool": story.tool,
        "matches": difference.largest == 0,
        "largest_difference": float(difference.largest),
        "mean_difference": round(difference.mean, 3),
        "size_px": pixels.shape[1::-1],
        "size_again_px": pixels_again.shape[1::-1],
        "not_taken_over": story.unknown,
        "written": None if out is None else str(out),
        "made_with": story.environment,
        "made_again_with": now,
    }
    kept = "" if out is None else f"; written to {out}"
    if difference.largest == 0:
        answer.end(document, f"identical: every pixel of {image} was drawn again{kept}")
        return
    how = f"differs by up to {difference.largest:.0f} of 255, {difference.mean:.1f} on average"
    if pixels.shape != pixels_again.shape:
        how = f"is {_size(pixels)}, its settings draw {_size(pixels_again)}; it was scaled or cut"
    answer.end(document, f"different: {image} {how}{kept}")
    raise PixelsDiffer(f"wanted the pixels of {image} again, got others; {_why(story, now)}")


class _Story(NamedTuple):
    """What a picture tells of its making."""

    tool: str
    request: RenderRequest
    unknown: tuple[str, ...]
    environment: dict[str, str]
    """Empty for other tools, which do not note it."""


def _story(image: Path, model: str | None) -> _Story:
    """Read a picture's own record, or as much as another tool wrote.

    Raises:
        UsageError: no settings in it, or a start that is not inside it.
    """
    from imagegen.foreign import read_foreign
    from imagegen.png import NOTE_KEY, read_note, read_texts, sidecar_of

    if NOTE_KEY in read_texts(image) or sidecar_of(image).is_file():
        note = read_note(image)
        if note.geometry.startswith("picture file") or "mask" in str(
            note.geometry.partition("; redrawn inside ")[2]
        ):
            raise UsageError(
                f"wanted a picture drawn from words or a structure, {image} started from a "
                f"{note.geometry}; that file is not inside it"
            )
        story = _Story("Orbweave", note.request, (), note.environment)
    else:
        foreign = read_foreign(image)
        story = _Story(foreign.tool, foreign.request, foreign.unknown, {})
    if model is None:
        return story
    return story._replace(request=story.request.model_copy(update={"model": model}))


def _plan(image: Path, story: _Story) -> dict[str, Any]:
    return {
        "picture": str(image),
        "tool": story.tool,
        "request": story.request.model_dump(mode="json"),
        "not_taken_over": story.unknown,
    }


def _why(story: _Story, now: dict[str, str]) -> str:
    """Say what may lie behind a difference."""
    if story.tool != "Orbweave":
        return f"{story.tool} draws its noise and reads prompts in ways of its own"
    changed = [
        f"{name} was {old}, is {now.get(name)}"
        for name, old in story.environment.items()
        if now.get(name) != old
    ]
    return (
        "what changed: " + ", ".join(changed)
        if changed
        else "nothing is known to have changed but the weights of the model or an adapter, or "
        "Orbweave between two releases"
    )


class PixelsDiffer(OrbweaveError):
    """The picture could be rendered again, but not bit for bit."""


class _Difference(NamedTuple):
    """Of two pictures, over all pixels and channels, 0 to 255."""

    largest: float
    mean: float


def _difference(first: NDArray[np.int16], second: NDArray[np.int16]) -> _Difference:
    """Compare two pictures, each (H, W, 3); those of different size differ entirely."""
    import numpy as np

    if first.shape != second.shape:
        return _Difference(255.0, 255.0)
    apart = np.abs(first - second)
    return _Difference(float(apart.max()), float(apart.mean()))


def _size(pixels: NDArray[np.int16]) -> str:
    height, width, _ = pixels.shape
    return f"{width} x {height} pixels"


def _pixels(path: Path) -> NDArray[np.int16]:
    """Read a picture's pixels, (H, W, 3), 0 to 255."""
    import numpy as np

    from imagegen.picture_file import opened_picture

    with opened_picture(path) as image:
        return np.asarray(image.convert("RGB"), dtype=np.int16)
