"""The binary relative entropy kl(q || p) and its inverses in p, in which sharp tail bounds are stated."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import MfresnetError

HALVINGS = 64  # of an interval shorter than 1: the root is then exact to rounding


def kl_bernoulli(q: Any, p: Any) -> np.ndarray:
    """kl(q || p) = q log(q/p) + (1 - q) log((1-q)/(1-p)), with 0 log 0 = 0.

    Written in p - q, so that its size (p - q)^2 / (2 q (1-q)) for close q and p is not lost to rounding.

    >>> round(float(kl_bernoulli(0.0, 0.5)), 6)
    0.693147
    >>> kl_bernoulli([0.2, 0.2], [0.2, 1.0])
    array([ 0., inf])
    """
    q, p = np.broadcast_arrays(_probability(q, "q"), _probability(p, "p"))
    return _kl(q, p - q)


def kl_inverse_upper(q: Any, c: Any) -> np.ndarray:
    """sup { p : kl(q || p) <= c }, to rounding (bisection inside Pinsker's interval, all entries at once).

    The end of the last interval that lies above the root is returned, so that a bound stays a bound.

    Args:
        q: probabilities.
        c: numbers >= 0, ``inf`` allowed.

    >>> kl_inverse_upper([0.0, 0.1, 1.0, 0.3], [0.1, 0.0, 0.5, np.inf]).round(4)
    array([0.0952, 0.1   , 1.    , 1.    ])
    """
    q, c = np.broadcast_arrays(_probability(q, "q"), _budget(c))
    low, high = np.zeros(q.shape), np.minimum(1.0 - q, np.sqrt(c / 2))  # Pinsker: kl >= 2 (p - q)^2
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        inside = _kl(q, middle) <= c
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    solved = np.minimum(q + high, 1.0)
    solved = np.where(q == 0.0, -np.expm1(-c), solved)
    solved = np.where(c == np.inf, 1.0, np.where(c == 0.0, q, solved))
    return np.asarray(np.where(q == 1.0, 1.0, solved))


def kl_inverse_lower(q: Any, c: Any) -> np.ndarray:
    """inf { p : kl(q || p) <= c } = 1 - sup { p : kl(1-q || p) <= c }.

    >>> kl_inverse_lower([0.0, 0.1, 1.0, 0.3], [0.1, 0.0, 0.5, np.inf]).round(4)
    array([0.    , 0.1   , 0.6065, 0.    ])
    """
    q, c = np.broadcast_arrays(_probability(q, "q"), _budget(c))
    # 1 - (1 - q) may exceed q by rounding, and the lower end never does
    return np.where(c == 0.0, q, np.clip(1.0 - kl_inverse_upper(1.0 - q, c), 0.0, q))


def _kl(q: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """kl(q || q + gap)."""
    rest = 1.0 - q
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # gap/q overflows for the smallest q; far apart, the difference of the logarithms is exact enough
        far = q * (np.log(q) - np.log(q + gap))
        near = -q * np.log1p(gap / np.where(q > 0, q, 1.0))
        on_one = np.where(q > 0, np.where(gap > q, far, near), 0.0)
        on_zero = np.where(rest > 0, -rest * np.log1p(-gap / np.where(rest > 0, rest, 1.0)), 0.0)
    return np.maximum(on_one + on_zero, 0.0)


def _probability(values: Any, name: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if not np.all((array >= 0) & (array <= 1)):
        raise MfresnetError(f"{name} has a value outside [0, 1]: give probabilities.")
    return array


def _budget(values: Any) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if not np.all(array >= 0):
        raise MfresnetError("c has a negative or undefined value: give numbers >= 0 (inf is allowed).")
    return array
