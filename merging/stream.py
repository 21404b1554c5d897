"""Carries out the steps of a merge: into a folder of shards, or into memory.

Tensors are worked on by several threads, each reading, computing and writing chunk by chunk,
so every core is busy and only a few megabytes per thread are in use.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from merging.kernel import (
    Read,
    combine,
    gram,
    karcher_weights,
    slerp_weights,
)
from merging.plan import Step
from merging.tensors import DTYPES, SHARD_BYTES, ShardWriter, Weights, n_bytes
from orbweave.errors import Cancelled, ModelError

__all__ = ["Grams", "Progress", "merge_into_folder", "merge_into_memory", "weights_of"]

Grams = dict[str, Tensor]
"""Tensor name -> inner products of its sources, see `merging.kernel.gram`."""
Write = Callable[[str, int, Tensor], None]
"""Takes a tensor's name, the place of the first element and a chunk."""
_STOPPED = "the merge was stopped; nothing half made was kept"


class Progress(NamedTuple):
    """How far a merge is."""

    tensors: int
    all_tensors: int
    bytes: int
    """Of the result."""
    all_bytes: int
    eta_s: float
    """Estimated seconds left, from the bytes so far."""


def merge_into_folder(
    steps: Sequence[Step],
    weights: Mapping[str, Weights],
    folder: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    on_progress: Callable[[Progress], None] = lambda _: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Grams:
    """Merge into safetensors shards; whoever calls sees to it that no half folder remains.

    Args:
        steps: What to do, see `merging.plan.plan`.
        weights: The parents, by their names in the steps.
        folder: An existing folder.
        shard_bytes: Largest shard.
        on_progress: Is told after every tensor.
        is_cancelled: Is asked after every tensor.

    Returns:
        The inner products of the parents, from which their geometry follows.

    Raises:
        ModelError: a weight is not finite, a merged one does not fit its dtype, or a file cannot
            be read; names the tensor.
        Cancelled: `is_cancelled` said so.
        OSError: the disk refused.
    """
    grams: Grams = {}
    with ShardWriter(folder, {s.name: s.info for s in steps}, shard_bytes=shard_bytes) as writer:
        _run(steps, weights, writer.write, grams, on_progress, is_cancelled)
    return grams


def merge_into_memory(
    steps: Sequence[Step],
    weights: Mapping[str, Weights],
    *,
    grams: Grams | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> dict[str, Tensor]:
    """Merge into a state dict, without touching the disk.

    Args:
        steps: What to do, see `merging.plan.plan`.
        weights: The parents, by their names in the steps.
        grams: Inner products from an earlier merge of the same parents, which then are read
            once instead of twice; what is missing is added.
        on_progress: Is told after every tensor.
        is_cancelled: Is asked after every tensor.

    Raises:
        ModelError, Cancelled: as in `merge_into_folder`.
    """
    made = {s.name: torch.empty(s.info.shape, dtype=DTYPES[s.info.dtype]) for s in steps}

    def write(name: str, start: int, chunk: Tensor) -> None:
        made[name].view(-1)[start : start + len(chunk)] = chunk

    _run(steps, weights, write, {} if grams is None else grams, on_progress, is_cancelled)
    return made


def _run(
    steps: Sequence[Step],
    weights: Mapping[str, Weights],
    write: Write,
    grams: Grams,
    on_progress: Callable[[Progress], None],
    is_cancelled: Callable[[], bool],
) -> None:
    """Do all steps in threads; the first failure, Ctrl-C included, stops the others."""
    sizes = {step.name: n_bytes(step.info) for step in steps}
    all_bytes, done_bytes, begin = sum(sizes.values()), 0, time.monotonic()
    stop = threading.Event()

    def work(step: Step) -> str:
        if not stop.is_set():
            _merge_tensor(step, weights, write, grams, stop)
        return step.name

    with one_torch_thread(), ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            futures = [pool.submit(work, step) for step in steps]
            for n_done, future in enumerate(as_completed(futures), 1):
                done_bytes += sizes[future.result()]
                left_s = (time.monotonic() - begin) * (all_bytes / max(done_bytes, 1) - 1)
                on_progress(Progress(n_done, len(steps), done_bytes, all_bytes, left_s))
                if is_cancelled():
                    raise Cancelled(_STOPPED)
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Let each of our threads compute alone: torch's own would fight over the cores."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def _merge_tensor(
    step: Step, weights: Mapping[str, Weights], write: Write, grams: Grams, stop: threading.Event
) -> None:
    n_elements = math.prod(step.info.shape)
    reads = [
        _reader(weights[source.parent], source.tensor, DTYPES[step.rounded_to])
        for source in step.sources
    ]

    if not DTYPES[step.info.dtype].is_floating_point:
        write(step.name, 0, _agreed(step, [read(0, n_elements) for read in reads]))
        return
    if step.name not in grams:
        grams[step.name] = gram(reads, n_elements)
    _check_finite(step, grams[step.name])
    shares = weights_of(step, grams[step.name])
    may_overflow = _bound(shares, grams[step.name]) > torch.finfo(DTYPES[step.info.dtype]).max

    def write_chunk(start: int, chunk: Tensor) -> None:
        if stop.is_set():
            raise Cancelled(_STOPPED)
        if may_overflow:
            _check_fits(step, chunk)
        write(step.name, start, chunk)

    combine(reads, shares, n_elements, write_chunk)


def weights_of(step: Step, products: Tensor) -> Sequence[float]:
    """Return what each source of a step is multiplied by."""
    if step.way == "slerp":
        return slerp_weights(products, step.shares[1])
    if step.way == "slerp-paper":
        return slerp_weights(products, step.shares[1], "paper")
    if step.way == "karcher":
        return karcher_weights(products, step.shares, "mergekit")
    return step.shares


def _reader(weights: Weights, tensor: str, dtype: torch.dtype) -> Read:
    return lambda start, stop: weights.read(tensor, start, stop).to(dtype)


def _agreed(step: Step, buffers: Sequence[Tensor]) -> Tensor:
    """Return a buffer of whole numbers, which cannot be averaged."""
    if any(not torch.equal(buffers[0], other) for other in buffers[1:]):
        parents = " and ".join(source.parent for source in step.sources)
        raise ModelError(
            f"wanted the same whole numbers in {step.name} of {parents}, found different ones; "
            "they cannot be averaged, so these models cannot be merged"
        )
    return buffers[0]


def _check_finite(step: Step, products: Tensor) -> None:
    for source, square in zip(step.sources, products.diagonal().tolist(), strict=True):
        if not math.isfinite(square):
            raise ModelError(
                f"wanted finite weights in {source.tensor} of {source.parent}, found NaN, infinite "
                f"or absurdly large ones (read as {step.rounded_to}); that model is damaged, use "
                "another"
            )


def _bound(shares: Sequence[float], products: Tensor) -> float:
    """Return what no merged weight exceeds: the lengths of the parents, each times its share.

    Healthy tensors stay so far below the largest number of any dtype that they need not be
    looked at weight by weight.
    """
    squares: list[float] = products.diagonal().tolist()
    return sum(abs(share) * math.sqrt(x) for share, x in zip(shares, squares, strict=True))


def _check_fits(step: Step, chunk: Tensor) -> None:
    if not chunk.to(DTYPES[step.info.dtype]).isfinite().all():
        raise ModelError(
            f"wanted {step.name} in {step.info.dtype}, found merged weights too large for it; "
            "set out_dtype to bfloat16 or float32"
        )
