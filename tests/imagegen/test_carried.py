"""A denoiser is asked in full now and then; what it said holds in between, and says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from threadpoolctl import threadpool_limits

from imagegen.carried import Carried, renewal
from imagegen.pipeline import Renderer
from imagegen.png import read_note
from orbweave.records import Motif, RenderRequest, Structure

WORDS, NONE = 3.0, 1.0
"""What the fake UNet predicts for each unit of text, beside the time step."""


class FakeDenoiser:
    """Predicts text plus time step plus residual, and notes how many rows it was asked about."""

    def __init__(self) -> None:
        self.unet_rows: list[int] = []
        self.control_rows: list[int] = []
        self.deep_rows: list[int] = []

    def predict(self, sample: Any, t: Any, *, encoder_hidden_states: Any, residual: Any) -> Any:
        self.unet_rows.append(len(sample))
        return (encoder_hidden_states * (1 + t / 1000) + residual,)

    def control(self, sample: Any, t: Any, *, encoder_hidden_states: Any, controlnet_cond: Any):
        self.control_rows.append(len(sample))
        assert len(encoder_hidden_states) == len(controlnet_cond) == 1
        return controlnet_cond + t

    def block(self, sample: Any) -> Any:
        self.deep_rows.append(len(sample))
        return sample * 2, (sample, sample + 1)


def denoise(fake: FakeDenoiser, times: list[int], *, rows: int = 2, after: int = 100) -> list[Any]:
    """Ask as a pipeline does and return the prediction of every step as a list of rows."""
    import torch

    carried = Carried(fake.predict, fake.control, after)
    deep = carried.deep(fake.block)
    text = torch.tensor([[NONE], [WORDS]])[-rows:]
    told = []
    for t in times:
        sample = torch.full((rows, 1), float(t))
        residual = carried.control(sample, t, text, torch.zeros(rows, 1))
        predicted = carried.predict(sample, t, text, residual=residual)[0]
        told.append(predicted.flatten().tolist())
        deep(sample if len(fake.unet_rows) and fake.unet_rows[-1] == rows else sample[-1:])
    return told


def test_a_full_step_gives_both_sides_as_the_denoiser_does() -> None:
    assert denoise(FakeDenoiser(), [500]) == [[NONE * 1.5 + 500, WORDS * 1.5 + 500]]


def test_between_full_steps_the_words_alone_are_asked_and_the_difference_is_carried() -> None:
    fake = FakeDenoiser()
    full, carried = denoise(fake, [500, 440])
    assert fake.unet_rows == [2, 1] and fake.control_rows == [1]
    assert carried[1] == pytest.approx(WORDS * 1.44 + 500)  # with the residual of step 500
    assert carried[1] - carried[0] == pytest.approx(full[1] - full[0])


def test_everything_is_asked_again_once_the_time_step_has_moved_far_enough() -> None:
    fake = FakeDenoiser()
    told = denoise(fake, [500, 440, 401, 400, 350, 300])
    assert fake.unet_rows == [2, 1, 1, 2, 1, 2]
    assert fake.deep_rows == [2, 2, 2]
    assert told[3] == pytest.approx([NONE * 1.4 + 400, WORDS * 1.4 + 400])


def test_without_guidance_there_is_one_side_and_it_is_asked_every_time() -> None:
    fake = FakeDenoiser()
    assert denoise(fake, [500, 440], rows=1)[1] == [pytest.approx(WORDS * 1.44 + 500)]
    assert fake.unet_rows == [1, 1] and fake.control_rows == [1]


def test_a_deep_block_answers_with_the_side_of_the_words() -> None:
    import torch

    fake = FakeDenoiser()
    carried = Carried(fake.predict, fake.control, 100)
    deep, both = carried.deep(fake.block), torch.tensor([[1.0], [2.0]])
    carried.control(both, 500, both, both)
    sample, skipping = deep(both)
    assert len(sample) == 2 and len(skipping[0]) == 2
    carried.control(both, 450, both, both)
    sample, skipping = deep(both[-1:] * 100)
    assert sample.tolist() == [[4.0]] and [s.tolist() for s in skipping] == [[[2.0]], [[3.0]]]


def test_more_guidance_is_renewed_the_sooner() -> None:
    assert renewal(3.0) == renewal(1.0) == renewal(0.0) == 120
    assert renewal(5.0) == 60 and renewal(7.0) == 40


# diffusers 0.42 hands a torch tensor to np.array, which NumPy 2 warns of.
slow = pytest.mark.slow
ASKED = RenderRequest(
    prompt="spider silk",
    structure=Structure(motifs=(Motif(family="bars"),), look="white on black", seed=5),
    width=64,
    height=64,
    steps=20,
    seeds=(7, 8),
)


def bars(structure: Structure, size_px: int) -> Any:
    lit = np.indices((size_px, size_px))[1] // 8 % 2 * 200
    return np.repeat(lit[..., None], 3, axis=2).astype(np.uint8)


Draw = Callable[[RenderRequest], list[Any]]


@pytest.fixture(scope="module")
def renderer(tiny_weights: Path, cache: Path) -> Renderer:
    return Renderer(seed_picture=bars, weights=tiny_weights, cache=cache, dtype="float32")


@pytest.fixture
def draw(renderer: Renderer, tmp_path: Path) -> Draw:
    def drawn(asked: RenderRequest) -> list[Any]:
        made = renderer.render(asked, tmp_path, force=True)
        return [np.asarray(Image.open(picture.path)).astype(int) for picture in made]

    return drawn


@slow
def test_pictures_drawn_in_full_at_every_step_are_nearly_the_same(
    draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried = draw(ASKED)
    monkeypatch.setattr("imagegen.carried.RENEWAL", 0)
    full = draw(ASKED)
    other = draw(ASKED.model_copy(update={"seeds": (9, 10)}))
    for a, b, c in zip(carried, full, other, strict=True):
        assert 0 < np.abs(a - b).mean() < 0.2 * np.abs(b - c).mean()


@slow
def test_a_picture_that_carried_can_be_made_again_alone(draw: Draw) -> None:
    alone = ASKED.model_copy(update={"seeds": (8,)})
    assert np.array_equal(draw(ASKED)[1], draw(alone)[0])


@slow
def test_the_denoiser_is_as_good_as_new_after_a_picture(renderer: Renderer, draw: Draw) -> None:
    words = ASKED.model_copy(update={"structure": None})
    before = draw(words)
    draw(ASKED)
    assert all(np.array_equal(a, b) for a, b in zip(before, draw(words), strict=True))
    pipe: Any = renderer._loaded
    for part in (pipe.pipe.unet, pipe.from_picture.controlnet, *pipe.pipe.unet.down_blocks):
        assert "forward" not in vars(part)


@slow
def test_the_record_tells_how_often_the_denoiser_was_asked(
    renderer: Renderer, tmp_path: Path
) -> None:
    strong = ASKED.model_copy(update={"guidance": 5.0, "seeds": (1,)})
    made = renderer.render(strong, tmp_path)
    note = read_note(Path(made[0].path))
    assert note.geometry.endswith("denoiser asked in full every 60 time steps")
    free = ASKED.model_copy(update={"control_scale": 0.0, "seeds": (2,)})
    made = renderer.render(free, tmp_path)
    assert "denoiser" not in read_note(Path(made[0].path)).geometry


@slow
def test_a_small_picture_of_a_structure_is_computed_by_one_thread_in_bfloat16(
    renderer: Renderer, tiny_weights: Path, cache: Path, tmp_path: Path
) -> None:
    import torch

    def threads(asked: RenderRequest, by: Renderer) -> set[int]:
        """How many there are while a picture is drawn."""
        counts: set[int] = set()

        def note(done: int, total: int) -> None:
            counts.add(torch.get_num_threads())

        by.render(asked, tmp_path, on_step=note, force=True)
        return counts

    quick = Renderer(seed_picture=bars, weights=tiny_weights, cache=cache, dtype="bfloat16")
    torch.get_num_threads()
    with threadpool_limits(2, user_api="openmp"):
        assert threads(ASKED, quick) == {1}
        assert threads(ASKED, renderer) == {2}
        assert threads(ASKED.model_copy(update={"structure": None}), quick) == {2}
        large = {"width": 264, "height": 256, "steps": 2, "seeds": (1,)}
        assert threads(ASKED.model_copy(update=large), quick) == {2}
        assert torch.get_num_threads() == 2
