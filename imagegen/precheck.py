"""What can be seen to be wrong with a request before weights are loaded or the net is asked."""

from __future__ import annotations

from pathlib import Path

from imagegen.drawing import check_steps
from imagegen.inpainting import nothing_to_keep, read_mask
from imagegen.loading import check_model, control_ref
from imagegen.looks import parse_look
from imagegen.lora import check_adapter
from imagegen.motifs import known_family
from imagegen.samplers import check_sampler
from imagegen.start import start_of
from orbweave.records import RenderRequest, Structure

__all__ = ["check_request", "check_structure"]


def check_request(
    request: RenderRequest, image: Path | None, mask: Path | None, *, is_seeded: bool
) -> None:
    """Raise what rendering would raise, as far as files on this machine tell.

    Args:
        request: Its structure may be missing still.
        image: The picture it starts from, if there is one.
        mask: What is drawn anew in it.
        is_seeded: Whether it starts from a structure.

    Raises:
        UsageError, ModelError: as `imagegen.pipeline.Renderer.render`.
    """
    check_sampler(request.scheduler)
    if request.structure is not None:
        check_structure(request.structure)
    check_model(request.model)
    for ref, _ in request.adapters:
        check_adapter(ref)
    if request.control is not None:
        control_ref(request.control)
    if image is not None:
        start_of(request, image)
    if image is not None or is_seeded:
        check_steps(request)
    if mask is not None:
        if image is None and not is_seeded:
            raise nothing_to_keep(mask)
        read_mask(mask, request.width, request.height)


def check_structure(structure: Structure) -> None:
    """Raise what drawing would raise.

    Raises:
        UsageError: an unknown family, material or ground.
    """
    for motif in structure.motifs:
        known_family(motif.family)
    parse_look(structure.look)
