"""Samplers by the names people know, and how each is set up for a trained model."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from orbweave.errors import ModelError, UsageError, shown

__all__ = ["SAMPLERS", "Sampler", "check_sampler", "rescaled_betas", "sampler_config"]


class Sampler(NamedTuple):
    """A diffusers scheduler and what makes it the sampler people know by name."""

    scheduler: str
    options: dict[str, Any]
    rescales: bool = True
    """Whether it can rescale the betas to zero terminal signal by itself."""


_KARRAS = {"use_karras_sigmas": True}
_SDE = {"algorithm_type": "sde-dpmsolver++"}

SAMPLERS: dict[str, Sampler] = {
    "Euler": Sampler("EulerDiscreteScheduler", {}),
    "Euler Karras": Sampler("EulerDiscreteScheduler", _KARRAS),
    "Euler a": Sampler("EulerAncestralDiscreteScheduler", {}),
    "Heun": Sampler("HeunDiscreteScheduler", {}, rescales=False),
    "Heun Karras": Sampler("HeunDiscreteScheduler", _KARRAS, rescales=False),
    "DPM++ 2M": Sampler("DPMSolverMultistepScheduler", {}),
    "DPM++ 2M Karras": Sampler("DPMSolverMultistepScheduler", _KARRAS),
    "DPM++ 2M SDE": Sampler("DPMSolverMultistepScheduler", _SDE),
    "DPM++ 2M SDE Karras": Sampler("DPMSolverMultistepScheduler", _SDE | _KARRAS),
    "DDIM": Sampler("DDIMScheduler", {}),
    "UniPC": Sampler("UniPCMultistepScheduler", {}),
    "UniPC Karras": Sampler("UniPCMultistepScheduler", _KARRAS),
    "LCM": Sampler("LCMScheduler", {}),
}
"""By A1111's names, ` Karras` standing for its `Schedule type: Karras`.

Source: huggingface.co/docs/diffusers/api/schedulers/overview, "A1111/k-diffusion".
"""


def check_sampler(name: str) -> None:
    """Raise UsageError, with all names, for one that is not in `SAMPLERS`."""
    if name not in SAMPLERS:
        raise UsageError(
            f"wanted a sampler, got {shown(name)}; the names are {', '.join(SAMPLERS)}"
        )


def sampler_config(name: str, trained_with: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return (scheduler class, its whole configuration) of a sampler for a model.

    Args:
        name: A key of `SAMPLERS`.
        trained_with: The configuration of the model's own scheduler. Not modified.

    Raises:
        UsageError: an unknown sampler, or one that does not fit a flow-matching model.
    """
    check_sampler(name)
    own = str(trained_with.get("_class_name", ""))
    if own.startswith("FlowMatch"):
        if name != "Euler":
            raise UsageError(
                f"wanted the sampler Euler for a flow model, which knows no other, got "
                f"{shown(name)}; give --scheduler Euler"
            )
        return own, dict(trained_with)
    sampler = SAMPLERS[name]
    config = trained_with | sampler.options
    if config.get("rescale_betas_zero_snr") and not sampler.rescales:
        # Heun would silently take the betas as they were before rescaling.
        config["trained_betas"] = rescaled_betas(config)
    return sampler.scheduler, config


def rescaled_betas(config: dict[str, Any]) -> list[float]:
    """Betas rescaled so that the signal ends at 2^-24 instead of 0, where sigma is infinite.

    Source: Lin et al., arXiv:2305.08891, algorithm 1; the end as in diffusers' DPM++.

    Raises:
        ModelError: the betas are given in a way we do not know.
    """
    start, end = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
    n, kind = int(config.get("num_train_timesteps", 1000)), config.get("beta_schedule", "linear")
    if config.get("trained_betas") is not None:
        betas = np.asarray(config["trained_betas"], np.float64)
    elif kind == "linear":
        betas = np.linspace(start, end, n)
    elif kind == "scaled_linear":
        betas = np.linspace(start**0.5, end**0.5, n) ** 2
    else:
        raise ModelError(
            f"wanted linear or scaled_linear betas, got {shown(kind)}; take another sampler"
        )
    root = np.sqrt(np.cumprod(1 - betas))
    signal = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    signal[-1] = 2.0**-24
    return [float(beta) for beta in 1 - signal / np.concatenate([[1.0], signal[:-1]])]
