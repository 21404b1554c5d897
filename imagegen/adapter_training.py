"""Train a LoRA adapter of an image model on captioned pictures.

Pictures and captions are encoded once. Every step draws from a generator of its own, seeded by
its number, so that a training that was interrupted goes on exactly. Part of each batch has no
trigger and is held to what the model says without the adapter: otherwise the style would leak
into every prompt, trigger or not.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from imagegen.adapter_recipe import AdapterRecipe, CaptionedPicture, captioned_pictures
from imagegen.checkpoint import load_checkpoint, newest_step, save_checkpoint
from imagegen.device import environment, mixed_precision
from imagegen.latent_space import encoded
from imagegen.loading import Loaded, load_model
from imagegen.loop import METRICS, drop_rows_after
from imagegen.lora import TRIGGER_KEY, USUAL_NAME
from imagegen.start import read_picture
from orbweave.errors import Cancelled, EngineError, OutputError, UsageError
from orbweave.files import (
    build_folder,
    check_output,
    remove_leftovers,
    sha256_file,
    write_text,
)
from orbweave.owner import owned

__all__ = ["ADAPTER", "TrainedAdapter", "kept_step", "train_adapter"]

ADAPTER = "adapter"
"""Sub-folder of a run with what it came to."""
RECIPE = "recipe.json"
PARTS = ("adapter", "optimiser")
"""Of a checkpoint."""
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
OTHERS = (
    "conv1", "conv2", "conv_in", "conv_out", "conv", "time_emb_proj", "proj_in", "proj_out",
    "ff.net.0.proj", "ff.net.2",
)  # fmt: skip
"""The other layers of a UNet, by the ends of their names in diffusers."""
MAX_GRAD_NORM = 1.0


class TrainedAdapter(NamedTuple):
    """What a training came to."""

    folder: Path
    """Takes `--adapter`."""
    steps: int
    first_loss: float
    """Mean of the first tenth of this stretch; of 0 steps, nan."""
    last_loss: float
    """Mean of the last tenth."""


class _Words(NamedTuple):
    """Token states of one caption; `pooled` is for SDXL alone."""

    states: Tensor
    pooled: Tensor | None


class _Sample(NamedTuple):
    """One picture, encoded."""

    latents: Tensor
    """(channels, h, w)."""
    words: _Words
    """With the trigger."""
    plain: _Words
    """Without it."""


def train_adapter(
    recipe: AdapterRecipe,
    out: Path,
    *,
    beside: Path = Path(),
    on_step: Callable[[int, int, float], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    load: Callable[[str], Loaded] | None = None,
) -> TrainedAdapter:
    """Train the adapter of a recipe, going on from the newest checkpoint in `out`.

    Args:
        recipe: What to train.
        out: Run folder: checkpoints, `metrics.jsonl` and, at the end, `adapter/`.
        beside: Folder the recipe's paths are relative to.
        on_step: Told step, steps in all and loss.
        cancelled: Asked after every step; a checkpoint is written before leaving.
        load: Loads the image model in float32; default: `imagegen.loading.load_model`.

    Raises:
        UsageError: no pictures, a run folder of another recipe or of more steps, or a family
            without UNet.
        OutputError: `out` holds something else or cannot be written, or another training goes on
            there.
        ModelError: the model is missing or damaged.
        EngineError: the loss is not finite any more.
        Cancelled: as `cancelled` said.
    """
    pictures = captioned_pictures(recipe, beside)
    check_output(out / RECIPE, force=True)
    with owned(out.resolve(), "training"):  # by one name, however it was asked for
        note = _note_of(recipe, pictures, out)
        if kept_step(out) > recipe.steps:
            raise UsageError(
                f"wanted at least the {kept_step(out)} steps that are done in {out}, "
                f"got {recipe.steps}; give more steps or another --out"
            )
        remove_leftovers(out / ADAPTER)
        loaded = (load or (lambda model: load_model(model, None, "float32")))(recipe.model)
        if getattr(loaded.pipe, "unet", None) is None:
            raise UsageError(
                "wanted a Stable Diffusion 1, 2 or XL model to adapt, "
                f"{loaded.family.name} has no UNet; train that one with diffusers' examples, "
                "its adapters are read here"
            )
        loaded.place(loaded.pipe)
        samples = _encode(loaded.pipe, pictures, recipe)
        # Only now: what stops before this can be mended and started again in the same folder.
        write_text(out / RECIPE, note)
        config = _lay_adapter(loaded.pipe.unet, recipe)
        losses = _fit(loaded, samples, recipe, out, on_step, cancelled or (lambda: False))
        folder = out / ADAPTER
        _export(loaded, config, recipe, pictures, folder)
    tenth = max(len(losses) // 10, 1)
    first, last = (float(np.mean(part or [np.nan])) for part in (losses[:tenth], losses[-tenth:]))
    return TrainedAdapter(folder, recipe.steps, first, last)


def kept_step(out: Path) -> int:
    """Return the step a training in `out` would go on from; 0 if there is no checkpoint."""
    return newest_step(out, PARTS)


def _note_of(recipe: AdapterRecipe, pictures: list[CaptionedPicture], out: Path) -> str:
    """Return what is trained, as noted in `out`; refuse to go on with something else."""
    data = [[picture.path.name, sha256_file(picture.path), picture.caption] for picture in pictures]
    now = json.dumps({"recipe": recipe.model_dump(exclude={"steps"}), "data": data}, indent=1)
    noted = out / RECIPE
    if not noted.is_file() and out.is_dir() and any(out.iterdir()):
        raise OutputError(
            f"wanted a new folder or an earlier training in {out}, found other files there; "
            "give another --out"
        )
    if noted.is_file() and noted.read_bytes() != now.encode():
        raise UsageError(
            f"wanted to go on with the training in {out}, its recipe or pictures were others; "
            "only `steps` may change: give another --out"
        )
    return now


@torch.inference_mode()
def _encode(
    pipe: Any, pictures: list[CaptionedPicture], recipe: AdapterRecipe
) -> tuple[list[_Sample], _Words]:
    """Encode all pictures and captions, and the empty caption."""
    side = recipe.size_px
    samples = []
    for picture in pictures:
        latents = encoded(pipe, read_picture(picture.path, side, side))[0].float()
        with_trigger, without = _captions(picture.caption, recipe.trigger)
        samples.append(_Sample(latents, _words(pipe, with_trigger), _words(pipe, without)))
    return samples, _words(pipe, "")


def _captions(caption: str, trigger: str) -> tuple[str, str]:
    """The caption with the trigger, and without it."""
    if not trigger:
        return caption, caption
    if trigger.lower() in caption.lower():
        at = caption.lower().index(trigger.lower())
        return caption, (caption[:at] + caption[at + len(trigger) :]).strip(" ,")
    return ", ".join(filter(None, (trigger, caption))), caption


def _words(pipe: Any, caption: str) -> _Words:
    found = pipe.encode_prompt(
        prompt=caption,
        device=pipe._execution_device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=False,
    )
    return _Words(found[0].float(), found[2].float() if len(found) == 4 else None)


def _lay_adapter(unet: Any, recipe: AdapterRecipe) -> LoraConfig:
    """Freeze the UNet and lay an untrained adapter over it, which changes nothing yet."""
    torch.manual_seed(recipe.seed)
    unet.requires_grad_(False)
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,  # type: ignore[arg-type]
        init_lora_weights="gaussian",
        target_modules=list(ATTENTION if recipe.layers == "attention" else ATTENTION + OTHERS),
    )
    unet.add_adapter(config)
    return config


class _AdapterState:
    """The adapter's weights alone, for a checkpoint."""

    def __init__(self, unet: Any) -> None:
        self._unet = unet

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = get_peft_model_state_dict(self._unet, adapter_name="default")
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        return set_peft_model_state_dict(self._unet, state_dict, adapter_name="default")


