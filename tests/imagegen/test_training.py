"""Training of the embedded model, on tiny runs: it learns, resumes and exports."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler

from imagegen.autoencoder import ARCHITECTURE as VAE
from imagegen.autoencoder import reconstruction_loss, thumbnail_loss
from imagegen.checkpoint import load_checkpoint, newest_step, save_checkpoint
from imagegen.denoiser import SCHEDULER, Denoiser, denoising_loss, learning_rate
from imagegen.export import fold_latent_statistics
from imagegen.latents import LatentCache, encode_samples
from orbweave.errors import OutputError


@pytest.fixture(scope="module")
def tiny_vae() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(**VAE | {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4}).eval()


def test_losses_vanish_for_a_perfect_picture_and_grow_with_a_wrong_colour() -> None:
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    grey = x.mean(1, keepdim=True).expand_as(x)
    assert reconstruction_loss(x, x) == 0
    assert reconstruction_loss(x, grey) > 0.1
    latent = torch.zeros(2, 16, 4, 4)
    latent[:, :3] = 3 * torch.nn.functional.avg_pool2d(x, 8)
    assert thumbnail_loss(x, latent) == pytest.approx(0, abs=1e-10)


def test_folding_standardises_latents_and_leaves_pictures_alone(tiny_vae: AutoencoderKL) -> None:
    vae = AutoencoderKL.from_config(tiny_vae.config)
    vae.load_state_dict(tiny_vae.state_dict())
    x = torch.rand(4, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        before = vae.encode(x).latent_dist
        picture = vae.decode(before.mean).sample
        mean, deviation = before.mean.mean((0, 2, 3)), before.mean.std((0, 2, 3))
    fold_latent_statistics(vae, mean.clone(), deviation.clone())
    with torch.inference_mode():
        after = vae.encode(x).latent_dist
        assert torch.allclose(vae.decode(after.mean).sample, picture, atol=1e-4)
    assert torch.allclose(after.mean.mean((0, 2, 3)), torch.zeros(16), atol=1e-4)
    assert torch.allclose(after.mean.std((0, 2, 3)), torch.ones(16), atol=1e-3)
    assert torch.allclose(after.std, before.std / deviation[:, None, None], rtol=1e-3)


def test_the_schedule_ends_in_pure_noise() -> None:
    assert DDPMScheduler(**SCHEDULER).alphas_cumprod[-1] < 1e-6


def test_a_perfect_velocity_costs_nothing() -> None:
    x, t = torch.randn(3, 16, 4, 4), torch.tensor([0, 500, 999])
    schedule = DDPMScheduler(**SCHEDULER)

    class Oracle(torch.nn.Module):
        def forward(self, noisy, t, text, drawings):
            torch.manual_seed(7)
            noise = torch.randn_like(x)
            return schedule.get_velocity(x, noise, t)

    torch.manual_seed(7)
    text, drawings = torch.zeros(3, 1, 384), torch.zeros(1, 3, 32, 32)
    assert denoising_loss(Oracle(), schedule, x, text, t, drawings).tolist() == [0, 0, 0]


def test_a_drawing_changes_the_sample_it_belongs_to_and_no_other() -> None:
    torch.manual_seed(0)
    model = Denoiser().eval()
    embedding, middle = model.control.controlnet_cond_embedding, model.control.controlnet_mid_block
    for layer in (embedding.conv_out, middle):
        torch.nn.init.normal_(layer.weight, std=0.1)  # zero in an untrained one
    x, t, text = torch.randn(2, 16, 8, 8), torch.tensor([300, 300]), torch.randn(2, 5, 384)
    with torch.inference_mode():
        words = model(x, t, text, torch.zeros(0, 3, 64, 64))
        drawn = model(x, t, text, torch.rand(1, 3, 64, 64))
    assert (words[0] - drawn[0]).abs().max() > 1e-3
    assert torch.allclose(words[1], drawn[1], atol=1e-5)


def test_the_learning_rate_warms_up_holds_and_falls() -> None:
    rates = [learning_rate(1.0, s, 1000) for s in (0, 199, 599, 800, 999)]
    assert rates == pytest.approx([1 / 200, 1, 1, 0.5, 0.02], abs=1e-6)


def test_a_checkpoint_continues_to_the_same_weights(tmp_path: Path) -> None:
    def steps(n: int, start: int = 0, model=None, optimiser=None):
        for i in range(start, start + n):
            torch.manual_seed(i)
            optimiser.zero_grad()
            model(torch.randn(2, 4, 6, 6)).square().mean().backward()
            optimiser.step()

    def fresh():
        torch.manual_seed(0)
        model = torch.nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
        return model, torch.optim.AdamW(model.parameters(), lr=0.01)

    whole, optimiser = fresh()
    steps(6, 0, whole, optimiser)
    half, optimiser = fresh()
    steps(3, 0, half, optimiser)
    save_checkpoint(tmp_path, 3, {"model": half, "optimiser": optimiser})
    resumed, optimiser = fresh()
    assert load_checkpoint(tmp_path, {"model": resumed, "optimiser": optimiser}) == 3
    steps(3, 3, resumed, optimiser)
    assert torch.equal(whole.weight, resumed.weight)


def test_only_the_newest_checkpoint_is_kept(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    for step in (9, 10):
        save_checkpoint(tmp_path, step, {"model": model})
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-10"]


def test_checkpoints_of_others_are_neither_read_nor_removed(tmp_path: Path) -> None:
    parts = {"model": torch.nn.Linear(2, 2), "ema": torch.nn.Linear(2, 2)}
    for name in ("checkpoint-final", "checkpoint-7", "checkpoint-900"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"somebody's")
    assert load_checkpoint(tmp_path, parts) == newest_step(tmp_path, parts) == 0
    for step in (8, 9):
        save_checkpoint(tmp_path, step, parts)
        (tmp_path / f"checkpoint-{step}" / "notes.txt").touch()
    assert newest_step(tmp_path, parts) == 9
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert files == {
        *(f"checkpoint-{name}/model.safetensors" for name in ("final", "7", "900", "9")),
        *("checkpoint-9/ema.safetensors", "checkpoint-9/notes.txt", "checkpoint-8/notes.txt"),
    }
    with pytest.raises(OutputError, match="checkpoint-900, found something else there"):
        save_checkpoint(tmp_path, 900, parts)


def test_the_latent_cache_returns_what_was_encoded(
    tiny_vae: AutoencoderKL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagegen.latents.SHARD", 4)
    vae = AutoencoderKL.from_config(tiny_vae.config)
    encode_samples(vae, tmp_path, 64, 8, seed=0, double_share=0.5)
    cache = LatentCache(tmp_path)
    assert cache.latents.shape == (8, 16, 8, 8)
    samples, _ = next(cache.batches(8, seed=1))
    where = [cache.structures.index(s) for s in samples.structures]
    assert torch.equal(samples.latents, cache.latents[where])
    assert samples.drawings.shape == (8, 64, 64, 3) and samples.drawings.dtype == torch.uint8
    assert torch.equal(samples.drawings, cache.drawings[where])
