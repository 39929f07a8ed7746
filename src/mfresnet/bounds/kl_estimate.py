"""An upper confidence limit of a KL divergence from the log-density ratios of probes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from ..errors import MfresnetError
from .checks import checked_delta, checked_values

METHODS = ("mean", "nonnegative", "control")


@dataclass(frozen=True)
class KLEstimate:
    """KL = E[R] from probes.

    Args:
        value: the estimate.
        stderr: its standard error.
        upper: one-sided upper limit, value + t stderr. R is unbounded, so this is a normal approximation: a
            certificate that uses it is estimated, not proved.
        check: mean of exp(-R), 1 for exact log-densities.
        check_stderr: its standard error.
    """

    value: float
    stderr: float
    upper: float
    check: float
    check_stderr: float


def kl_estimate(log_ratios: Any, delta: float, *, method: str = "control") -> KLEstimate:
    """Mean and upper limit of the KL from R = log(tau_t/tau_0)(omega_t) of independent probes.

    Theory, section 7. All three methods are unbiased, because E[exp(-R)] = 1:
    "mean" is the mean of R; "nonnegative" of exp(-R) - 1 + R, sharp for small movements and heavy-tailed for
    large ones; "control" of R + c (exp(-R) - 1) with the best c in [0, 1], fitted on the other half of the probes so
    that it stays unbiased. The method is chosen before looking: taking the smaller of two estimates is not unbiased.

    Args:
        log_ratios: R, shape (P,) for the head, (L, P) for the encoder (layers are averaged; KL(nu || nu_0)).
        delta: failure probability of the upper limit.

    Raises:
        MfresnetError: fewer than 8 probes in all or 2 in a layer, or an unknown method.

    >>> x = np.random.default_rng(0).normal(size=4000)  # N(1/2, 1) against N(0, 1): KL = 1/8
    >>> found = kl_estimate(0.5 * x + 0.125, 0.05)
    >>> bool(abs(found.value - 0.125) < 4 * found.stderr), found.value < found.upper
    (True, True)
    """
    delta = checked_delta(delta)
    if np.size(log_ratios) == 0:
        raise MfresnetError("there are no probes: train by a gradient flow with train.probes > 0 to measure the KL.")
    ratios = np.atleast_2d(checked_values(log_ratios, "log_ratios"))
    layers, probes = ratios.shape[0], ratios.shape[-1]
    if ratios.ndim != 2 or probes < 2 or ratios.size < 8:
        raise MfresnetError(
            f"log_ratios has shape {np.shape(log_ratios)}: give at least 8 probes in all and 2 in each layer."
        )
    if method not in METHODS:
        raise MfresnetError(f"method = {method!r} is not allowed: give one of {', '.join(METHODS)}.")
    with np.errstate(over="ignore"):
        weight = np.exp(-ratios)
    values = ratios + _coefficient(ratios, weight, method) * (weight - 1) if method != "mean" else ratios
    value, stderr = _stratified(values)
    quantile = float(stdtrit(layers * (probes - 1), 1 - delta))
    check, check_stderr = _stratified(weight)
    return KLEstimate(value, stderr, max(0.0, value + quantile * stderr), check, check_stderr)


def _coefficient(ratios: np.ndarray, weight: np.ndarray, method: str) -> np.ndarray | float:
    if method == "nonnegative":
        return 1.0
    coefficient = np.empty_like(ratios)
    even = np.arange(ratios.shape[-1]) % 2 == 0
    for half in (even, ~even):
        other_r, other_w = ratios[:, ~half], weight[:, ~half]
        if other_r.shape[-1] < 2:
            coefficient[:, half] = 1.0
            continue
        r, w = (v - v.mean(axis=-1, keepdims=True) for v in (other_r, other_w))
        spread = np.mean(w * w)
        best = -np.mean(r * w) / spread if np.isfinite(spread) and spread > 0 else 0.0
        coefficient[:, half] = np.clip(best, 0.0, 1.0)
    return coefficient


def _stratified(values: np.ndarray) -> tuple[float, float]:
    """Mean over layers of the means over probes, and its standard error."""
    layers, probes = values.shape
    return float(values.mean()), float(np.sqrt(values.var(axis=-1, ddof=1).sum() / probes) / layers)
