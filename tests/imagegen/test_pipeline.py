"""Rendering with a real, tiny pipeline: seeds, geometry, samplers, cancelling, records."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imagegen.assembly import CONTROLNET, assembled
from imagegen.pipeline import Renderer
from imagegen.png import read_note, read_parameters
from imagegen.samplers import SAMPLERS, rescaled_betas, sampler_config
from orbweave.errors import Cancelled, ModelError, OutputError, UsageError
from orbweave.records import Motif, RenderRequest, Structure

# diffusers 0.42 hands a torch tensor to np.array, which NumPy 2 warns of.
pytestmark = pytest.mark.slow

STRUCTURE = Structure(motifs=(Motif(family="bars"),), look="white on black", seed=5)


def bars(structure: Structure, size_px: int) -> Any:
    """White bars of eight pixels, upright; row and column can be told from the colours."""
    y, x = np.mgrid[:size_px, :size_px]
    lit = (x // 8 % 2 * 200).astype(np.uint8)
    return np.stack([lit, (y % 256).astype(np.uint8), (x % 256).astype(np.uint8)], axis=-1)


@pytest.fixture(scope="module")
def renderer(tiny_weights: Path, cache: Path) -> Renderer:
    return Renderer(seed_picture=bars, weights=tiny_weights, cache=cache)


def request(**changes: Any) -> RenderRequest:
    small = {"prompt": "spider silk", "width": 64, "height": 64, "steps": 3, "seeds": (7,)}
    small |= {"strength": 0.6}
    return RenderRequest.model_validate(small | changes)


def pixels(path: str | Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image)


Draw = Callable[..., Any]


@pytest.fixture
def draw(renderer: Renderer, tmp_path: Path) -> Draw:
    """Render a request and return its pictures' pixels."""

    def drawn(asked: RenderRequest, **options: Any) -> list[Any]:
        made = renderer.render(asked, tmp_path, force=True, **options)
        return [pixels(picture.path) for picture in made]

    return drawn


def test_the_same_seed_twice_gives_the_same_pixels(draw: Draw) -> None:
    first, again = draw(request())[0], draw(request())[0]
    other = draw(request(seeds=(8,)))[0]

    assert first.shape == (64, 64, 3) and first.std() > 0
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("structure", [None, STRUCTURE], ids=["text", "structure"])
@pytest.mark.parametrize("scheduler", ["DPM++ 2M", "Euler a"])
def test_picture_three_of_four_can_be_made_alone(
    draw: Draw, scheduler: str, structure: Structure | None
) -> None:
    asked = request(seeds=(1, 2, 3, 4), scheduler=scheduler, structure=structure)
    alone = asked.model_copy(update={"seeds": (3,)})

    assert np.array_equal(draw(asked)[2], draw(alone)[0])


def test_a_fresh_renderer_gives_the_same_pixels(
    tiny_weights: Path, cache: Path, draw: Draw, tmp_path: Path
) -> None:
    fresh = Renderer(weights=tiny_weights, cache=cache)
    made = fresh.render(request(), tmp_path, name="fresh")
    assert np.array_equal(pixels(made[0].path), draw(request())[0])


@pytest.mark.parametrize("structure", [None, STRUCTURE], ids=["text", "structure"])
@pytest.mark.parametrize("scheduler", list(SAMPLERS))
def test_every_sampler_draws_from_text_and_from_a_structure(
    draw: Draw, scheduler: str, structure: Structure | None
) -> None:
    picture = draw(request(scheduler=scheduler, structure=structure, steps=4))[0]
    assert picture.std() > 0


def test_an_unknown_sampler_is_refused_with_the_names(draw: Draw) -> None:
    with pytest.raises(UsageError, match=r"'euler'.*Euler, Euler Karras.*DPM\+\+ 2M"):
        draw(request(scheduler="euler"))