def _fit(
    loaded: Loaded,
    encodings: tuple[list[_Sample], _Words],
    recipe: AdapterRecipe,
    out: Path,
    on_step: Callable[[int, int, float], None] | None,
    cancelled: Callable[[], bool],
) -> list[float]:
    """Train until `recipe.steps` steps in all are done; the losses of this stretch."""
    from diffusers import DDPMScheduler

    pipe = loaded.pipe
    build: Any = DDPMScheduler.from_config  # diffusers has no types
    schedule = build(loaded.scheduler)
    weights = [p for p in pipe.unet.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=recipe.learning_rate, weight_decay=0.01)
    states = (_AdapterState(pipe.unet), optimiser)
    parts: Mapping[str, Any] = dict(zip(PARTS, states, strict=True))
    start = load_checkpoint(out, parts)
    drop_rows_after(start, out / METRICS)
    pipe.unet.train()
    losses: list[float] = []
    with (out / METRICS).open("a", encoding="utf-8") as metrics:
        for step in range(start, recipe.steps):
            loss = _loss(pipe, schedule, encodings, recipe, step)
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(weights, MAX_GRAD_NORM)
            optimiser.step()
            losses.append(loss.item())
            if not np.isfinite(losses[-1]):
                raise EngineError(
                    f"wanted a finite loss at step {step + 1}, got {losses[-1]}; "
                    "take a smaller learning_rate"
                )
            metrics.write(json.dumps({"step": step + 1, "loss": round(losses[-1], 5)}) + "\n")
            if on_step is not None:
                on_step(step + 1, recipe.steps, losses[-1])
            ends = step + 1 == recipe.steps
            if ends or (step + 1) % recipe.checkpoint_steps == 0 or cancelled():
                save_checkpoint(out, step + 1, parts)
            if not ends and cancelled():
                raise Cancelled(
                    f"the training was stopped at step {step + 1}; run it again to go on"
                )
    pipe.unet.eval()
    return losses


