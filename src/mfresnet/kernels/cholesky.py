"""Cholesky's factor of a large matrix on all cores, by block columns (Golub and Van Loan 2013, section 4.2)."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from ..threads import cores, spread
from .precision import blas_threads

PANEL = 512  # columns of the factor computed at once
ROWS = 2048  # of them, rows that one thread computes at once


def cholesky(a: np.ndarray, shift: float, panel: int = PANEL) -> np.ndarray | None:
    """Lower factor of A + shift I (above the diagonal is rubbish), or None where it is not positive definite.

    Each block column subtracts one product with all columns before it, so that nearly all work is long products; its
    rows are shared out over threads that use one core each. (LAPACK's own factorisation in OpenBLAS, asked for on
    several threads, crashes at n = 20,000, and its threads wait for each other by spinning.)

    Args:
        a: a symmetric matrix, of which the upper triangle is read.

    >>> cholesky(np.array([[3.0, 2.0], [2.0, 4.0]]), 1.0)[1].tolist()
    [1.0, 2.0]
    """
    factor = a.T.copy(order="F")
    factor.flat[:: len(a) + 1] += shift
    with blas_threads(1):
        for k in range(0, len(a), panel):
            columns = slice(k, k + panel)
            rows = factor[columns, :k]
            try:
                corner = linalg.cholesky(factor[columns, columns] - rows @ rows.T, lower=True, check_finite=False)
            except linalg.LinAlgError:
                return None
            factor[columns, columns] = corner

            def below(start: int, columns=columns, rows=rows, corner=corner) -> None:
                here = slice(start, start + ROWS)
                rest = factor[here, columns] - factor[here, : columns.start] @ rows.T
                solved = linalg.solve_triangular(corner, rest.T, lower=True, overwrite_b=True, check_finite=False)
                factor[here, columns] = solved.T

            spread(below, range(columns.stop, len(a), ROWS), cores())
    return factor