def test_heun_is_given_the_betas_the_model_was_trained_with() -> None:
    from diffusers import DDIMScheduler

    trained = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "rescale_betas_zero_snr": True,
    }
    oracle = DDIMScheduler(**trained).alphas_cumprod.numpy()

    assert np.allclose(np.cumprod(1 - np.array(rescaled_betas(trained))), oracle, atol=1e-5)
    assert "trained_betas" in sampler_config("Heun", trained)[1]
    assert "trained_betas" not in sampler_config("DPM++ 2M", trained)[1]


def test_a_flow_model_takes_only_its_own_sampler() -> None:
    flow = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
    assert sampler_config("Euler", flow) == ("FlowMatchEulerDiscreteScheduler", flow)
    with pytest.raises(UsageError, match="flow model"):
        sampler_config("DPM++ 2M", flow)


def test_only_a_controlnet_keeps_the_structure_at_full_strength(
    tiny_weights: Path, cache: Path, tmp_path: Path
) -> None:
    guided = assembled(weights=tiny_weights, cache=cache).folder
    alone = Path(shutil.copytree(guided, tmp_path / "alone"))
    shutil.rmtree(alone / CONTROLNET)

    def flat(structure: Structure, size_px: int) -> Any:
        return np.full((size_px, size_px, 3), structure.seed, np.uint8)

    one = Renderer(seed_picture=flat, dtype="float32")

    def change(model: Path, strength: float) -> float:
        """Grey levels between the pictures of a black and a white structure."""
        asked = request(model=str(model), strength=strength, steps=5, scheduler="DDIM")
        drawings = (STRUCTURE.model_copy(update={"seed": level}) for level in (0, 255))
        black, white = (
            pixels(
                one.render(asked.model_copy(update={"structure": d}), tmp_path, force=True)[0].path
            )
            for d in drawings
        )
        return float(np.abs(black.astype(float) - white).mean())

    assert change(alone, 0.2) > 2 * change(alone, 1.0)
    assert change(guided, 1.0) > 1.5 * change(alone, 1.0)


def test_a_structure_is_drawn_square_and_its_middle_kept(
    renderer: Renderer, tmp_path: Path
) -> None:
    asked = request(structure=STRUCTURE, width=96, height=64)
    made = renderer.render(asked, tmp_path, save_seed_picture=tmp_path / "seed" / "bare.png")

    assert pixels(made[0].path).shape == (64, 96, 3)
    bare = pixels(tmp_path / "seed" / "bare.png")
    assert np.array_equal(bare, bars(STRUCTURE, 96)[16:80])
    note = read_note(Path(made[0].path))
    assert note.geometry == (
        "structure seed: bars, white on black, seed 5; fine detail and colours from the drawing; "
        "denoiser asked in full every 120 time steps"
    )
    assert note.strength == 0.6


def test_light_of_another_colour_keeps_it(renderer: Renderer, tmp_path: Path) -> None:
    low_sun = STRUCTURE.model_copy(update={"light": "raking"})
    made = renderer.render(request(structure=low_sun), tmp_path)
    assert "; fine detail from the drawing; " in read_note(Path(made[0].path)).geometry


def test_without_its_controlnet_a_picture_gets_no_detail_of_the_drawing(
    renderer: Renderer, tmp_path: Path
) -> None:
    made = renderer.render(request(structure=STRUCTURE, control_scale=0.0), tmp_path)
    note = read_note(Path(made[0].path))
    assert note.geometry == "structure seed: bars, white on black, seed 5"


def test_a_picture_file_can_give_the_geometry(renderer: Renderer, tmp_path: Path) -> None:
    file = tmp_path / "web, mine.png"
    Image.fromarray(bars(STRUCTURE, 200)[:150]).save(file)
    made = renderer.render(request(), tmp_path, init_image=file)
    plain = renderer.render(request(), tmp_path, name="plain")
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()

    assert read_note(Path(made[0].path)).geometry == f"picture file web, mine.png, sha256 {sha256}"
    assert not np.array_equal(pixels(made[0].path), pixels(plain[0].path))


