"""Exact binomial confidence limits, and the held-out certificate: the comparator every bound has to face."""

from __future__ import annotations

import numpy as np
from scipy.special import betaincinv

from ..errors import MfresnetError
from .certificate import INDEPENDENT, Certificate, Hypothesis, build
from .checks import check_count, check_delta


def clopper_pearson(errors: int, n: int, delta: float) -> tuple[float, float]:
    """Two-sided limits of a binomial proportion that fail with probability at most delta (Clopper, Pearson 1934).

    Each side is the one-sided limit at delta/2: the upper one is sup { p : P(Bin(n, p) <= errors) > delta/2 }.

    >>> low, high = clopper_pearson(0, 100, 0.05)
    >>> round(low, 4), round(high, 4)
    (0.0, 0.0362)
    """
    return clopper_pearson_lower(errors, n, delta / 2), clopper_pearson_upper(errors, n, delta / 2)


def clopper_pearson_upper(errors: int, n: int, delta: float) -> float:
    """One-sided upper limit, sup { p : P(Bin(n, p) <= errors) >= delta }: the (1 - delta)-quantile of
    Beta(errors + 1, n - errors).

    >>> round(clopper_pearson_upper(5, 100, 0.05), 4)
    0.1023
    """
    errors, n, delta = _check(errors, n, delta)
    return 1.0 if errors == n else float(betaincinv(errors + 1, n - errors, 1 - delta))


def clopper_pearson_lower(errors: int, n: int, delta: float) -> float:
    """One-sided lower limit: the delta-quantile of Beta(errors, n - errors + 1)."""
    errors, n, delta = _check(errors, n, delta)
    return 0.0 if errors == 0 else float(betaincinv(errors, n - errors + 1, delta))


def held_out_certificate(
    errors: int,
    points: int,
    delta: float = 0.05,
    *,
    compared: int = 1,
    guessing: float = 0.5,
    certifies: str = "the predictor",
    name: str = "held_out",
    details: dict[str, float | int | str | None] | None = None,
) -> Certificate:
    """Error <= sup { p : P(Bin(m, p) <= k) >= delta/compared }, for k errors on m held-out points of any predictor.

    The exact one-sided binomial tail (Clopper and Pearson 1934; Langford 2005, Theorem 3.3), which fails with
    probability at most delta for the best of all predictors compared on these points. A randomised predictor is covered
    if it is drawn afresh for each point: k is then binomial too. The price is the m points, which training could have
    used.

    Args:
        errors: k.
        points: m, seen neither by training nor by tuning.
        delta: failure probability.
        compared: predictors whose errors on these points were looked at, this one included.
        guessing: error of the best constant guess, for the word "vacuous" (`Certificate`).
        certifies, name, details: as in `Certificate`.

    Raises:
        MfresnetError: errors that are no whole number between 0 and points, or a bad delta.

    >>> round(held_out_certificate(3, 280).value, 4), round(held_out_certificate(3, 280, compared=8).value, 4)
    (0.0275, 0.0376)
    """
    compared = check_count(compared, name="compared")
    if not 0 < guessing < 1:
        raise MfresnetError(f"guessing = {guessing} is not allowed: give an error rate between 0 and 1.")
    upper = clopper_pearson_upper(errors, points, check_delta(delta) / compared)
    rate = errors / points
    low, high = clopper_pearson(errors, points, delta)
    return build(
        name,
        {"held-out error": rate, "confidence": upper - rate},
        delta,
        (
            INDEPENDENT,
            Hypothesis(
                "neither training nor tuning saw the held-out points",
                "assumed",
                note="true of a split made before training, if nobody chose by the held-out error",
            ),
            Hypothesis("every predictor compared on these points is counted", "assumed", note=f"{compared} counted"),
            Hypothesis("the upper limit is the exact binomial one", "proved"),
        ),
        certifies,
        guessing=guessing,
        details={
            "n": int(points),
            "errors": int(errors),
            "compared": compared,
            "interval_low": low,
            "interval_high": high,
        }
        | (details or {}),
    )


def _check(errors: int, n: int, delta: float) -> tuple[int, int, float]:
    n, delta = check_count(n, name="points"), check_delta(delta)
    if not np.isfinite(errors) or not 0 <= errors <= n or errors != int(errors):
        raise MfresnetError(f"errors = {errors} is not allowed: give a whole number between 0 and points = {n}.")
    return int(errors), n, delta
