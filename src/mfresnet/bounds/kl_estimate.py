"""An upper confidence limit of a KL divergence from the log-density ratios of probes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..diagnostics.estimate import Estimate
from ..errors import MfresnetError
from .checks import check_delta, check_values


@dataclass(frozen=True)
class KLEstimate:
    """KL = E[R] from probes.

    Args:
        value: the mean of R.
        stderr: its standard error.
        upper: one-sided upper limit (`Estimate.upper`). R is unbounded, so a certificate that uses it is estimated,
            not proved.
        normalisation: mean of exp(-R), 1 for exact log-densities.
        normalisation_stderr: its standard error.
    """

    value: float
    stderr: float
    upper: float
    normalisation: float
    normalisation_stderr: float


def kl_estimate(log_ratios: Any, delta: float) -> KLEstimate:
    """Mean and upper limit of the KL from R = log(tau_t/tau_0)(omega_t) of independent probes.

    The mean of exp(-R) - 1 + R has the same expectation, because E[exp(-R)] = 1, and a smaller variance for small KL.
    Its heavy tail makes confidence limits fail too often for KL above 0.1, so it is not used.

    Args:
        log_ratios: R, shape (P,) for the head, (L, P) for the encoder (layers are averaged; KL(nu || nu_0)).
        delta: failure probability of the upper limit.

    Raises:
        MfresnetError: fewer than 8 probes in all or 2 in a layer.

    >>> x = np.random.default_rng(0).normal(size=4000)  # N(1/2, 1) against N(0, 1): KL = 1/8
    >>> kl = kl_estimate(0.5 * x + 0.125, 0.05)
    >>> bool(abs(kl.value - 0.125) < 4 * kl.stderr), kl.value < kl.upper
    (True, True)
    """
    delta = check_delta(delta)
    if np.size(log_ratios) == 0:
        raise MfresnetError("there are no probes: train by a gradient flow with train.probes > 0 to measure the KL.")
    ratios = np.atleast_2d(check_values(log_ratios, "log_ratios"))
    if ratios.ndim != 2 or ratios.shape[-1] < 2 or ratios.size < 8:
        raise MfresnetError(
            f"log_ratios has shape {np.shape(log_ratios)}: give at least 8 probes in all and 2 in each layer."
        )
    with np.errstate(over="ignore"):
        normalisation = Estimate.of(np.exp(-ratios))
    kl = Estimate.of(ratios)
    return KLEstimate(kl.value, kl.stderr, max(0.0, kl.upper(delta)), normalisation.value, normalisation.stderr)