def test_a_part_of_a_structure_is_drawn_anew_and_the_rest_kept(
    renderer: Renderer, tmp_path: Path
) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    shown: list[Any] = []
    made = renderer.render(
        request(structure=STRUCTURE, strength=1.0),
        tmp_path,
        mask=tmp_path / "mask.png",
        on_preview=shown.append,
    )
    drawn, start = pixels(made[0].path), bars(STRUCTURE, 64)
    assert np.array_equal(drawn[:, :32], start[:, :32])
    assert not np.array_equal(drawn[:, 32:], start[:, 32:])
    assert "; redrawn inside mask mask.png, sha256" in read_note(Path(made[0].path)).geometry
    assert [thumbnail.shape for thumbnail in shown] == [(8, 8, 3)] * 3


def test_a_structure_and_a_file_together_are_refused(renderer: Renderer, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="wanted one geometry"):
        renderer.render(request(structure=STRUCTURE), tmp_path, init_image=tmp_path / "a.png")
    with pytest.raises(UsageError, match="wanted a picture file"):
        renderer.render(request(), tmp_path, init_image=tmp_path / "none.png")


def test_too_little_strength_for_one_step_is_refused(draw: Draw) -> None:
    with pytest.raises(UsageError, match="3 steps x strength 0.3"):
        draw(request(structure=STRUCTURE, strength=0.3))


def test_the_record_and_the_file_say_everything(renderer: Renderer, tmp_path: Path) -> None:
    asked = request(seeds=(7, 8), negative_prompt="blur")
    made = renderer.render(asked, tmp_path, name="v0-seed-{seed:010d}")

    names = ["v0-seed-0000000007.png", "v0-seed-0000000008.png"]
    assert [Path(p.path).name for p in made] == names
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    for picture, seed in zip(made, (7, 8), strict=True):
        path = Path(picture.path)
        assert picture.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert picture.request == asked.model_copy(update={"seeds": (seed,)})
        note = read_note(path)
        assert note.request == picture.request and note.geometry == "text alone"
        assert {"torch", "diffusers", "device", "dtype"} <= set(note.environment)
        assert f"Seed: {seed}" in (read_parameters(path) or "")


