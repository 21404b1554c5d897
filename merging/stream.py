"""Carries out the steps of a merge: into a folder of shards, or into memory.

Tensors are worked on by several threads, each reading, computing and writing chunk by chunk,
so every core is busy and only a few megabytes per thread are in use.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from merging import bfloat16, kernel
from merging.kernel import CHUNK, Read, combine, gram, karcher_weights, slerp_weights
from merging.numbers import FLOATS, STORED, TORCH_NAMES, Array, largest, narrow, widen
from merging.plan import Step
from merging.tensors import (
    SHARD_BYTES,
    ShardWriter,
    StoredWeights,
    Weights,
    as_stored,
    n_bytes,
)
from orbweave.errors import Cancelled, ModelError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Grams", "Progress", "merge_into_folder", "merge_into_memory", "weights_of"]

Grams = dict[str, Array]
"""Tensor name -> inner products of its sources, see `merging.kernel.gram`."""
Fill = Callable[[int, Array], None]
"""Fills an array with a parent's flattened numbers, as they are stored, from a place on."""
Write = Callable[[str, int, Array], None]
"""Takes a tensor's name, the place of the first element and a chunk, of the tensor's dtype. The
chunk is the writer's until it returns."""
_KEPT = 1 << 20
"""Tensors of up to so many elements that an adapter lies over are made once and kept between the
two passes, as they are stored: 2 or 4 MB each. Plain files are read twice: the second time from
the system's memory, at 0.1 ns an element."""
_STOPPED = "the merge was stopped; nothing half made was kept"


class _Desk(threading.local):
    """What a thread computes in, made once: fresh memory for every chunk would be slow to get."""

    def __init__(self, n_parents: int) -> None:
        self.rows = np.empty((max(2, n_parents), CHUNK), np.float32)


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
        _run(steps, weights, writer.write_stored, grams, on_progress, is_cancelled)
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
    import torch

    made = {
        s.name: torch.empty(s.info.shape, dtype=getattr(torch, TORCH_NAMES[s.info.dtype]))
        for s in steps
    }
    stored = {name: as_stored(tensor) for name, tensor in made.items()}

    def write(name: str, start: int, chunk: Array) -> None:
        stored[name][start : start + len(chunk)] = chunk

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
    desk = _Desk(max((len(step.sources) for step in steps), default=0))

    def work(step: Step) -> str:
        if not stop.is_set():
            _merge_tensor(step, weights, write, grams, stop, desk.rows)
        return step.name

    # One thread each: those of BLAS, which lays adapters over weights, would fight with ours.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            # The largest first, so that no core is left with one at the end.
            largest_first = sorted(steps, key=lambda step: -sizes[step.name])
            futures = [pool.submit(work, step) for step in largest_first]
            for n_done, future in enumerate(as_completed(futures), 1):
                done_bytes += sizes[future.result()]
                left_s = (time.monotonic() - begin) * (all_bytes / max(done_bytes, 1) - 1)
                on_progress(Progress(n_done, len(steps), done_bytes, all_bytes, left_s))
                if is_cancelled():
                    raise Cancelled(_STOPPED)
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _merge_tensor(
    step: Step,
    weights: Mapping[str, Weights],
    write: Write,
    grams: Grams,
    stop: threading.Event,
    rows: Array,
) -> None:
    """Merge one tensor; `rows` is scratch, float32, shape (k or more, CHUNK)."""
    n_elements = math.prod(step.info.shape)
    parents = [(weights[source.parent], source.tensor) for source in step.sources]
    if step.info.dtype not in FLOATS:
        whole = [parent.read(tensor, 0, n_elements) for parent, tensor in parents]
        write(step.name, 0, _agreed(step, whole))
        return

    dtypes = {parent.tensors[tensor].dtype for parent, tensor in parents}
    dtypes |= {step.rounded_to, step.info.dtype}
    inner: kernel.Inner = kernel.inner
    add: kernel.Add = kernel.weighted_sum
    if dtypes == {"BF16"}:  # worked on as they are stored
        inner, add = bfloat16.inner, bfloat16.weighted_sum
        rows = rows.view(np.uint16)[:, :CHUNK]
    elif dtypes == {"F32"}:
        add = partial(kernel.weighted_sum, scratch=rows[:2])
    in_rows = len(dtypes) == 1 and dtypes <= {"BF16", "F32"}
    is_kept = step.name not in grams and n_elements <= _KEPT
    reads = [
        _in_row(*parent, is_kept, row) if in_rows else _rounded(*parent, is_kept, step.rounded_to)
        for parent, row in zip(parents, rows, strict=False)
    ]

    if step.name not in grams:
        grams[step.name] = gram(reads, n_elements, inner=inner)
    _check_finite(step, grams[step.name])
    shares = weights_of(step, grams[step.name])
    may_overflow = _bound(shares, grams[step.name]) > largest(step.info.dtype)

    def write_chunk(start: int, chunk: Array) -> None:
        if stop.is_set():
            raise Cancelled(_STOPPED)
        stored = chunk if in_rows else narrow(chunk, step.info.dtype)
        if may_overflow:
            _check_fits(step, stored)
        write(step.name, start, stored)

    with np.errstate(over="ignore", invalid="ignore"):  # named by _check_fits
        combine(reads, shares, n_elements, write_chunk, add=add)


