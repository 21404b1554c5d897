"""What programs may ask of the studio: a handful of endpoints, the same over HTTP and MCP.

They are documented in docs/api.md. Everything else that Gradio would offer is hidden: pages may
change, these may not. Nothing here waits for a design: it is started, and asked for until it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
from gradio.events import api

from orbweave.errors import OrbweaveError
from ui.studio.desk import Desk
from ui.studio.gate import OWNER_HEADER
from ui.studio.library import Card, Search, card
from ui.studio.library import search as search_cards
from ui.studio.order import Wish
from ui.studio.sitting import Sitting, kept_name

__all__ = ["NAMES", "hide_others", "offer"]

NAMES = ("design", "designs", "get_design", "rate", "search", "stop")
"""All endpoints; their names are for ever."""
MOST = 200
"""Designs told of at once."""
FILES = ("report.html", "report.pdf", "report-markdown.zip", "report-latex.zip", "design.zip")


def offer(desk: Desk) -> None:
    """Add the endpoints to Gradio's open `Blocks`."""
    for endpoint in (*_making(desk), *_finding(desk)):
        # Without the queue: each is over at once, and over MCP it stays in this process.
        api(endpoint, api_name=endpoint.__name__, queue=False)


def hide_others(blocks: gr.Blocks) -> None:
    """Take every other function of the pages out of the reach of programs."""
    for function in blocks.fns.values():
        if function.api_name not in NAMES:
            function.api_visibility = "private"


def _making(desk: Desk) -> tuple[Callable[..., Any], ...]:
    def design(
        concept: str,
        request: gr.Request,
        scale: str = "microstructure",
        domains: list[str] | None = None,
        team: str = "default",
        model: str = "",
        rounds: int = 2,
        images: int = 2,
        seed: int = 0,
        image_model: str = "loom",
        steps: int = 24,
        guidance: float = 3.0,
        size: str = "256",
        structure: str = "auto",
        solid_fraction: float | None = None,
        direction_deg: float | None = None,
        spacing_px: float | None = None,
    ) -> dict[str, Any]:
        """Start a design and return at once; ask get_design for it until its status is done.

        Args:
            concept: What to design, in words.
            request: Who asks.
            scale: microstructure, component, architecture or urban.
            domains: Experts: spider-silk, collagen, leaf, biocomposite; none: those it asks for.
            team: Name of a shipped team.
            model: Language model of every speaker; empty for each role's own.
            rounds: Versions of the prompt at most, 1 to 5.
            images: Pictures of each version, 1 to 8.
            seed: Of words and pictures.
            image_model: Name of an image model.
            steps: Denoising steps, 1 to 100.
            guidance: How strictly the words are followed, 0 to 20.
            size: Pixels, as 256 or 384x256.
            structure: auto for a geometry to start from, none for words alone.
            solid_fraction: Wanted share of material, 0 to 1.
            direction_deg: Wanted direction of the lines, 0 to 180.
            spacing_px: Wanted spacing.
        """
        fields = dict(
            concept=concept, scale=scale, domains=tuple(domains or ()), team=team, model=model,
            rounds=rounds, images=images, seed=seed, image_model=image_model, steps=steps,
            guidance=guidance, size=size, structure=structure, solid_fraction=solid_fraction,
            direction_deg=direction_deg, spacing_px=spacing_px,
        )  # fmt: skip
        with _told():
            return _whole(desk, desk.start(_owner(request), Wish.read(fields).row()))

    def stop(design: str, request: gr.Request) -> dict[str, Any]:
        """Stop a design that waits or runs; what was said of it stays.

        Args:
            design: Its id.
            request: Who asks.
        """
        with _told():
            desk.stop(_owner(request), design)
            return _whole(desk, desk.sitting(_owner(request), design))

    def rate(design: str, stars: int, request: gr.Request) -> dict[str, Any]:
        """Keep a rating of a design.

        Args:
            design: Its id.
            request: Who asks.
            stars: 1 to 5; 0 takes the rating back.
        """
        with _told():
            sitting = desk.sitting(_owner(request), design)
            sitting.rate(stars)
            return _whole(desk, sitting)

    return design, stop, rate


