"""The kernel bound: what a linearised network with the Gram matrix of the start would be certified for."""

from __future__ import annotations

from math import log, sqrt
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from ..errors import MfresnetError
from ..kernels.precision import blas_threads
from .certificate import INDEPENDENT, Certificate, Hypothesis, build
from .checks import check_delta, check_points, check_values

NORMS = tuple(2.0**k for k in range(-10, 31))  # stated before the data: radii of the balls of functions


def kernel_energy(gram: Any, y: Any) -> float:
    """y^T G^{-1} y, the squared norm of the least function of the kernel that interpolates y.

    Raises:
        MfresnetError: G is not symmetric, or singular to working precision (equal or parallel inputs).

    >>> round(kernel_energy(2 * np.eye(3), [1.0, -1.0, 1.0]), 12)
    1.5
    """
    gram, y = check_values(gram, "gram"), check_values(y, "y").reshape(-1)
    if gram.ndim != 2 or gram.shape != (y.size, y.size):
        raise MfresnetError(f"gram has shape {gram.shape}, but y has {y.size} entries: give a square matrix for them.")
    if not np.allclose(gram, gram.T, rtol=1e-6, atol=1e-9 * np.abs(gram).max()):
        raise MfresnetError("gram is not symmetric: give a Gram matrix.")
    gram = 0.5 * (gram + gram.T)
    with blas_threads(len(gram)):
        values = np.linalg.eigvalsh(gram)
    if values[0] <= 4 * len(y) * np.finfo(np.float64).eps * values[-1]:
        raise MfresnetError(
            f"gram is singular to working precision (smallest eigenvalue {values[0]:.3g}, largest {values[-1]:.3g}): "
            "remove equal or nearly parallel inputs."
        )
    return float(y @ cho_solve(cho_factor(gram), y))


def kernel_bound(gram: Any, y: Any) -> float:
    """sqrt(2 y^T G^{-1} y / n), the form of Arora et al. (2019, Theorem 5.1).

    It is written for kernels with diagonal 1/2 and changes when G is multiplied by a number; for another diagonal the
    same argument gives `kernel_complexity`, which does not and equals it at diagonal 1/2.

    >>> round(kernel_bound(0.5 * np.eye(8), np.ones(8)), 6)
    2.0
    """
    return sqrt(2 * kernel_energy(gram, y) / np.size(y))


def kernel_complexity(gram: Any, y: Any) -> float:
    """2 sqrt(y^T G^{-1} y tr(G)) / n: twice the Rademacher bound B sqrt(tr G)/n of the interpolant's ball."""
    gram = check_values(gram, "gram")
    return 2 * sqrt(kernel_energy(gram, y) * float(np.trace(gram))) / np.size(y)


def kernel_certificate(gram: Any, y: Any, delta: float = 0.05) -> Certificate:
    """Error of the kernel interpolant of G at the start, a comparator (docs/theory.md, section 8(c)).

    The interpolant has margin 1 on every point, so its ramp loss is 0 and

        error <= (2/n) B sqrt(tr G) + 3 sqrt(log(2 |grid|/delta)/(2n)),

    B the norm sqrt(y^T G^{-1} y) rounded up to a grid (Bartlett and Mendelson 2002, Lemma 22). It certifies the
    kernel machine, not the trained network.

    Args:
        gram: G(tau_0, nu_0), shape (n, n), one output.
        y: labels -1/+1.

    >>> round(kernel_certificate(np.eye(100) + 1.0, np.ones(100)).details["bound_of_arora"], 6)
    0.14072
    """
    y = check_values(y, "y").reshape(-1)
    n, delta = check_points(y.size), check_delta(delta)
    if not np.all(np.abs(y) == 1):
        raise MfresnetError("the kernel certificate needs labels -1 and +1: recode the two classes.")
    energy = kernel_energy(gram, y)
    norm = sqrt(energy)
    radius = next((b for b in NORMS if b >= norm), None)
    if radius is None:
        raise MfresnetError(f"the interpolant has norm {norm:g}, beyond the grid: remove nearly parallel inputs.")
    per_norm = 2 * sqrt(float(np.trace(np.asarray(gram, np.float64)))) / n
    terms = {
        "complexity": per_norm * norm,
        "rounding to the grid": per_norm * (radius - norm),
        "confidence": 3 * sqrt(log(2 * len(NORMS) / delta) / (2 * n)),
    }
    hypotheses = (
        INDEPENDENT,
        Hypothesis(
            "the predictor interpolates the labels with margin 1", "proved", note="minimum-norm interpolant of G"
        ),
        Hypothesis("G is regular", "computed"),
        Hypothesis("the kernel does not depend on the data", "assumed", note="true of the limit kernel at the start"),
    )
    return build(
        "kernel",
        terms,
        delta,
        hypotheses,
        "the kernel machine of the Gram matrix at the start (not the trained network)",
        details={"n": n, "energy": energy, "bound_of_arora": sqrt(2 * energy / n)},
    )
