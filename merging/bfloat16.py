"""Inner products and weighted sums of bfloat16 numbers as they are stored, in machine code.

numpy knows no bfloat16: it would widen, multiply, add and round in as many walks through memory.
Here a number is widened, used and rounded without leaving the processor, in blocks of 32. The
code is LLVM's own language (https://llvm.org/docs/LangRef.html), compiled for this processor
when first asked for, which takes 0.05 s. No two operations are fused and no order is left open,
so every processor finds the same bits.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from merging.numbers import Array
from orbweave.errors import ModelError, shown

__all__ = ["inner", "weighted_sum"]

BLOCK = 32
"""Numbers worked on at a time: two vectors of AVX-512, eight of SSE or Neon."""

_CODE = """
; The inner product of n > 0 numbers, a multiple of 32: products are summed in float32 within a
; row of 1024, each place of a block for itself, and in float64 between rows.
define double @inner(ptr %a, ptr %b, i64 %n) {
entry:
  br label %row
row:
  %start = phi i64 [0, %entry], [%stop, %row_end]
  %total = phi <32 x double> [zeroinitializer, %entry], [%new_total, %row_end]
  %next = add i64 %start, 1024
  %stop = call i64 @llvm.umin.i64(i64 %next, i64 %n)
  br label %block
block:
  %i = phi i64 [%start, %row], [%new_i, %block]
  %sum = phi <32 x float> [zeroinitializer, %row], [%new_sum, %block]
  %a_i = getelementptr i16, ptr %a, i64 %i
  %a_stored = load <32 x i16>, ptr %a_i, align 2
  %a_long = zext <32 x i16> %a_stored to <32 x i32>
  %a_bits = shl <32 x i32> %a_long, splat (i32 16)
  %x = bitcast <32 x i32> %a_bits to <32 x float>
  %b_i = getelementptr i16, ptr %b, i64 %i
  %b_stored = load <32 x i16>, ptr %b_i, align 2
  %b_long = zext <32 x i16> %b_stored to <32 x i32>
  %b_bits = shl <32 x i32> %b_long, splat (i32 16)
  %y = bitcast <32 x i32> %b_bits to <32 x float>
  %xy = fmul <32 x float> %x, %y
  %new_sum = fadd <32 x float> %sum, %xy
  %new_i = add i64 %i, 32
  %is_row = icmp ult i64 %new_i, %stop
  br i1 %is_row, label %block, label %row_end
row_end:
  %wide = fpext <32 x float> %new_sum to <32 x double>
  %new_total = fadd <32 x double> %total, %wide
  %is_more = icmp ult i64 %stop, %n
  br i1 %is_more, label %row, label %end
end:
  %all = call double @llvm.vector.reduce.fadd.v32f64(double 0.0, <32 x double> %new_total)
  ret double %all
}

; The sum of k > 0 parts, each times its weight, of n > 0 numbers, a multiple of 32, rounded to
; the nearest bfloat16, ties to even; written over the first part.
define void @weighted_sum(ptr %parts, ptr %weights, i64 %k, i64 %n) {
entry:
  %out = load ptr, ptr %parts
  br label %block
block:
  %i = phi i64 [0, %entry], [%new_i, %round]
  br label %part
part:
  %j = phi i64 [0, %block], [%new_j, %part]
  ; from -0, which changes no number it is added to, not even another -0
  %sum = phi <32 x float> [splat (float -0.0), %block], [%new_sum, %part]
  %at = getelementptr ptr, ptr %parts, i64 %j
  %part_j = load ptr, ptr %at
  %part_i = getelementptr i16, ptr %part_j, i64 %i
  %stored = load <32 x i16>, ptr %part_i, align 2
  %long = zext <32 x i16> %stored to <32 x i32>
  %bits = shl <32 x i32> %long, splat (i32 16)
  %x = bitcast <32 x i32> %bits to <32 x float>
  %weight_j = getelementptr float, ptr %weights, i64 %j
  %weight = load float, ptr %weight_j
  %one = insertelement <32 x float> poison, float %weight, i64 0
  %w = shufflevector <32 x float> %one, <32 x float> poison, <32 x i32> zeroinitializer
  %wx = fmul <32 x float> %w, %x
  %new_sum = fadd <32 x float> %sum, %wx
  %new_j = add i64 %j, 1
  %is_part = icmp ult i64 %new_j, %k
  br i1 %is_part, label %part, label %round
round:
  %exact = bitcast <32 x float> %new_sum to <32 x i32>
  %upper = lshr <32 x i32> %exact, splat (i32 16)
  %odd = and <32 x i32> %upper, splat (i32 1)
  %half = add <32 x i32> %odd, splat (i32 32767)
  %near = add <32 x i32> %exact, %half
  %rounded = lshr <32 x i32> %near, splat (i32 16)
  %result = trunc <32 x i32> %rounded to <32 x i16>
  %out_i = getelementptr i16, ptr %out, i64 %i
  store <32 x i16> %result, ptr %out_i, align 2
  %new_i = add i64 %i, 32
  %is_more = icmp ult i64 %new_i, %n
  br i1 %is_more, label %block, label %end
end:
  ret void
}

