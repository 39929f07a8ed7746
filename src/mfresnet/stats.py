"""Fits of power laws with their uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit


@dataclass(frozen=True)
class PowerLaw:
    """y = exp(intercept) x^slope, by least squares of log y on log x.

    Args:
        slope, intercept: of the line in natural logarithms.
        stderr: standard error of the slope under independent, equal errors of log y; NaN for two points.
        p: two-sided p-value of "the slope is 0" (Student's t with k - 2 degrees of freedom).
        points: k.
    """

    slope: float
    intercept: float
    stderr: float
    p: float
    points: int

    def __call__(self, x: np.ndarray | float) -> np.ndarray:
        return np.exp(self.intercept) * np.asarray(x, float) ** self.slope

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Student's interval of the slope."""
        half = float(stdtrit(max(self.points - 2, 1), 0.5 + level / 2)) * self.stderr
        return self.slope - half, self.slope + half


def power_law(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> PowerLaw:
    """The power law of positive points; NaN where there are fewer than two different x.

    >>> fit = power_law([1, 2, 4, 8], [3, 1.5, 0.75, 0.375])
    >>> round(fit.slope, 12), fit.points
    (-1.0, 4)
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if len(np.unique(x)) < 2:
        return PowerLaw(np.nan, np.nan, np.nan, np.nan, len(x))
    u, v = np.log(x), np.log(y)
    spread = float(np.sum((u - u.mean()) ** 2))
    slope = float(np.sum((u - u.mean()) * (v - v.mean())) / spread)
    intercept = float(v.mean() - slope * u.mean())
    free = len(x) - 2
    if free < 1:
        return PowerLaw(slope, intercept, np.nan, np.nan, len(x))
    stderr = float(np.sqrt(np.sum((v - intercept - slope * u) ** 2) / free / spread))
    p = float(2 * stdtr(free, -abs(slope) / stderr)) if stderr > 0 else 0.0
    return PowerLaw(slope, intercept, stderr, p, len(x))


def bootstrap(
    statistic: Callable[[np.ndarray], float], units: int, draws: int, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of a statistic under resampling of ``units`` independent units.

    Args:
        statistic: of the places of the chosen units, shape (units,); NaN is left out.

    Returns:
        The interval; (NaN, NaN) for a single unit, which says nothing about its own spread.

    >>> values = np.arange(100.0)
    >>> low, high = bootstrap(lambda chosen: float(values[chosen].mean()), 100, 1000)
    >>> 40 < low < 49.5 < high < 59
    True
    """
    if units < 2:
        return np.nan, np.nan
    rng = np.random.default_rng(seed)
    found = np.array([statistic(rng.integers(units, size=units)) for _ in range(draws)])
    return percentiles(found, level)


def percentiles(values: Sequence[float] | np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The middle share ``level`` of the finite values, (NaN, NaN) where there are none.

    >>> percentiles([*range(101), float("nan")], level=0.5)
    (25.0, 75.0)
    """
    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return np.nan, np.nan
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def student(values: Sequence[float] | np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Mean of independent values and the half-width of Student's interval (NaN for a single one).

    >>> mean, half = student([1.0, 2.0, 3.0])
    >>> mean, round(half, 3)
    (2.0, 2.484)
    """
    values = np.asarray(values, float)
    if len(values) < 2:
        return float(values.mean()) if len(values) else float("nan"), float("nan")
    half = stdtrit(len(values) - 1, 0.5 + level / 2) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(half)


def finite(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """The finite ones among the values."""
    values = np.asarray(values, float)
    return values[np.isfinite(values)]


def paired_differences(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> np.ndarray:
    """second - first, pair by pair, of the pairs in which both are finite (None counts as not finite).

    >>> paired_differences([1.0, None, 3.0], [1.5, 2.0, 2.0])
    array([ 0.5, -1. ])
    """
    return finite(np.asarray(second, float) - np.asarray(first, float))


ROUNDING = 1e-12  # shares are multiples of 1/n: a spread below this is rounding


def mean_interval(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean over seeds with Student's 95 % interval; seeds without a finite value are left out and counted.

        mean +- t_{0.975, S-1} sd/sqrt(S),      sd with S - 1 in the denominator; one seed has no interval

    >>> errors = mean_interval([1.0, 2.0, 3.0])
    >>> errors["mean"], round(errors["low"], 3), errors["seeds"]
    (2.0, -0.484, 3)
    """
    known = finite(np.array(values, float))
    mean, half = student(known)
    low, high = (mean - half, mean + half) if len(known) > 1 else (None, None)
    return {
        "mean": mean if len(known) else None,
        "low": low,
        "high": high,
        "seeds": len(known),
        "lost": len(values) - len(known),
    }


def paired_difference(first: Sequence[float | None], second: Sequence[float | None]) -> dict[str, Any]:
    """Second minus first, seed by seed, with its interval and a verdict in words.

    Where two methods share what a seed draws, the difference has less noise than either error. It is called a
    difference only where the interval excludes 0.

    >>> paired_difference([0.10, 0.11, 0.12], [0.09, 0.099, 0.11])["verdict"]
    'lower error'
    >>> paired_difference([0.10, 0.11], [0.11, 0.10])["verdict"]
    'no difference shown'
    """
    differences = paired_differences(np.array(first, float), np.array(second, float))
    result = mean_interval(differences.tolist())
    if result["low"] is None:
        verdict = "one seed: no interval" if len(differences) else "no matched seeds"
    elif result["high"] - result["low"] < ROUNDING:
        verdict = "no spread over seeds: not judged"
    elif result["high"] < 0:
        verdict = "lower error"
    elif result["low"] > 0:
        verdict = "higher error"
    else:
        verdict = "no difference shown"
    return result | {"verdict": verdict}
