"""`orbweave reproduce IMAGE`: draw a picture again from what it says of itself."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from orbweave.errors import OrbweaveError, UsageError
from ui.commands import options

__all__ = ["reproduce"]


def reproduce(
    image: Annotated[Path, typer.Argument(help="A PNG that Orbweave made.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Keep the new picture in this file.")
    ] = None,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Render a picture again from its own settings and say whether the pixels match.

    Exits with 1 if they differ. Example: orbweave reproduce designs/web-0/images/v0-0.png
    """
    from imagegen.pipeline import Renderer
    from imagegen.png import read_note
    from orbweave.files import check_output, write_bytes
    from ui.answer import Answer
    from ui.bar import bar

    note = read_note(image)
    if note.request.structure is None and note.strength is not None:
        raise UsageError(
            f"wanted a picture drawn from words or a structure, {image} started from a "
            f"{note.geometry}; that file is not inside it"
        )
    if out is not None:
        check_output(out, force=force)
    answer = Answer(as_json=as_json, quiet=quiet)
    answer.note(f"loading the image model {note.request.model}")
    with TemporaryDirectory() as folder:
        with bar("rendering", "step") as on_step:
            drawn = Renderer().render(note.request, Path(folder), on_step=on_step)
        again = Path(folder) / Path(drawn[0].path).name
        difference = _difference(image, again)
        if out is not None:
            write_bytes(out, again.read_bytes(), force=force)
    document: dict[str, Any] = {
        "picture": str(image),
        "matches": difference == 0.0,
        "largest_difference": difference,
        "written": None if out is None else str(out),
        "made_with": note.environment,
    }
    kept = "" if out is None else f"; written to {out}"
    if difference == 0.0:
        answer.end(document, f"identical: every pixel of {image} was drawn again{kept}")
        return
    answer.end(document, f"different: {image} differs by up to {difference:.0f} of 255{kept}")
    raise PixelsDiffer(
        f"wanted the pixels of {image} again, got others; libraries or processor may differ: "
        f"it was made with {', '.join(f'{k} {v}' for k, v in note.environment.items())}"
    )


class PixelsDiffer(OrbweaveError):
    """The picture could be rendered again, but not bit for bit."""


def _difference(first: Path, second: Path) -> float:
    """Return the largest difference of a channel, 0 to 255; 255 if the sizes differ."""
    import numpy as np
    from PIL import Image

    with Image.open(first) as a, Image.open(second) as b:
        if a.size != b.size:
            return 255.0
        one, two = (np.asarray(picture.convert("RGB"), dtype=np.int16) for picture in (a, b))
    return float(np.abs(one - two).max())
