"""Work in a thread that ends with it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

__all__ = ["call_apart"]

P = ParamSpec("P")
T = TypeVar("T")


def call_apart(work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """Return what `work` returns, or raise what it raises; its thread is gone by then.

    A thread that computes with torch gets helpers of its own, which live as long as it does. Once
    all helpers together are more than the cores, GNU's OpenMP lets them sleep between any two
    products, and waking them takes longer than the product: with one idle thread that had embedded
    a sentence the language model made 15 tokens a second instead of 27. So whoever computes beside
    it now and then does so here.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work, *args, **named).result()
