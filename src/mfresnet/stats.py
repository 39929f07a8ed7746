"""Fits, intervals and tests over independent values: seeds, draws of the data, probes.

SciPy does the statistics; it is imported where it is used, as loading it takes half a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

Values = Sequence[float | None] | np.ndarray


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
        half = student_quantile(self.points - 2, level) * self.stderr
        return self.slope - half, self.slope + half


def power_law(x: Values, y: Values) -> PowerLaw:
    """The power law of positive points; NaN where there are fewer than two different x.

    >>> fit = power_law([1, 2, 4, 8], [3, 1.5, 0.75, 0.375])
    >>> round(fit.slope, 12), fit.points
    (-1.0, 4)
    """
    from scipy.stats import linregress

    u, v = np.log(np.asarray(x, float)), np.log(np.asarray(y, float))
    if len(np.unique(u)) < 2:
        return PowerLaw(np.nan, np.nan, np.nan, np.nan, len(u))
    line: Any = linregress(u, v)
    stderr, p = (line.stderr, line.pvalue) if len(u) > 2 else (np.nan, np.nan)
    return PowerLaw(float(line.slope), float(line.intercept), float(stderr), float(p), len(u))


def student_quantile(freedom: int, level: float = 0.95) -> float:
    """t with P(|T| <= t) = ``level`` for Student's T; NaN without a degree of freedom.

    >>> round(student_quantile(2), 3)
    4.303
    """
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + level / 2)) if freedom > 0 else float("nan")


def student(values: Values, level: float = 0.95) -> tuple[float, float]:
    """Mean of independent values and the half-width of Student's interval (NaN for a single one).

    >>> mean, half = student([1.0, 2.0, 3.0])
    >>> mean, round(half, 3)
    (2.0, 2.484)
    """
    values = np.asarray(values, float)
    if len(values) < 2:
        return float(values.mean()) if len(values) else float("nan"), float("nan")
    half = student_quantile(len(values) - 1, level) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(half)


def finite_values(values: Values) -> np.ndarray:
    """The finite ones among the values."""
    values = np.asarray(values, float)
    return values[np.isfinite(values)]


def paired_differences(first: Values, second: Values) -> np.ndarray:
    """second - first, pair by pair, of the pairs in which both are finite (None counts as not finite).

    >>> paired_differences([1.0, None, 3.0], [1.5, 2.0, 2.0])
    array([ 0.5, -1. ])
    """
    return finite_values(np.asarray(second, float) - np.asarray(first, float))


def equivalence(values: Values, target: float, margin: float, *, level: float = 0.95, tests: int = 1) -> bool | None:
    """Whether the mean of the law the values come from lies within ``margin`` of ``target``, by Student's t.

    Two one-sided tests (Schuirmann 1987): True where both "mean <= target - margin" and "mean >= target + margin" are
    rejected at level 1 - ``level``, which is where the interval of confidence 2 ``level`` - 1 lies inside
    target +- margin. False where one-sided tests at level (1 - ``level``) / ``tests`` show the mean outside. None where
    the values decide neither, or are fewer than two.

    Args:
        tests: how many means are judged together. "All lie inside" needs no correction; "one lies outside" does.

    >>> equivalence([0.98, 1.0, 1.01], 1.0, 0.1), equivalence([0.5, 0.52, 0.51], 1.0, 0.1)
    (True, False)
    >>> equivalence([0.5, 1.5], 1.0, 0.1) is None
    True
    """
    mean, half = student(values, 2 * level - 1)
    if abs(mean - target) + half < margin:
        return True
    _, wide = student(values, 1 - 2 * (1 - level) / tests)
    return False if abs(mean - target) - wide > margin else None


def jackknife(statistic: Callable[[np.ndarray], float | np.ndarray], units: int) -> np.ndarray:
    """Pseudo-values S T - (S - 1) T_(-s) of a statistic T of S independent units (Tukey 1958).

    Their mean is T with its bias of order 1/S removed; `student` of them is its interval.

    Args:
        statistic: a number or an array, of the places of the units that are used.

    >>> values = np.array([1.0, 2.0, 4.0])
    >>> jackknife(lambda used: values[used].mean(), 3)  # of a mean: the values themselves
    array([1., 2., 4.])
    """
    every = np.arange(units)
    whole = statistic(every)
    return np.array([units * whole - (units - 1) * statistic(np.delete(every, unit)) for unit in every])


def explained_share(values: ArrayLike, explained: ArrayLike) -> float:
    """1 - |values - explained|^2 / |values|^2, over all entries; NaN where all values are 0.

    >>> explained_share([1.0, 2.0], [1.0, 1.0])
    0.8
    """
    values, explained = np.asarray(values, np.float64), np.asarray(explained, np.float64)
    scale = float(np.sum(values**2))
    return float(1 - np.sum((values - explained) ** 2) / scale) if scale > 0 else float("nan")


ROUNDING = 1e-12  # shares are multiples of 1/n: a spread below this is rounding


def mean_interval(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean over seeds with Student's 95 % interval; seeds without a finite value are left out and counted.

        mean +- t_{0.975, S-1} sd/sqrt(S),      sd with S - 1 in the denominator; one seed has no interval

    >>> errors = mean_interval([1.0, 2.0, 3.0])
    >>> errors["mean"], round(errors["low"], 3), errors["seeds"]
    (2.0, -0.484, 3)
    """
    known = finite_values(np.array(values, float))
    mean, half = student(known)
    low, high = (mean - half, mean + half) if len(known) > 1 else (None, None)
    return {
        "mean": mean if len(known) else None,
        "low": low,
        "high": high,
        "seeds": len(known),
        "lost": len(values) - len(known),
    }


def compare_pairs(first: Sequence[float | None], second: Sequence[float | None]) -> dict[str, Any]:
    """Second minus first, seed by seed, with its interval and a verdict in words.

    Where two methods share what a seed draws, the difference has less noise than either error. It is called a
    difference only where the interval excludes 0.

    >>> compare_pairs([0.10, 0.11, 0.12], [0.09, 0.099, 0.11])["verdict"]
    'lower error'
    >>> compare_pairs([0.10, 0.11], [0.11, 0.10])["verdict"]
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
