"""Distances between laws from samples: Wasserstein-2, and a nearest-neighbour estimate of KL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import lgamma, log, pi
from typing import Any

import numpy as np
from scipy.special import digamma

from ..errors import MfresnetError
from ..kernels.precision import check_rows, double_precision


def wasserstein2(a: Any, b: Any, *, method: str = "exact", regularisation: float = 1e-2) -> float:
    """W2 between two samples: the square root of the least mean squared distance over pairings.

        W2^2 = min_pi 1/n sum_i |a_i - b_pi(i)|^2

    (Talagrand: W2^2 <= 2 KL to a standard Gaussian). The exact distance of the *samples*; between the
    laws they come from it is biased upwards, by about n^{-1/d} in dimension d, and not zero for two samples of one law.

    Args:
        a, b: samples, shape (n, d); "exact" needs equally many.
        method: "exact" (optimal assignment, time n^3: 2000 points take seconds), or "sinkhorn" (debiased,
            by the package ott, for large or unequal samples; approximate).
        regularisation: of "sinkhorn", relative to the mean squared distance.

    Raises:
        MfresnetError: unequal sizes, different widths, NaN or infinite entries, ott not installed.

    >>> wasserstein2([[0.0], [1.0]], [[2.0], [1.0]])
    1.0
    """
    a = check_rows(a, "a")
    b = check_rows(b, "b", columns=a.shape[1])
    if method == "sinkhorn":
        return _sinkhorn(a, b, regularisation)
    if method != "exact":
        raise MfresnetError(f"method = {method!r} is not allowed: give one of exact, sinkhorn.")
    if len(a) != len(b):
        raise MfresnetError(
            f"the samples have {len(a)} and {len(b)} rows: give equally many, or use method 'sinkhorn'."
        )
    from scipy.optimize import linear_sum_assignment  # not loaded by every command

    cost = _squared_distances(a, b)
    return float(np.sqrt(cost[linear_sum_assignment(cost)].mean()))


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    from scipy.spatial.distance import cdist

    return cdist(a, b, "sqeuclidean")


def _sinkhorn(a: np.ndarray, b: np.ndarray, regularisation: float) -> float:
    if not regularisation > 0:
        raise MfresnetError(f"regularisation = {regularisation} is not allowed: give a value > 0.")
    try:
        from ott.geometry import pointcloud  # pyright: ignore[reportMissingImports]
        from ott.tools import sinkhorn_divergence  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MfresnetError(
            "method 'sinkhorn' needs the package ott-jax: install mfresnet[transport], or use method 'exact'."
        ) from error
    with double_precision():
        scale = float(_squared_distances(a[:1000], b[:1000]).mean()) or 1.0
        solution = sinkhorn_divergence.sinkhorn_divergence(pointcloud.PointCloud, a, b, epsilon=regularisation * scale)
        return float(np.sqrt(max(float(solution[0]), 0.0)))


@dataclass(frozen=True)
class KnnKl:
    """A nearest-neighbour estimate of KL.

    Args:
        value: the estimate, in nats.
        standard_error: of its mean over samples; it does not contain the bias.
        neighbours: k.
        message: that it is biased, and which way.
    """

    value: float
    standard_error: float
    neighbours: int
    message: str = "biased: nearest-neighbour estimates of KL are low, more so in high dimension"


def knn_kl(samples: Any, reference: Callable[[np.ndarray], Any] | Any, *, neighbours: int = 4) -> KnnKl:
    """Nearest-neighbour estimate of KL(p || q), biased low (seen: 0.98 for 1.25 at d = 10).

    With q a density (Kozachenko & Leonenko 1987), and with q a sample of m points (Wang, Kulkarni & Verdu 2009):

        -1/n sum_i log q(p_i) - H,   H = psi(n) - psi(k) + log c_d + d/n sum_i log rho_i
        d/n sum_i log(nu_i / rho_i) + log(m / (n - 1))

    rho_i (nu_i) being the distance of p_i to its k-th neighbour among the other p (among q), and c_d the
    volume of the unit ball. For updates that are no flow, where the exact value along the flow does not
    exist; elsewhere prefer probe particles.

    Args:
        samples: of p, shape (n, d).
        reference: log density of q, a function of rows (n, d) -> (n,), or a sample of q, shape (m, d).
        neighbours: k.

    Raises:
        MfresnetError: fewer than k + 1 samples, equal rows (whose distance 0 has no logarithm), NaN.

    >>> samples = np.random.default_rng(0).normal(size=(2000, 1)) + 1.0
    >>> standard = lambda x: -0.5 * (x**2).sum(axis=1) - 0.5 * np.log(2 * np.pi) * x.shape[1]
    >>> abs(knn_kl(samples, standard).value - 0.5) < 0.1
    True
    """
    p = check_rows(samples, "samples")
    n, d = p.shape
    if neighbours < 1 or n < neighbours + 1:
        raise MfresnetError(f"neighbours = {neighbours} is not allowed with {n} samples: give 1 to {n - 1}.")
    from scipy.spatial import KDTree

    distance, index = map(np.asarray, KDTree(p).query(p, neighbours + 1))
    own = distance[:, -1]
    if not own.all():
        row = int(np.argmin(own))
        twin = next(int(k) for k in index[row] if k != row)
        raise MfresnetError(
            f"rows {row} and {twin} of samples are equal: remove repeated rows, or give more neighbours."
        )
    if callable(reference):
        density = np.asarray(reference(p), np.float64)
        if density.shape != (n,) or not np.isfinite(density).all():
            raise MfresnetError(
                f"the log density returned shape {density.shape}: give {n} finite values, shape ({n},)."
            )
        ball = 0.5 * d * log(pi) - lgamma(0.5 * d + 1)
        local = -density - d * np.log(own) - ball - digamma(n) + digamma(neighbours)
    else:
        q = check_rows(reference, "reference", columns=d)
        if len(q) < neighbours:
            raise MfresnetError(f"the reference has {len(q)} rows: give at least neighbours = {neighbours}.")
        across = np.asarray(KDTree(q).query(p, neighbours)[0]).reshape(n, neighbours)[:, -1]
        if not across.all():
            row = int(np.argmin(across))
            raise MfresnetError(f"row {row} of samples is also in the reference: give independent samples.")
        local = d * np.log(across / own) + log(len(q) / (n - 1))
    return KnnKl(float(local.mean()), float(local.std(ddof=1) / np.sqrt(n)), neighbours)
