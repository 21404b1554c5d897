"""One small finished design, and a renderer that draws checkerboards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from imagegen.png import PngNote, encode_png
from orbweave.errors import Cancelled
from orbweave.files import check_output, sha256_file
from orbweave.records import (
    Brief,
    Check,
    Citation,
    Critique,
    Design,
    ImagePrompt,
    Measurement,
    Motif,
    PhraseOrigin,
    Picture,
    RenderRequest,
    Structure,
    Targets,
    Turn,
)

STRUCTURE = Structure(motifs=(Motif(family="orb_web"),), look="golden on black", seed=7)
HOSTILE = "a web <script>alert(1)</script> & “veins”"


class CheckerboardRenderer:
    """Draws squares whose side follows from the seed; asks to be cancelled at every step."""

    def __init__(self) -> None:
        self.requests: list[RenderRequest] = []

    def render(
        self,
        request: RenderRequest,
        folder: Path,
        *,
        name: str = "seed-{seed}",
        on_step: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        init_image: Path | None = None,
        save_seed_picture: Path | None = None,
        **of_the_real_model: object,
    ) -> list[Picture]:
        self.requests.append(request)
        folder.mkdir(parents=True, exist_ok=True)
        pictures = []
        for index, seed in enumerate(request.seeds):
            if cancelled is not None and cancelled():
                raise Cancelled("stopped")
            if on_step is not None:
                on_step(index + 1, len(request.seeds))
            alone = request.model_copy(update={"seeds": (seed,)})
            path = folder / f"{name.format(seed=seed, index=index)}.png"
            check_output(path, force=False)
            path.write_bytes(
                encode_png(_squares(8 + seed % 8), PngNote(request=alone, geometry=""))
            )
            pictures.append(
                Picture(path=str(path), sha256=sha256_file(path), seed=seed, request=alone)
            )
        if save_seed_picture is not None and request.structure is not None:
            check_output(save_seed_picture, force=False)
            save_seed_picture.write_bytes(encode_png(_squares(4), None))
        return pictures


def _squares(side: int) -> np.ndarray:
    rows, columns = np.indices((64, 64)) // side
    white = ((rows + columns) % 2 * 255).astype(np.uint8)
    return np.stack([white] * 3, axis=-1)


@pytest.fixture
def renderer() -> CheckerboardRenderer:
    return CheckerboardRenderer()


@pytest.fixture
def finished(tmp_path: Path, renderer: CheckerboardRenderer) -> tuple[Design, Path]:
    """A finished design with hostile texts, and its folder with two pictures."""
    folder = tmp_path / "design"
    images = folder / "images"
    images.mkdir(parents=True)
    request = RenderRequest(
        prompt="golden orb web", structure=STRUCTURE, width=64, height=64, seeds=(7, 8)
    )
    drawn = renderer.render(
        request, images, name="v0-seed-{seed}", save_seed_picture=images / "seed-structure-0.png"
    )
    pictures = tuple(
        picture.model_copy(update={"path": f"images/{Path(picture.path).name}"})
        for picture in drawn
    )
    return _design(pictures), folder


def _design(pictures: tuple[Picture, ...]) -> Design:
    aims = Targets(solid_fraction=0.4, spacing_px=20.0)
    return Design(
        brief=Brief(concept=HOSTILE, seed=7),
        turns=(
            Turn(
                index=0,
                speaker="spider_silk_expert",
                role="expert",
                model="base",
                text="Radial threads carry load [silk-0001]. They stretch 30 % more.",
                cited=("silk-0001",),
                unsupported=("30 %",),
                checks=(
                    Check(
                        sentence="Radial threads carry load.",
                        verdict="supported",
                        facts=("silk-0001",),
                    ),
                    Check(
                        sentence="They stretch 30 % more <b>.",
                        verdict="unsupported",
                        why="in no fact: 30 %",
                    ),
                ),
                n_tokens=40,
                seconds=2.0,
            ),
            Turn(
                index=1, speaker="prompt_engineer", role="engineer", model="base", text="Title: Web"
            ),
        ),
        facts=(
            Citation(
                id="silk-0001",
                domain="spider-silk",
                statement="Radial threads carry most of the load.",
                source_title="A paper <b>",
                source_url="https://example.org/a?b=1&c=2",
                score=0.7,
            ),
            Citation(
                id="leaf-0001",
                domain="leaf",
                statement="Veins branch.",
                source_title="Another",
                source_url="javascript:alert(1)",
                score=0.4,
            ),
        ),
        prompts=(
            ImagePrompt(
                title="Web",
                prompt="golden orb web with Radial threads on black",
                structure=STRUCTURE,
                targets=aims,
                origins=(PhraseOrigin(phrase="radial threads", turn=0),),
                turn=1,
            ),
        ),
        pictures=pictures,
        measurements=tuple(
            Measurement(
                picture=picture.path,
                solid_fraction=0.5,
                direction_deg=None,
                anisotropy=0.1,
                spacing_px=16.0,
                contrast=0.5,
            )
            for picture in pictures
        ),
        critiques=(
            Critique(
                scores={"depth": 3.2, "clarity": 4.0},
                advice="Fewer threads.",
                wanted=aims,
                measured={"solid_fraction": 0.5, "spacing_px": None},
                prompt_version=0,
                turn=1,
            ),
        ),
        stop_reason="all rounds done",
        timings_s={"rendering": 1.5},
        environment={"orbweave": "0.1.0"},
    )
