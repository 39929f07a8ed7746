"""Checks of input that every bound shares."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import MfresnetError
from ..model import Activation


def check_delta(delta: float) -> float:
    """A failure probability strictly between 0 and 1.

    >>> check_delta(1.5)
    Traceback (most recent call last):
    mfresnet.errors.MfresnetError: delta = 1.5 is not allowed: give a probability between 0 and 1, such as 0.05.
    """
    value = float(delta)
    if not 0.0 < value < 1.0:
        raise MfresnetError(f"delta = {delta} is not allowed: give a probability between 0 and 1, such as 0.05.")
    return value


def check_count(n: int, least: int = 1, name: str = "n", why: str = "") -> int:
    """A whole number of at least ``least``.

    >>> check_count(5, 8)
    Traceback (most recent call last):
    mfresnet.errors.MfresnetError: n = 5 is not allowed: give a whole number >= 8.
    """
    try:
        value = int(n)
    except (TypeError, ValueError, OverflowError):
        value = least - 1
    if value < least or value != n:
        reason = f" ({why})" if why else ""
        raise MfresnetError(f"{name} = {n} is not allowed: give a whole number >= {least}{reason}.")
    return value


def check_points(n: int) -> int:
    """n >= 8, which the PAC-Bayes inequality of Maurer (2004) asks for; below, no bound says anything anyway.

    >>> check_points(400)
    400
    """
    return check_count(n, 8, why="the bounds need at least 8 data points")


def check_values(values: Any, name: str, *, low: float = -np.inf, high: float = np.inf) -> np.ndarray:
    """A non-empty float64 array of finite numbers between ``low`` and ``high``.

    >>> check_values([], "errors")
    Traceback (most recent call last):
    mfresnet.errors.MfresnetError: errors is empty: give at least one number.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise MfresnetError(f"{name} is empty: give at least one number.")
    if not np.all(np.isfinite(array)) or array.min() < low or array.max() > high:
        span = f"finite numbers between {low:g} and {high:g}" if np.isfinite([low, high]).any() else "finite numbers"
        raise MfresnetError(f"{name} has values between {array.min():g} and {array.max():g}: give {span}.")
    return array


def check_activation(sigma: Activation) -> Activation:
    """An activation with |sigma0| <= 1 and |sigma0'| <= 1, which the KL-ball bound rests on.

    >>> from mfresnet.model import activation
    >>> check_activation(activation("relu"))
    Traceback (most recent call last):
    mfresnet.errors.MfresnetError: the KL-ball bound needs |sigma0| <= 1 and |sigma0'| <= 1, but relu has bounds inf \
and 1: use tanh, erf, sigmoid or sin, or the PAC-Bayes certificate, which has no such hypothesis.
    """
    value, first = sigma.bounds[:2]
    if not (value <= 1.0 and first <= 1.0):
        raise MfresnetError(
            f"the KL-ball bound needs |sigma0| <= 1 and |sigma0'| <= 1, but {sigma.name} has bounds {value:g} and "
            f"{first:g}: use tanh, erf, sigmoid or sin, or the PAC-Bayes certificate, which has no such hypothesis."
        )
    return sigma
