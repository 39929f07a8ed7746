"""Lanczos' method with full reorthogonalisation, for one end of a spectrum (Parlett 1998, ch. 13)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy import linalg

from .eigenvalue import Eigenvalue


def extreme_eigenvalue(
    matvec: Callable[[np.ndarray], np.ndarray], n: int, eps: float, end: str, tolerance: float, basis: int, seed: int
) -> Eigenvalue:
    value, residual, floor = float("nan"), float("inf"), 0.0
    for ritz, residual, vector in lanczos(matvec, n, end, basis, seed):
        value = float(ritz[0] if end == "smallest" else ritz[-1])
        floor = n * eps * float(np.abs(ritz).max())
        if residual <= max(tolerance * abs(value), floor):
            # the recurrence's own residual can drop below what rounding allows: measure it
            residual = float(np.linalg.norm(matvec(vector) - value * vector))
            if residual <= 2 * max(tolerance * abs(value), floor):
                message = "zero within its error" if end == "smallest" and abs(value) <= residual + floor else ""
                return Eigenvalue(value, residual + floor, "Lanczos", message=message)
    message = f"not converged: residual {residual:.2g} after {basis} vectors, allow more by max_basis"
    return Eigenvalue(value, residual + floor, "Lanczos", False, message)


def lanczos(
    matvec: Callable[[np.ndarray], np.ndarray], n: int, end: str, max_basis: int, seed: int
) -> Iterator[tuple[np.ndarray, float, np.ndarray]]:
    """Ritz values, residual bound and Ritz vector of one end, each time the basis has grown by a quarter.

    Full reorthogonalisation, twice ("twice is enough", Kahan; Parlett ch. 6), in float64.
    """
    v = np.random.default_rng(seed).normal(size=n)
    basis = np.empty((min(16, max_basis), n))
    diagonal, off = [], []
    basis[0] = v / np.linalg.norm(v)
    look = 8  # size of the basis at the next look
    for size in range(1, max_basis + 1):
        known = basis[:size]
        w = np.asarray(matvec(known[-1]), np.float64)
        diagonal.append(float(known[-1] @ w))
        for _ in range(2):
            w = w - known.T @ (known @ w)
        beta = float(np.linalg.norm(w))
        # an invariant subspace: its Ritz values are eigenvalues, and a random start misses none
        last = size == max_basis or beta <= n * np.finfo(np.float64).eps * max(map(abs, diagonal))
        if last or size == look:
            ritz, s = linalg.eigh_tridiagonal(diagonal, off)
            pick = 0 if end == "smallest" else -1
            yield ritz, beta * abs(float(s[-1, pick])), known.T @ s[:, pick]
            if last:
                return
            look += max(4, look // 4)
        if size == len(basis):
            basis = np.concatenate([basis, np.empty((min(2 * size, max_basis) - size, n))])
        off.append(beta)
        basis[size] = w / beta
