"""Errors over seeds: mean with its interval, and the difference of two rules on matched seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..stats import student

ROUNDING = 1e-12  # errors are multiples of 1/n: a spread below this is rounding


def over_seeds(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean over seeds with Student's 95 % interval; seeds without a finite value are left out and counted.

        mean +- t_{0.975, S-1} sd/sqrt(S),      sd with S - 1 in the denominator; one seed has no interval

    >>> found = over_seeds([1.0, 2.0, 3.0])
    >>> found["mean"], round(found["low"], 3), found["seeds"]
    (2.0, -0.484, 3)
    """
    sound = np.array([v for v in values if v is not None and np.isfinite(v)], float)
    count = len(sound)
    mean = float(np.mean(sound)) if count else None
    low = high = None
    if mean is not None and count > 1:
        _, half = student(sound)
        low, high = mean - half, mean + half
    return {"mean": mean, "low": low, "high": high, "seeds": count, "lost": len(values) - count}


def paired(first: Sequence[float | None], second: Sequence[float | None]) -> dict[str, Any]:
    """Second minus first, seed by seed, with its interval and a verdict in words.

    The two rules share weights at the start, minibatches and augmentation of each seed, so that the difference has
    less noise than either error. A difference is shown only where the interval excludes 0.

    >>> paired([0.10, 0.11, 0.12], [0.09, 0.099, 0.11])["verdict"]
    'lower error'
    >>> paired([0.10, 0.11], [0.11, 0.10])["verdict"]
    'no difference shown'
    """
    both = [
        (a, b)
        for a, b in zip(first, second, strict=True)
        if a is not None and b is not None and np.isfinite(a) and np.isfinite(b)
    ]
    found = over_seeds([b - a for a, b in both])
    if found["low"] is None:
        verdict = "one seed: no interval" if both else "no matched seeds"
    elif found["high"] - found["low"] < ROUNDING:
        verdict = "no spread over seeds: not judged"
    elif found["high"] < 0:
        verdict = "lower error"
    elif found["low"] > 0:
        verdict = "higher error"
    else:
        verdict = "no difference shown"
    return found | {"verdict": verdict}
