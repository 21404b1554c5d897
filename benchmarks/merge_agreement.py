"""How far two merged models agree, element by element, and each with the formula in float64."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open

from merging.parent import locate_tensors

__all__ = ["Agreement", "compare"]

BLOCK = 1 << 22
"""Elements compared at a time."""


class Agreement(NamedTuple):
    """How near two merged models are."""

    tensors: int
    elements: int
    identical_share: float
    within_one_step_share: float
    """At most one rounding step of bfloat16 apart."""
    worst_steps: int
    worst_beyond_rms: float
    """Largest difference of more than one step, as a share of its tensor's root mean square:
    where the parents nearly cancel, steps are short and the last digit of float32 shows."""
    worst_beyond_term_step: float
    """Of these, in rounding steps of the larger of the two terms that were added: below 1 no
    element lies farther off than one step of the result or of what it is the sum of."""
    orbweave_as_float64_share: float
    """Equal to the same formula in float64, rounded once."""
    mergekit_as_float64_share: float


def compare(ours: Path, theirs: Path, pair: Sequence[Path], t: Mapping[str, float]) -> Agreement:
    """Compare two bfloat16 models element by element, and with float64.

    Raises:
        SystemExit: they do not hold the same tensors.
    """
    places = [locate_tensors(folder) for folder in (ours, theirs, *pair)]
    if places[0].keys() != places[1].keys():
        lost = sorted(places[0].keys() ^ places[1].keys())
        raise SystemExit(f"only one of the merged models has {', '.join(lost[:5])}")
    n_all = n_same = n_near = worst = n_ours = n_theirs = 0
    beyond = of_term = 0.0
    for name in places[0]:
        x, y, a, b = (_tensor(files[name], name) for files in places)
        if x.dtype != torch.bfloat16 or (x.dtype, len(x)) != (y.dtype, len(y)):
            raise SystemExit(f"{name} is {x.dtype} x {len(x)} and {y.dtype} x {len(y)}")
        on_a, on_b = _weights(a, b, t[name])
        rms = math.sqrt(_dot(y, y) / len(y))
        for start in range(0, len(x), BLOCK):
            block = slice(start, start + BLOCK)
            terms = on_a * a[block].double(), on_b * b[block].double()
            exact = (terms[0] + terms[1]).bfloat16()
            steps = (_ranks(x[block]) - _ranks(y[block])).abs()
            is_far = steps > 1
            if is_far.any():
                far = (x[block].double() - y[block].double()).abs()[is_far]
                larger = torch.maximum(terms[0].abs(), terms[1].abs())[is_far]
                beyond = max(beyond, far.max().item() / rms)
                of_term = max(of_term, (far / _step(larger)).max().item())
            worst = max(worst, int(steps.max()))
            n_same, n_near = n_same + int((steps == 0).sum()), n_near + int((steps <= 1).sum())
            n_ours += int((x[block] == exact).sum())
            n_theirs += int((y[block] == exact).sum())
        n_all += len(x)
    return Agreement(
        tensors=len(places[0]),
        elements=n_all,
        identical_share=n_same / n_all,
        within_one_step_share=n_near / n_all,
        worst_steps=worst,
        worst_beyond_rms=beyond,
        worst_beyond_term_step=of_term,
        orbweave_as_float64_share=n_ours / n_all,
        mergekit_as_float64_share=n_theirs / n_all,
    )


def _tensor(file: Path, name: str) -> torch.Tensor:
    with safe_open(file, "pt") as tensors:
        tensor: torch.Tensor = tensors.get_tensor(name)
    return tensor.reshape(-1)


def _weights(a: torch.Tensor, b: torch.Tensor, t: float) -> tuple[float, float]:
    """Return Shoemake's weights with mergekit's threshold, from sums in float64."""
    cos = _dot(a, b) / math.sqrt(_dot(a, a) * _dot(b, b))
    if abs(cos) > 0.9995:
        return 1 - t, t
    omega = math.acos(cos)
    return math.sin((1 - t) * omega) / math.sin(omega), math.sin(t * omega) / math.sin(omega)


def _dot(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the inner product, summed in float64."""
    blocks = (slice(start, start + BLOCK) for start in range(0, len(a), BLOCK))
    return math.fsum((a[block].double() @ b[block].double()).item() for block in blocks)


def _step(values: torch.Tensor) -> torch.Tensor:
    """Return the distance of neighbouring bfloat16 numbers at each value, which is not 0."""
    return torch.exp2(torch.floor(torch.log2(values)) - 7)


def _ranks(values: torch.Tensor) -> torch.Tensor:
    """Return each number's place among all bfloat16 numbers; neighbours differ by 1."""
    bits = values.view(torch.int16).int()
    return torch.where(bits < 0, -(bits & 0x7FFF), bits)