def _loss(
    pipe: Any,
    schedule: Any,
    encodings: tuple[list[_Sample], _Words],
    recipe: AdapterRecipe,
    step: int,
) -> Tensor:
    """Squared error of one batch: on pictures with the trigger, on the old answer without."""
    samples, empty = encodings
    rng = np.random.default_rng([recipe.seed, step])
    # At least one sample learns, or the adapter would stay as it began.
    n_kept = min(round(recipe.keep * recipe.batch), recipe.batch - 1) if recipe.trigger else 0
    picked = [samples[int(i)] for i in rng.integers(len(samples), size=recipe.batch)]
    words = [
        sample.plain
        if i < n_kept
        else (empty if rng.uniform() < recipe.unconditional else sample.words)
        for i, sample in enumerate(picked)
    ]
    generator = torch.Generator("cpu").manual_seed(int(rng.integers(2**62)))
    x = torch.stack([sample.latents for sample in picked])
    noise = torch.randn(x.shape, generator=generator).to(x)
    n_times = int(schedule.config.num_train_timesteps)
    t = torch.randint(0, n_times, (len(x),), generator=generator).to(x.device)
    noisy = schedule.add_noise(x, noise, t)
    target = _target(schedule, x, noise, t)
    states = torch.cat([word.states for word in words])
    options = _conditions(words, recipe.size_px)
    with mixed_precision():
        if n_kept:
            pipe.unet.disable_adapters()
            with torch.no_grad():
                kept = {k: v[:n_kept] for k, v in options.items()}
                old = pipe.unet(
                    noisy[:n_kept], t[:n_kept], states[:n_kept], added_cond_kwargs=kept
                ).sample
            pipe.unet.enable_adapters()
            target = torch.cat([old.float(), target[n_kept:]])
        answer = pipe.unet(noisy, t, states, added_cond_kwargs=options).sample
    return F.mse_loss(answer.float(), target)


def _target(schedule: Any, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """What the model was trained to say."""
    kind = schedule.config.prediction_type
    if kind == "v_prediction":
        velocity: Tensor = schedule.get_velocity(x, noise, t)
        return velocity
    return noise if kind == "epsilon" else x


def _conditions(words: list[_Words], size_px: int) -> dict[str, Tensor]:
    """What SDXL's UNet is told besides the words; nothing for the others."""
    pooled = [word.pooled for word in words if word.pooled is not None]
    if not pooled:
        return {}
    sizes = torch.tensor([[size_px, size_px, 0, 0, size_px, size_px]] * len(pooled))
    return {"text_embeds": torch.cat(pooled), "time_ids": sizes.to(pooled[0])}


def _export(
    loaded: Loaded,
    config: LoraConfig,
    recipe: AdapterRecipe,
    pictures: list[CaptionedPicture],
    folder: Path,
) -> None:
    """Write the adapter as diffusers reads it, with its trigger words and a model card."""
    described: Any = config.to_dict
    with build_folder(folder, force=True) as building:
        state = get_peft_model_state_dict(loaded.pipe.unet, adapter_name="default")
        loaded.pipe.save_lora_weights(
            str(building),
            # As PEFT names them. diffusers' own older names exist for attention only, and its
            # reader, given a mixture, leaves one half out.
            unet_lora_layers=state,
            unet_lora_adapter_metadata=described(),
        )
        trigger = {TRIGGER_KEY: recipe.trigger} if recipe.trigger else {}
        _add_metadata(building / USUAL_NAME, trigger)
        document = {
            "recipe": recipe.model_dump(),
            "model_sha256": loaded.sha256,
            "pictures": {picture.path.name: sha256_file(picture.path) for picture in pictures},
            "environment": environment(),
        }
        (building / "provenance.json").write_text(json.dumps(document, indent=2) + "\n", "utf-8")
        (building / "README.md").write_text(_card(recipe, len(pictures)), "utf-8")


def _add_metadata(path: Path, added: dict[str, str]) -> None:
    """Write a safetensors file again with more metadata."""
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
        metadata = dict(file.metadata() or {})
    whole = path.with_suffix(".tmp")
    save_file(tensors, whole, metadata | added)
    shutil.move(whole, path)


def _card(recipe: AdapterRecipe, n_pictures: int) -> str:
    """README.md with the head that the Hub and `--adapter` read."""
    head = {
        "base_model": recipe.model,
        "library_name": "diffusers",
        "tags": ["lora", "text-to-image"],
        "instance_prompt": recipe.trigger or None,
    }
    return "\n".join(
        [
            "---",
            yaml.safe_dump(head, sort_keys=False).rstrip(),
            "---",
            f"# {recipe.name}",
            "",
            recipe.description or f"A LoRA adapter for the image model {recipe.model}.",
            "",
            f"Trained on {n_pictures} pictures, {recipe.steps} steps of {recipe.batch}, rank "
            f"{recipe.rank}, alpha {recipe.alpha:g}. Use it as:",
            "",
            f"    orbweave render PROMPT --model {recipe.model} --adapter FOLDER",
            "",
        ]
    )