declare i64 @llvm.umin.i64(i64, i64)
declare double @llvm.vector.reduce.fadd.v32f64(double, <32 x double>)
"""


_TURN = threading.Lock()
"""Whoever holds it may compile."""


class _Compiled(NamedTuple):
    inner: Callable[[int, int, int], float]
    weighted_sum: Callable[[object, object, int, int], None]
    owner: object
    """The code goes when this does: whoever calls holds the whole tuple."""


def inner(a: Array, b: Array) -> float:
    """Return the inner product of two vectors; infinite or not a number if it overflows.

    Args:
        a: Bits of bfloat16, shape (n,), contiguous; not changed.
        b: Likewise.

    Raises:
        ModelError: the machine code cannot be made here.
    """
    compiled = _once_compiled()

    def product(x: Array, y: Array) -> float:
        place_x, place_y = _addresses([x, y])
        return compiled.inner(place_x, place_y, len(x))

    total, whole = 0.0, len(a) - len(a) % BLOCK
    if whole:
        total = product(a[:whole], b[:whole])
    if whole < len(a):
        total += product(_filled(a[whole:]), _filled(b[whole:]))
    return total


def weighted_sum(parts: Sequence[Array], weights: Sequence[float]) -> Array:
    """Return the sum of vectors, each times its weight, summed in float32 and then rounded.

    Rounded to the nearest bfloat16, ties to even. What is too large for its dtype becomes
    infinite: a product or a sum on the way, in float32, or the result. Two such of opposite
    signs leave no number (NaN), even if the exact sum is small.

    Args:
        parts: Bits of bfloat16, shape (n,) each, contiguous, none of them NaN. The first is
            written over: the result lies in it.
        weights: One per part.

    Raises:
        ModelError: the machine code cannot be made here.
    """
    compiled = _once_compiled()
    first, factors = parts[0], (ctypes.c_float * len(weights))(*weights)
    whole = len(first) - len(first) % BLOCK

    def add(blocks: Sequence[Array]) -> None:
        places = (ctypes.c_void_p * len(blocks))(*_addresses(blocks))
        compiled.weighted_sum(places, factors, len(blocks), len(blocks[0]))

    if whole:
        add([part[:whole] for part in parts])
    if whole < len(first):
        rests = [_filled(part[whole:]) for part in parts]
        add(rests)
        first[whole:] = rests[0][: len(first) - whole]
    return first


def _once_compiled() -> _Compiled:
    """Return the code, compiled by the first thread that asks; the others wait.

    Raises:
        ModelError: it cannot be made here.
    """
    with _TURN:
        try:
            return _compiled()
        except (ImportError, OSError, RuntimeError) as err:
            raise ModelError(
                f"wanted to compile the sums of bfloat16 weights, found {shown(err, 200)}; "
                "install llvmlite again, or set dtype: float32 and out_dtype: bfloat16 in the "
                "recipe"
            ) from err


@cache
def _compiled() -> _Compiled:
    import llvmlite.binding as llvm

    _check_may_run()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=1
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(_CODE), machine)
    engine.finalize_object()
    place, n = ctypes.c_void_p, ctypes.c_int64
    # Called so, they let other Python threads run meanwhile.
    return _Compiled(
        ctypes.CFUNCTYPE(ctypes.c_double, place, place, n)(engine.get_function_address("inner")),
        ctypes.CFUNCTYPE(None, place, place, n, n)(engine.get_function_address("weighted_sum")),
        engine,
    )


def _check_may_run() -> None:
    """Check that memory can be made executable; LLVM does not, and running the code then crashes.

    Raises:
        OSError: the system forbids it, as some hardened ones do.
    """
    if sys.platform != "linux":
        return
    page = mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    place = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    size, use = ctypes.c_size_t(mmap.PAGESIZE), mmap.PROT_READ | mmap.PROT_EXEC
    if ctypes.CDLL(None).mprotect(place, size, use):
        raise OSError("the system forbids programs to run code they have made")


def _addresses(parts: Sequence[Array]) -> list[int]:
    """Return where vectors lie that the code may go through."""
    assert all(part.dtype == np.uint16 and part.flags.c_contiguous for part in parts)
    assert all(part.shape == parts[0].shape for part in parts)
    return [part.ctypes.data for part in parts]


def _filled(rest: Array) -> Array:
    """Return a block that begins with `rest` and ends in zeros."""
    return np.pad(rest, (0, BLOCK - len(rest)))
