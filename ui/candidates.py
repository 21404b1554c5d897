"""Several pictures of one prompt, judged by how well they follow it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orbweave.errors import UsageError
from orbweave.files import write_text
from orbweave.records import RenderRequest

if TYPE_CHECKING:
    from imagegen.classifier import Classifier
    from imagegen.follow import Asked, Follow

__all__ = ["CANDIDATES", "asked_of", "asked_of_request", "judge_candidates"]

CANDIDATES = "candidates.json"
"""File beside the pictures with the judgement of each, the best first."""


def asked_of(path: Path, prompt: str | None) -> Asked:
    """Return what a picture should show: by the words given, else by its own record.

    Raises:
        UsageError: no words, and a picture without a record.
    """
    from imagegen.follow import asked_by_prompt
    from imagegen.png import read_request

    if prompt is not None:
        return asked_by_prompt(prompt)
    try:
        return asked_of_request(read_request(path))
    except UsageError as err:
        raise UsageError(f"{err}; say what it should show by --prompt") from err


def asked_of_request(request: RenderRequest) -> Asked:
    """Return what a request asks for: by its structure, or by its words if it has none."""
    from imagegen.follow import asked_by_prompt, asked_by_structure

    if request.structure is not None:
        return asked_by_structure(request.structure, (request.width, request.height))
    return asked_by_prompt(request.prompt)


def judge_candidates(
    paths: Sequence[Path], asked: Asked, classifier: Classifier, target: Path
) -> list[Follow]:
    """Judge rendered pictures and write `candidates.json` beside them.

    Args:
        paths: All in one folder.
        asked: What they should show.
        classifier: Names what they do show.
        target: The folder's name once it is whole, for the records.

    Returns:
        The best first.
    """
    from imagegen.follow import follow, ranked

    follows = ranked(
        follow(path, asked, classifier, picture=str(target / path.name)) for path in paths
    )
    document = [each.model_dump(mode="json") for each in follows]
    write_text(paths[0].parent / CANDIDATES, json.dumps(document, indent=2) + "\n")
    return follows