def test_progress_counts_every_step_of_every_picture(renderer: Renderer, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    renderer.render(request(seeds=(1, 2)), tmp_path, on_step=lambda *s: steps.append(s))
    assert steps == [(i, 6) for i in range(1, 7)]


@pytest.mark.parametrize("after", [0, 1, 4])
def test_cancelling_stops_within_a_step_and_leaves_no_file(
    renderer: Renderer, tmp_path: Path, after: int
) -> None:
    done: list[int] = []
    with pytest.raises(Cancelled, match="no picture was kept"):
        renderer.render(
            request(seeds=(1, 2)),
            tmp_path / "out",
            on_step=lambda i, _: done.append(i),
            cancelled=lambda: len(done) >= after,
        )
    assert len(done) == after and not (tmp_path / "out").exists()
    # And the renderer is as good as new.
    assert renderer.render(request(), tmp_path / "next")


def test_a_prompt_of_any_length_is_read_to_its_end(
    renderer: Renderer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = " ".join(["web"] * 90)
    # On a structure, for of words alone this model says that it has no network to sketch them.
    golden, silver = (
        request(prompt=f"{long} {colour}", structure=STRUCTURE) for colour in ("golden", "silver")
    )
    with caplog.at_level(logging.WARNING):
        made = renderer.render(golden, tmp_path, name="a")
    other = renderer.render(silver, tmp_path, name="b")

    assert made[0].lost_words == () and caplog.text == ""
    assert not np.array_equal(pixels(made[0].path), pixels(other[0].path))


def test_words_can_be_weighed(tiny_weights: Path, cache: Path, tmp_path: Path) -> None:
    # In bfloat16 a tenth more weight is lost in the rounding, which differs between processors.
    exact = Renderer(seed_picture=bars, weights=tiny_weights, cache=cache, dtype="float32")

    def drawn(prompt: str) -> Any:
        made = exact.render(request(prompt=prompt), tmp_path, force=True)
        return pixels(made[0].path).astype(float)

    plain = drawn("golden web")

    def change(prompt: str) -> float:
        return float(np.abs(drawn(prompt) - plain).mean())

    assert change("(golden:1.0) web") == 0
    assert 0 < change("(golden:1.1) web") < change("(golden:2) web")
    assert change("[golden] web") > 0 and change("golden web BREAK") == 0


def test_a_negative_prompt_works_and_says_when_it_cannot(
    draw: Draw, caplog: pytest.LogCaptureFixture
) -> None:
    plain, steered = draw(request())[0], draw(request(negative_prompt="blur and grain"))[0]
    assert not np.array_equal(plain, steered)
    draw(request(negative_prompt="blur", guidance=1.0))
    assert "has no effect" in caplog.text


@pytest.mark.parametrize("mode", ["I;16", "P", "RGBA", "LA", "1", "CMYK"])
def test_pictures_of_every_kind_can_give_the_geometry(tmp_path: Path, mode: str) -> None:
    from imagegen.start import read_picture

    grey = np.repeat(np.arange(0, 256, 4, dtype=np.uint8)[None], 64, axis=0)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(grey).convert("RGB").convert(mode)
    name = "a.tiff" if mode == "CMYK" else "a.png"
    image.save(tmp_path / name)
    read = read_picture(tmp_path / name, 64, 64).astype(int)
    if mode in ("I;16", "RGBA", "LA"):
        assert np.abs(read - grey[..., None]).max() <= 1
    assert read[:, -8:].mean() > read[:, :8].mean() + 100


def test_nothing_is_overwritten_without_force(renderer: Renderer, tmp_path: Path) -> None:
    renderer.render(request(), tmp_path)
    with pytest.raises(OutputError, match="exists already"):
        renderer.render(request(), tmp_path)


@pytest.mark.parametrize("name", ["{nothing}", "{", "../up-{seed}", "", "{seed.real.x}"])
def test_a_bad_file_name_is_refused(renderer: Renderer, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="file name"):
        renderer.render(request(), tmp_path, name=name)


@pytest.mark.parametrize(("seeds", "name"), [((7, 7), "seed-{seed}"), ((7, 8), "same")])
def test_two_pictures_of_one_name_are_refused(
    renderer: Renderer, tmp_path: Path, seeds: tuple[int, ...], name: str
) -> None:
    with pytest.raises(UsageError, match="every seed once"):
        renderer.render(request(seeds=seeds), tmp_path, name=name)


def test_any_size_in_steps_of_eight_can_be_drawn(draw: Draw) -> None:
    assert draw(request(width=104, height=72))[0].shape == (72, 104, 3)
    assert draw(request(width=72, height=104, structure=STRUCTURE))[0].shape == (104, 72, 3)


def test_a_folder_of_the_user_renders_like_the_embedded_model(
    tiny_weights: Path, cache: Path, draw: Draw
) -> None:
    folder = assembled(weights=tiny_weights, cache=cache).folder
    assert np.array_equal(draw(request(model=str(folder)))[0], draw(request())[0])


def test_models_that_cannot_be_loaded_are_said(renderer: Renderer, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="wanted"):
        renderer.render(request(model=str(tmp_path / "none")), tmp_path)
    with pytest.raises(ModelError, match="install Orbweave again"):
        Renderer(weights=tmp_path, cache=tmp_path / "c").render(request(), tmp_path / "out")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_number_type_is_in_the_record(
    tiny_weights: Path, cache: Path, tmp_path: Path, dtype: Any
) -> None:
    made = Renderer(weights=tiny_weights, cache=cache, dtype=dtype).render(request(), tmp_path)
    assert read_note(Path(made[0].path)).environment["dtype"] == dtype
