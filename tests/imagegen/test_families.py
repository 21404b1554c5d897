"""Every family through one request: tiny checkpoints with random weights, each in its real
architecture, from words, from a picture, with a ControlNet, with adapters, inside a mask."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imagegen.families import FAMILIES, family_of
from imagegen.pipeline import Renderer
from imagegen.png import read_note, stripped
from orbweave.errors import EngineError, ModelError, UsageError
from orbweave.records import Motif, RenderRequest, Structure
from tests.imagegen.tiny_models import BUILDERS, build, lora, sd_inpainting

# diffusers 0.42 hands a torch tensor to np.array, and builds FLUX's ControlNet from a class that
# it calls deprecated itself.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
]

SIDE = 64
FLOWS = ("sd3", "flux")
EVERY = list(BUILDERS)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder, built = tmp_path_factory.mktemp("families"), dict[str, Path]()

    def path(family: str) -> Path:
        if family not in built:
            built[family] = build(family, folder / family)
        return built[family]

    return path


def stripes(structure: Structure, size_px: int) -> Any:
    """Upright bars whose brightness is the structure's seed."""
    x = np.arange(size_px) // 8 % 2 * structure.seed
    return np.broadcast_to(x[None, :, None], (size_px, size_px, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def renderer() -> Callable[[str], Renderer]:
    """One renderer per family, so that each model is loaded once."""
    return cache(lambda family: Renderer(seed_picture=stripes, dtype="float32"))


def structure(seed: int = 200) -> Structure:
    return Structure(motifs=(Motif(family="bars"),), look="white on black", seed=seed)


Draw = Callable[..., Any]
Renderers = Callable[[str], Renderer]


@pytest.fixture
def draw(renderer: Renderers, tiny: Callable[[str], Path], tmp_path: Path) -> Draw:
    """Render a request of a family; its pixels, as numbers one can subtract."""

    def drawn(family: str, **changes: Any) -> Any:
        calls = {k: changes.pop(k) for k in list(changes) if k in CALLS}
        asked = request(str(tiny(family)), family, **changes)
        made = renderer(family).render(asked, tmp_path, force=True, **calls)
        with Image.open(made[0].path) as image:
            return np.asarray(image).astype(float)

    return drawn


CALLS = ("init_image", "mask", "on_preview", "on_step", "cancelled", "sidecar")


def request(model: str, family: str, **changes: Any) -> RenderRequest:
    small = {"prompt": "silk", "model": model, "width": SIDE, "height": SIDE, "steps": 2}
    small |= {"scheduler": "Euler" if family in FLOWS else "DPM++ 2M", "seeds": (7,)}
    return RenderRequest.model_validate(small | changes)


@pytest.mark.parametrize("family", EVERY)
def test_every_family_draws_from_words(draw: Draw, family: str) -> None:
    first, again, other = (draw(family, seeds=(seed,)) for seed in (7, 7, 8))

    assert first.shape == (SIDE, SIDE, 3) and first.std() > 1
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert not np.array_equal(first, draw(family, prompt="bone"))


@pytest.mark.parametrize("family", EVERY)
def test_every_family_starts_from_a_structure(draw: Draw, family: str) -> None:
    dark, light = (draw(family, structure=structure(seed), strength=0.5) for seed in (0, 255))
    assert np.abs(dark - light).mean() > 0.5


@pytest.mark.parametrize("family", EVERY)
def test_every_family_takes_a_control_net(
    draw: Draw, tiny: Callable[[str], Path], family: str
) -> None:
    options = {"structure": structure(), "strength": 1.0, "control": f"{tiny(family)}-control"}
    held, free = draw(family, **options), draw(family, **options, control_scale=0.0)
    assert np.abs(held - free).mean() > 0.1


def test_sd3_holds_to_a_control_net_from_noise_only(
    draw: Draw, tiny: Callable[[str], Path]
) -> None:
    with pytest.raises(UsageError, match="wanted strength 1 .* Stable Diffusion 3.* got 0.6"):
        draw("sd3", structure=structure(), control=f"{tiny('sd3')}-control")


def test_a_control_net_of_another_family_is_refused(
    draw: Draw, tiny: Callable[[str], Path]
) -> None:
    with pytest.raises(ModelError, match="wanted a ControlNetModel .*'FluxControlNetModel'"):
        tiny("flux")
        draw("sd", structure=structure(), control=f"{tiny('flux')}-control")
    with pytest.raises(UsageError, match="wanted a geometry for the ControlNet"):
        draw("sd", control=f"{tiny('sd')}-control")


@pytest.mark.parametrize("family", EVERY)
def test_outside_the_mask_every_pixel_is_kept(draw: Draw, tmp_path: Path, family: str) -> None:
    start = np.full((SIDE, SIDE, 3), (200, 120, 40), np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[16:48, 16:48] = 255
    Image.fromarray(start).save(tmp_path / "start.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    files = {"init_image": tmp_path / "start.png", "mask": tmp_path / "mask.png"}

    drawn = draw(family, strength=1.0, **files)
    assert np.array_equal(drawn[mask == 0], start[mask == 0])
    assert np.abs(drawn - start)[mask > 0].mean() > 5


def test_what_is_kept_is_seen_by_what_is_drawn(draw: Draw, tmp_path: Path) -> None:
    """At full strength nothing of the start is left inside; only the outside can tell."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[24:40, 24:40] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    inside = []
    for level in (0, 255):
        Image.new("RGB", (SIDE, SIDE), (level,) * 3).save(tmp_path / "start.png")
        files = {"init_image": tmp_path / "start.png", "mask": tmp_path / "mask.png"}
        inside.append(draw("sd", strength=1.0, steps=4, scheduler="Euler a", **files)[mask > 0])
    assert np.abs(inside[0] - inside[1]).mean() > 0.2


def test_the_outside_is_noised_as_the_next_step_expects(
    renderer: Renderers, draw: Draw, tmp_path: Path
) -> None:
    """Against the closed form of DDIM: sqrt(a) x + sqrt(1 - a) noise."""
    import torch

    from imagegen.inpainting import Outside
    from imagegen.latent_space import encoded

    draw("sd", structure=structure(), scheduler="DDIM", steps=4, strength=1.0)
    pipe = renderer("sd")._loaded.from_picture  # type: ignore[union-attr]
    start = np.full((SIDE, SIDE, 3), 90, np.uint8)
    mask = np.zeros((SIDE, SIDE), np.float32)
    mask[:32] = 1
    with torch.inference_mode():
        x = encoded(pipe, start)
    outside = Outside(pipe, start, mask, seed=7)
    now = torch.full_like(x, 5.0)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(8))
    for step in range(4):
        kept = outside.kept(pipe, step, now)
        last = step == 3
        a = 1.0 if last else pipe.scheduler.alphas_cumprod[pipe.scheduler.timesteps[step + 1]]
        expected = a**0.5 * x + (1 - a) ** 0.5 * noise
        assert torch.equal(kept[:, :, :16], now[:, :, :16])
        assert torch.allclose(kept[:, :, 16:], expected[:, :, 16:], atol=1e-5)


def test_a_model_made_for_inpainting_is_given_the_mask(renderer: Renderers, tmp_path: Path) -> None:
    sd_inpainting().save_pretrained(tmp_path / "model")
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[16:48, 16:48] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.new("RGB", (SIDE, SIDE), "gold").save(tmp_path / "start.png")
    asked = request(str(tmp_path / "model"), "sd", strength=1.0)
    one = renderer("inpainting")

    files = {"init_image": tmp_path / "start.png", "mask": tmp_path / "mask.png"}
    made = one.render(asked, tmp_path, name="a", **files)
    with Image.open(made[0].path) as image:
        drawn = np.asarray(image).astype(int)
    assert np.array_equal(drawn[0, 0], (255, 215, 0))
    assert np.abs(drawn - (255, 215, 0))[mask > 0].mean() > 5
    with pytest.raises(UsageError, match="the model refused"):
        one.render(asked, tmp_path, name="b")


def test_a_mask_needs_a_picture_and_something_white(draw: Draw, tmp_path: Path) -> None:
    Image.new("L", (SIDE, SIDE), 0).save(tmp_path / "dark.png")
    with pytest.raises(UsageError, match="wanted a picture to redraw inside the mask"):
        draw("sd", mask=tmp_path / "dark.png")
    with pytest.raises(UsageError, match="dark all over; invert it"):
        draw("sd", mask=tmp_path / "dark.png", init_image=tmp_path / "dark.png")


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_a_tile_has_no_seam(draw: Draw, family: str) -> None:
    def seam(picture: Any) -> float:
        """Step across the edges over the mean step inside."""
        across = (
            np.abs(picture[0] - picture[-1]).mean() + np.abs(picture[:, 0] - picture[:, -1]).mean()
        )
        inside = np.abs(np.diff(picture, axis=0)).mean() + np.abs(np.diff(picture, axis=1)).mean()
        return float(across / inside)

    assert seam(draw(family, tile=True)) < 1.2 < seam(draw(family)) + 0.4


def test_a_tile_leaves_the_model_as_it_was(draw: Draw) -> None:
    before, tiled, after = draw("sd"), draw("sd", tile=True), draw("sd")
    assert np.array_equal(before, after) and not np.array_equal(before, tiled)


@pytest.mark.parametrize("family", FLOWS)
def test_a_transformer_cannot_tile_and_says_so(draw: Draw, family: str) -> None:
    with pytest.raises(UsageError, match="a transformer knows where in the picture"):
        draw(family, tile=True)


@pytest.mark.parametrize("family", EVERY)
def test_an_adapter_changes_the_picture_by_its_weight(
    draw: Draw, tiny: Callable[[str], Path], tmp_path: Path, family: str
) -> None:
    path = lora(family, tiny(family), tmp_path / "style.safetensors", trigger="silk")
    plain = draw(family)

    def change(weight: float) -> float:
        return float(np.abs(draw(family, adapters=((str(path), weight),)) - plain).mean())

    assert change(0.0) == 0 and 0 < change(0.3) < change(1.0)
    assert np.array_equal(draw(family), plain)  # and it is gone again


@pytest.mark.parametrize(
    ("family", "other"), [("sd", "sdxl"), ("sdxl", "sd"), ("sd", "flux"), ("flux", "sd3")]
)
def test_an_adapter_of_another_family_is_refused(
    draw: Draw, tiny: Callable[[str], Path], tmp_path: Path, family: str, other: str
) -> None:
    path = lora(other, tiny(other), tmp_path / "style.safetensors")
    with pytest.raises(ModelError, match="wanted an adapter for .* take one made for this model"):
        draw(family, adapters=((str(path), 1.0),))
    assert draw(family).std() > 1  # and the model is as good as new


def test_the_trigger_is_put_before_the_prompt_and_recorded(
    renderer: Renderers, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    path = lora("sd", tiny("sd"), tmp_path / "ink.safetensors", trigger="inkwash")
    asked = request(str(tiny("sd")), "sd", adapters=((str(path), 0.5),))
    made = renderer("sd").render(asked, tmp_path, name="a", sidecar=True)
    spelt = asked.model_copy(update={"prompt": "inkwash, silk"})
    same = renderer("sd").render(spelt, tmp_path, name="b")

    assert Path(made[0].path).read_bytes() != Path(same[0].path).read_bytes()  # other records
    with Image.open(made[0].path) as one, Image.open(same[0].path) as two:
        assert np.array_equal(np.asarray(one), np.asarray(two))
        assert one.info["parameters"].startswith("inkwash, silk <lora:ink:0.5>")
    (tmp_path / "a.png").write_bytes(stripped(tmp_path / "a.png"))
    assert read_note(tmp_path / "a.png").adapters[0].trigger == "inkwash"  # from the sidecar


@pytest.mark.parametrize("family", EVERY)
def test_a_preview_comes_after_every_step(draw: Draw, family: str) -> None:
    shown: list[Any] = []
    last = draw(family, on_preview=shown.append, steps=3)

    assert [thumbnail.shape for thumbnail in shown] == [(SIDE // 2, SIDE // 2, 3)] * 3
    assert shown[-1].dtype == np.uint8 and last.std() > 1


@pytest.mark.parametrize("family", EVERY)
def test_every_family_stops_within_a_step(draw: Draw, family: str) -> None:
    from orbweave.errors import Cancelled

    done: list[int] = []
    with pytest.raises(Cancelled):
        draw(
            family,
            steps=5,
            on_step=lambda i, _: done.append(i),
            cancelled=lambda: len(done) == 2,
        )
    assert done == [1, 2]


@pytest.mark.parametrize("family", ["sd", "flux"])
def test_numbers_that_are_not_finite_are_an_error_and_no_black_picture(
    renderer: Renderers, draw: Draw, tmp_path: Path, family: str
) -> None:
    import torch

    draw(family)
    pipe = renderer(family)._loaded.pipe  # type: ignore[union-attr]
    denoiser = pipe.unet if family == "sd" else pipe.transformer
    first = next(denoiser.parameters())
    kept = first.detach().clone()
    try:
        with torch.no_grad():
            first.fill_(float("nan"))
        with pytest.raises(EngineError, match="at step 1 .* not finite; try .*float32"):
            draw(family)
    finally:
        with torch.no_grad():
            first.copy_(kept)
    assert draw(family).std() > 1


@pytest.mark.parametrize("family", FLOWS)
def test_sides_that_no_token_fits_are_refused(draw: Draw, family: str) -> None:
    # The tiny models halve the sides once, so every multiple of 8 fits; the real ones thrice.
    from imagegen.drawing import _check
    from imagegen.loading import Loaded

    class Real:
        vae_scale_factor = 8

    pipeline = {"sd3": "StableDiffusion3Pipeline", "flux": "FluxPipeline"}[family]
    loaded = Loaded("m", None, Real(), None, FAMILIES[pipeline], {}, "", "whole")
    with pytest.raises(UsageError, match="divisible by 16 .* got 72x64"):
        _check(loaded, Real(), request("m", family, width=72), from_words=True)


@pytest.mark.parametrize("family", FLOWS)
def test_words_beyond_t5s_window_are_named(
    draw: Draw, renderer: Renderers, tiny: Any, tmp_path: Path, family: str
) -> None:
    asked = request(str(tiny(family)), family, prompt="(web) " * 200 + "lost")
    made = renderer(family).render(asked, tmp_path)
    assert made[0].lost_words[-1] == "lost"


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_a_prompt_of_any_length_is_read(draw: Draw, tiny: Any, family: str) -> None:
    long = "web " * 60  # 180 tokens, each letter one
    assert not np.array_equal(draw(family, prompt=long + "b"), draw(family, prompt=long + "z"))
    assert draw(family, prompt="a", negative_prompt=long).std() > 1


def test_a_class_without_a_row_is_a_family_of_its_own() -> None:
    assert family_of("PixArtAlphaPipeline").name == "PixArtAlphaPipeline"
    assert family_of("PixArtAlphaPipeline").from_picture is None
