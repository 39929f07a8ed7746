"""Lazy training or feature learning?

Lazy training keeps the kernel: the network follows its linearisation at the start. Feature
learning changes it. Both are measured on the Gram matrix G and against the linearised model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..kernels.precision import blas_threads

# Relative kernel change below / above which training counts as lazy / feature learning.
LAZY_BELOW, FEATURES_ABOVE = 0.1, 0.5


@dataclass(frozen=True)
class Regime:
    """How far the kernel moved.

    Args:
        kernel_change: |G(t) - G(0)|_F / |G(0)|_F.
        alignment: <G, y y^T> / (|G|_F |y|^2), 1 when G is y y^T.
        alignment_start: the same at the start.
        verdict: "lazy", "feature learning" or "between", by the thresholds above.
    """

    kernel_change: float
    alignment: float
    alignment_start: float
    verdict: str


def alignment(matrix: np.ndarray, y: np.ndarray) -> float:
    """<G, y y^T>_F / (|G|_F |y|^2) of a matrix (n C, n C) with targets (n, C).

    >>> alignment(np.outer([1.0, -1.0], [1.0, -1.0]), np.array([[1.0], [-1.0]]))
    1.0
    """
    flat = np.asarray(y, float).reshape(-1)
    return float(flat @ matrix @ flat / (np.linalg.norm(matrix) * (flat @ flat)))


def verdict(kernel_change: float) -> str:
    """The regime that a relative kernel change speaks for.

    >>> verdict(0.05), verdict(0.3), verdict(2.0)
    ('lazy', 'between', 'feature learning')
    """
    if kernel_change < LAZY_BELOW:
        return "lazy"
    return "feature learning" if kernel_change > FEATURES_ABOVE else "between"


def regime(start: np.ndarray, now: np.ndarray, y: np.ndarray) -> Regime:
    """Compare the total Gram matrix now with the one at the start, on the same points."""
    change = float(np.linalg.norm(now - start) / np.linalg.norm(start))
    return Regime(change, alignment(now, y), alignment(start, y), verdict(change))


def linearised_predictions(
    matrix: np.ndarray,
    cross: np.ndarray,
    f: np.ndarray,
    f_test: np.ndarray,
    y: np.ndarray,
    times: np.ndarray,
    *,
    beta: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of the linearised model trained by gradient flow on the squared loss, in closed form.

        df/dt = -(beta^2/n) G(0) (f - y),      df_test/dt = -(beta^2/n) G(0)(test, train) (f - y)

    Args:
        matrix: G(0) on the training points, (n C, n C).
        cross: G(0) between test and training points, (n' C, n C).
        f, f_test, y: predictions at the start (n, C), (n', C), and targets (n, C).
        times: training times in plain units, shape (T,).

    Returns:
        Predictions on the training points (T, n, C) and on the test points (T, n', C).
    """
    n, outputs = y.shape
    with blas_threads(len(matrix)):
        rates, basis = np.linalg.eigh(matrix)
    rates = np.maximum(rates, 0.0) * beta**2 / n
    residual = basis.T @ (f - y).reshape(-1)
    project = cross @ basis * (beta**2 / n)
    train, test = [], []
    for t in np.asarray(times, float):
        decayed = np.exp(-rates * t)
        # int_0^t exp(-rate s) ds, which is t where the rate vanishes
        passed = np.where(rates * t > 1e-12, -np.expm1(-rates * t) / np.where(rates > 0, rates, 1.0), t)
        train.append(y + (basis @ (decayed * residual)).reshape(n, outputs))
        test.append(f_test - (project @ (passed * residual)).reshape(-1, outputs))
    return np.array(train), np.array(test)
