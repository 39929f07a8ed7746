"""Threads that keep the cores of a processor busy: XLA runs the small products of a loop on one of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import jax
import numpy as np

T = TypeVar("T")


def cores() -> int:
    """Processor cores this process may use; 1 where an accelerator does the work."""
    if jax.default_backend() != "cpu":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def spread(function: Callable[[Any], T], items: Sequence[Any] | np.ndarray, workers: int) -> list[T]:
    """The function of each item, on threads where there is more than one item and more than one worker.

    Whether JAX computes in float64 is a setting of each thread: theirs is the caller's.

    >>> spread(abs, [-1, 2], 2)
    [1, 2]
    """
    if workers == 1 or len(items) < 2:
        return [function(item) for item in items]
    wide = jax.dtypes.canonicalize_dtype(np.float64) == np.float64

    def alike(item: Any) -> T:
        with jax.enable_x64(wide):
            return function(item)

    with ThreadPoolExecutor(min(workers, len(items))) as pool:
        return list(pool.map(alike, items))
