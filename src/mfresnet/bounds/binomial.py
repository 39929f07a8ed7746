"""Exact binomial confidence limits, and the held-out certificate: the comparator every bound has to face."""

from __future__ import annotations

import numpy as np
from scipy.special import betaincinv

from ..errors import MfresnetError
from .certificate import INDEPENDENT, Certificate, Hypothesis, build
from .checks import checked_count, checked_delta


def clopper_pearson(mistakes: int, n: int, delta: float) -> tuple[float, float]:
    """Two-sided limits of a binomial proportion that fail with probability at most delta (Clopper, Pearson 1934).

    Each side is the one-sided limit at delta/2: the upper one is sup { p : P(Bin(n, p) <= mistakes) > delta/2 }.

    >>> low, high = clopper_pearson(0, 100, 0.05)
    >>> round(low, 4), round(high, 4)
    (0.0, 0.0362)
    """
    return clopper_pearson_lower(mistakes, n, delta / 2), clopper_pearson_upper(mistakes, n, delta / 2)


def clopper_pearson_upper(mistakes: int, n: int, delta: float) -> float:
    """One-sided upper limit: the (1 - delta)-quantile of Beta(mistakes + 1, n - mistakes).

    >>> round(clopper_pearson_upper(5, 100, 0.05), 4)
    0.1023
    """
    mistakes, n, delta = _checked(mistakes, n, delta)
    return 1.0 if mistakes == n else float(betaincinv(mistakes + 1, n - mistakes, 1 - delta))


def clopper_pearson_lower(mistakes: int, n: int, delta: float) -> float:
    """One-sided lower limit: the delta-quantile of Beta(mistakes, n - mistakes + 1)."""
    mistakes, n, delta = _checked(mistakes, n, delta)
    return 0.0 if mistakes == 0 else float(betaincinv(mistakes, n - mistakes + 1, delta))


def held_out_certificate(mistakes: int, n: int, delta: float = 0.05, *, chance: float = 0.5) -> Certificate:
    """The error on n points that training and tuning never saw, with its exact one-sided binomial limit.

    Its price is the n points, which training could have used.

    >>> round(held_out_certificate(4, 169).value, 4)
    0.0533
    """
    upper = clopper_pearson_upper(mistakes, n, delta)
    rate = mistakes / n
    low, high = clopper_pearson(mistakes, n, delta)
    return build(
        "held_out",
        {"test error": rate, "confidence": upper - rate},
        delta,
        (
            INDEPENDENT,
            Hypothesis(
                "neither training nor tuning saw the test points",
                "assumed",
                note="true of a split made before training, if nobody chose by the test error",
            ),
            Hypothesis("the upper limit is the exact binomial one", "proved"),
        ),
        "the network as trained",
        chance=chance,
        details={"n": int(n), "mistakes": int(mistakes), "interval_low": low, "interval_high": high},
    )


def _checked(mistakes: int, n: int, delta: float) -> tuple[int, int, float]:
    n = checked_count(n, 1)
    delta = checked_delta(delta)
    if not np.isfinite(mistakes) or not 0 <= mistakes <= n or mistakes != int(mistakes):
        raise MfresnetError(f"mistakes = {mistakes} is not allowed: give a whole number between 0 and n = {n}.")
    return int(mistakes), n, delta
