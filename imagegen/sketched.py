"""The start of a picture that words alone decide: what they ask for, sketched by a network.

The words are read as they are for a structure seed (`imagegen.choose`); what they ask for is then
drawn by `imagegen.sketch` and not by the procedures of `imagegen.motifs`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from imagegen.choose import choose_structure
from imagegen.drawing import stop_if
from imagegen.prompt_weights import without_weights
from imagegen.scene import seed_picture
from imagegen.sketch import Sketcher
from imagegen.start import Start, drawn_start
from orbweave.records import RenderRequest

__all__ = ["sketched"]


def sketched(
    request: RenderRequest, sketcher: Sketcher, cancelled: Callable[[], bool]
) -> list[Start]:
    """Return a start for each seed of a request that has words alone.

    Raises:
        Cancelled: `cancelled`, asked before every step of the network, said so.
    """
    words = without_weights(request.prompt)
    draw = partial(sketcher, before_step=partial(stop_if, cancelled))
    pixels = partial(seed_picture, draw=draw)
    starts = []
    for seed in request.seeds:
        structure = choose_structure(words, seed)
        start = drawn_start(request.model_copy(update={"structure": structure}), pixels)
        told = start.geometry.replace("structure seed", "sketched from the words", 1)
        starts.append(start._replace(geometry=f"{told}, network {sketcher.sha256[:12]}"))
    return starts