def _finding(desk: Desk) -> tuple[Callable[..., Any], ...]:
    def designs(request: gr.Request, first: int = 0, n: int = 50) -> list[dict[str, Any]]:
        """List designs, the latest first.

        Args:
            request: Who asks.
            first: How many to pass over.
            n: How many to return, at most 200.
        """
        sittings = desk.sittings(_owner(request))[max(0, first) :]
        return [_brief(card(sitting)) for sitting in sittings[: max(0, min(n, MOST))]]

    def get_design(design: str, request: gr.Request) -> dict[str, Any]:
        """Return all there is of a design so far: status, turns, prompts, pictures, judgements.

        Args:
            design: Its id.
            request: Who asks.
        """
        with _told():
            return _whole(desk, desk.sitting(_owner(request), design))

    def search(
        request: gr.Request,
        words: str = "",
        domain: str = "",
        model: str = "",
        since: str = "",
        until: str = "",
        stars: int = 0,
        board: str = "",
        like: str = "",
    ) -> list[dict[str, Any]]:
        """Find designs, the latest first; what is left out asks for nothing.

        Args:
            request: Who asks.
            words: All must occur, in the concept, the prompts or what was said.
            domain: spider-silk, collagen, leaf or biocomposite.
            model: A language or image model that took part.
            since: A date such as 2026-01-31.
            until: The same; that day is included.
            stars: At least so many.
            board: Name of a board it is on.
            like: Id of a design; those with the most similar pictures come first.
        """
        owner = _owner(request)
        wanted = Search(words, domain, model, since, until, stars, board, like)
        with _told():
            own = [card(sitting) for sitting in desk.sittings(owner)]
            found = search_cards(own, wanted, desk.boards(owner).read())
        return [_brief(each) for each in found[:MOST]]

    return designs, get_design, search


@contextmanager
def _told() -> Iterator[None]:
    """Tell the caller what he can mend."""
    try:
        yield
    except OrbweaveError as err:
        raise gr.Error(str(err), print_exception=False) from err


def _owner(request: gr.Request) -> str:
    owner: str = request.headers[OWNER_HEADER]
    return owner


def _brief(found: Card) -> dict[str, Any]:
    """Return a design as a list shows it."""
    return {
        "id": found.id,
        "concept": found.concept,
        "title": found.title,
        "status": found.status,
        "at": found.at.isoformat(timespec="seconds"),
        "domains": list(found.domains),
        "models": list(found.models),
        "stars": found.stars,
        "score": found.score,
        "pictures": [f"/sitting/{found.id}/picture/{shot.name}" for shot in found.shots],
    }


def _whole(desk: Desk, sitting: Sitting) -> dict[str, Any]:
    """Return a design as it stands."""
    place = f"/sitting/{sitting.id}"
    with sitting.lock:
        story = sitting.story
        told = {
            "why": story.why or story.stop_reason,
            "turns": [
                speech.turn.model_dump(mode="json")
                for _, speech in sorted(story.speeches.items())
                if speech.turn is not None
            ],
            "facts": [fact.model_dump(mode="json") for fact in story.facts.values()],
            "versions": [
                {
                    "prompt": prompt.model_dump(mode="json"),
                    "pictures": [
                        {
                            "address": f"{place}/picture/{kept_name(picture)}",
                            "seed": picture.seed,
                            "sha256": picture.sha256,
                            "request": picture.request.model_dump(mode="json"),
                            "measured": measured.model_dump(mode="json") if measured else None,
                        }
                        for picture in story.pictures.get(version, ())
                        for measured in [story.measurements.get(picture.path)]
                    ],
                    "judgement": critique.model_dump(mode="json") if critique else None,
                }
                for version, prompt in sorted(story.prompts.items())
                for critique in [story.critiques.get(version)]
            ],
        }
    return {
        **_brief(card(sitting)),
        "position": desk.position(sitting),
        "brief": sitting.asked.row.brief.model_dump(mode="json"),
        **told,
        "files": [f"{place}/{name}" for name in FILES] if sitting.status == "done" else [],
    }
