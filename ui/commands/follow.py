"""`orbweave follow IMAGE...`: does a picture show what was asked?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orbweave.records import clean_concept
from ui.commands import options

__all__ = ["follow"]


def follow(
    images: Annotated[list[Path], typer.Argument(help="Picture files.", show_default=False)],
    prompt: Annotated[
        str | None,
        typer.Option(
            metavar="PROMPT",
            help="What the pictures should show; without it each picture's own record says it.",
            show_default=False,
        ),
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Score how well pictures follow what was asked: motifs, colours and numbers, the best first.

    A classifier that learnt from drawings alone names motifs and colours; where a picture tells
    of its structure, measured numbers are compared as well.

    Example: orbweave follow renders/*/*.png --prompt "golden orb web on black"
    """
    from imagegen.classifier import load_classifier
    from imagegen.follow import follow as judge
    from imagegen.follow import ranked
    from ui.answer import Answer
    from ui.candidates import asked_of

    words = None if prompt is None else clean_concept(prompt)
    classifier = load_classifier()
    answer = Answer(as_json=as_json, quiet=quiet)
    follows = ranked(judge(path, asked_of(path, words), classifier) for path in images)
    for each in follows:
        answer.line(f"{each.score:.2f}  {each.picture}  {each.explanation}")
    noun = "picture" if len(follows) == 1 else "pictures"
    best = follows[0]
    answer.end(
        [each.model_dump(mode="json") for each in follows],
        f"judged {len(follows)} {noun}; the best is {best.picture}, {best.score:.2f}",
    )