def weights_of(step: Step, products: Array) -> Sequence[float]:
    """Return what each source of a step is multiplied by."""
    if step.way == "slerp":
        return slerp_weights(products, step.shares[1])
    if step.way == "slerp-paper":
        return slerp_weights(products, step.shares[1], "paper")
    if step.way == "karcher":
        return karcher_weights(products, step.shares, "mergekit")
    return step.shares


def _in_row(weights: Weights, tensor: str, is_kept: bool, row: Array) -> Read:
    """Return what reads a tensor, as it is stored, into one row."""
    fill = _filler(weights, tensor, is_kept)

    def read(start: int, stop: int) -> Array:
        chunk = row[: stop - start]
        fill(start, chunk)
        return chunk

    return read


def _rounded(weights: Weights, tensor: str, is_kept: bool, rounded_to: str) -> Read:
    """Return what reads a tensor of any float dtype in order, rounded as asked for."""
    dtype = weights.tensors[tensor].dtype
    fill = _filler(weights, tensor, is_kept)

    def read(start: int, stop: int) -> Array:
        stored = np.empty(stop - start, STORED[dtype])
        fill(start, stored)
        wide = widen(stored, dtype)
        return wide if dtype == rounded_to else widen(narrow(wide, rounded_to), rounded_to)

    return read


def _filler(weights: Weights, tensor: str, is_kept: bool) -> Fill:
    """Return what fills arrays with a parent's tensor."""
    if isinstance(weights, StoredWeights):
        return lambda start, out: weights.fill(tensor, start, out)
    n_elements = math.prod(weights.tensors[tensor].shape)
    whole = weights.read(tensor, 0, n_elements) if is_kept else None

    def fill(start: int, out: Array) -> None:
        stop = start + len(out)
        out[:] = weights.read(tensor, start, stop) if whole is None else whole[start:stop]

    return fill


def _agreed(step: Step, buffers: Sequence[Array]) -> Array:
    """Return a buffer of whole numbers, which cannot be averaged."""
    if any(not np.array_equal(buffers[0], other) for other in buffers[1:]):
        parents = " and ".join(source.parent for source in step.sources)
        raise ModelError(
            f"wanted the same whole numbers in {step.name} of {parents}, found different ones; "
            "they cannot be averaged, so these models cannot be merged"
        )
    return buffers[0]


def _check_finite(step: Step, products: Array) -> None:
    for source, square in zip(step.sources, products.diagonal().tolist(), strict=True):
        if not math.isfinite(square):
            raise ModelError(
                f"wanted finite weights in {source.tensor} of {source.parent}, found NaN, infinite "
                f"or absurdly large ones (read as {step.rounded_to}); that model is damaged, use "
                "another"
            )


def _bound(shares: Sequence[float], products: Array) -> float:
    """Return what no merged weight exceeds: the lengths of the parents, each times its share.

    Healthy tensors stay so far below the largest number of any dtype that they need not be
    looked at weight by weight.
    """
    squares: list[float] = products.diagonal().tolist()
    return sum(abs(share) * math.sqrt(x) for share, x in zip(shares, squares, strict=True))


def _check_fits(step: Step, stored: Array) -> None:
    if not np.isfinite(widen(stored, step.info.dtype)).all():
        raise ModelError(
            f"wanted {step.name} in {step.info.dtype}, found merged weights too large for it; "
            "set out_dtype to bfloat16 or float32"
        )
