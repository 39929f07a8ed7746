"""The exact supremum over the head's KL ball, by duality: how tight the Rademacher bound of the ball is."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.special import ndtri

from ..errors import MfresnetError
from ..kernels.precision import check_rows, double_precision
from ..model import Activation
from .checks import check_count


@dataclass(frozen=True)
class Supremum:
    """A number with the error of the quadrature and sampling behind it.

    Args:
        value: the estimate.
        error: standard error over independent randomisations (and over sign vectors, for a Rademacher mean).
    """

    value: float
    error: float


def head_supremum(
    z: Any,
    signs: Any,
    radius: float,
    *,
    beta: float,
    sigma: Activation,
    bias: bool = True,
    samples: int = 4096,
    replicates: int = 8,
    seed: int = 0,
) -> Supremum:
    """sup { E_tau phi : KL(tau || tau_0) <= r } = min_{l>0} (r + log E_{tau_0} exp(l phi))/l.

    phi(omega) = (beta/n) sum_i eps_i a sigma0(w . z_i + b), theory section 8(a); Donsker and Varadhan (1975), equality
    because the tilted laws d tau ~ exp(l phi) d tau_0 attain it. The Gaussian a is integrated in closed form,
    E_a exp(l phi) = exp(l^2 beta^2 S(w, b)^2 / 2) with S = (1/n) sum_i eps_i sigma0(w . z_i + b); (w, b) by
    randomised quasi-Monte Carlo.

    Args:
        z: states at s = 1 (the inputs, at the start), shape (n, D).
        signs: eps, shape (n,) or (draws, n): with draws, the mean of the suprema (a Rademacher complexity).
        radius: r, in nats.
        samples: quadrature points of (w, b), a power of two.
        replicates: independent randomisations, for the error (at least 2).

    >>> from mfresnet.model import activation
    >>> exact = head_supremum(np.eye(4), np.array([1, -1, 1, -1]), 0.01, beta=1.0, sigma=activation("tanh"))
    >>> 0.03 < exact.value < 0.05, exact.error < 1e-4
    (True, True)
    """
    from scipy.stats import qmc  # a second to import, which no other command should wait for

    z = check_rows(z, "z")
    signs = np.atleast_2d(np.asarray(signs, np.float64))
    if signs.shape[-1] != len(z):
        raise MfresnetError(f"signs has {signs.shape[-1]} entries a row, but z has {len(z)} rows: give one per row.")
    if not (np.isfinite(radius) and radius >= 0):
        raise MfresnetError(f"the radius is {radius}: give a finite number >= 0.")
    replicates = check_count(replicates, 2, "replicates")
    power = check_count(samples, 2, "samples").bit_length() - 1
    if radius == 0:
        return Supremum(0.0, 0.0)
    values = np.empty((replicates, len(signs)))
    for k in range(replicates):
        sobol = qmc.Sobol(z.shape[1] + bias, rng=np.random.default_rng([seed, k])).random_base2(power)
        gauss = ndtri(np.clip(sobol, 2.0**-33, 1 - 2.0**-33))
        pre = gauss[:, : z.shape[1]] @ z.T + (gauss[:, -1:] if bias else 0.0)
        with double_precision():
            features = np.asarray(sigma(jnp.asarray(pre)))
        squares = (features @ signs.T / len(z)).T ** 2
        varies = squares.max(axis=1) > 0  # signs may cancel on equal inputs: then phi = 0
        values[k] = 0.0
        values[k, varies] = beta * _dual(squares[varies], radius)
    of_quadrature = values.mean(axis=1).std(ddof=1) / sqrt(replicates)
    of_signs = values.mean(axis=0).std(ddof=1) / sqrt(len(signs)) if len(signs) > 1 else 0.0
    return Supremum(float(values.mean()), float(np.hypot(of_quadrature, of_signs)))


def head_rademacher(
    z: Any,
    radius: float,
    *,
    beta: float,
    sigma: Activation,
    bias: bool = True,
    draws: int = 32,
    seed: int = 0,
    **options,
) -> Supremum:
    """Empirical Rademacher complexity of the head's KL ball: the mean of `head_supremum` over random signs.

    `rademacher_bound` with encoder radius 0 bounds it; their ratio is the tightness of that bound.

    >>> from mfresnet.bounds import rademacher_bound
    >>> from mfresnet.model import activation
    >>> exact = head_rademacher(np.eye(8), 0.1, beta=1.0, sigma=activation("tanh"), samples=1024, replicates=2)
    >>> bool(1 < rademacher_bound(0.1, 0.0, 8, alpha=1.0, beta=1.0) / exact.value < 2)
    True
    """
    n = len(check_rows(z, "z"))
    signs = np.random.default_rng([seed, 10**6]).choice([-1.0, 1.0], size=(check_count(draws, 2, "draws"), n))
    return head_supremum(z, signs, radius, beta=beta, sigma=sigma, bias=bias, seed=seed, **options)


def quadrature(n: int) -> int:
    """Points of (w, b) that keep the features of n inputs within 64 MB: at most 2048, at least 64.

    >>> quadrature(100), quadrature(60_000)
    (2048, 128)
    """
    return 2 ** int(np.clip((2**23 // n).bit_length() - 1, 6, 11))


def _dual(squares: np.ndarray, radius: float) -> np.ndarray:
    """min_u (r + log mean exp(u^2 S^2/2))/u for each row of S^2, shape (rows, samples).

    The minimum is where u Lambda'(u) - Lambda(u) = r (the KL of the tilted law), which increases in u.
    """

    def log_moment(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        exponent = 0.5 * u[:, None] ** 2 * squares
        top = exponent.max(axis=1)
        weight = np.exp(exponent - top[:, None])
        value = top + np.log(weight.mean(axis=1))
        return value, 2 * (weight * exponent).sum(axis=1) / weight.sum(axis=1)  # Lambda, u Lambda'

    # KL of the tilt <= u Lambda'(u) <= u^2 max S^2 and >= about u^2 mean S^2/2 bracket the root within this.
    low = np.zeros(len(squares))
    high = np.sqrt(2 * radius / np.maximum(squares.mean(axis=1), 1e-300))
    for _ in range(200):
        value, slope = log_moment(high)
        short = slope - value < radius
        if not short.any():
            break
        high = np.where(short, 2 * high, high)
    for _ in range(60):
        middle = 0.5 * (low + high)
        value, slope = log_moment(middle)
        short = slope - value < radius
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return (radius + log_moment(high)[0]) / high
