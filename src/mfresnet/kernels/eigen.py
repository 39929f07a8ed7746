"""Smallest and largest eigenvalues of symmetric matrices and operators, each with its error.

Three ways, by size: all of LAPACK for small dense matrices; Lanczos on the inverse, by a Cholesky
factor, for large dense ones; Lanczos with full reorthogonalisation for operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy import linalg

from ..errors import MfresnetError
from .cholesky import cholesky
from .eigenvalue import Eigenvalue, ScaledOperator, panels, rescale, scale_matrix, unscale
from .lanczos import extreme_eigenvalue, lanczos
from .precision import blas_threads

DENSE_LIMIT = 5000  # rows up to which the dense solver is used (2000 rows: under a second)
TILE = 1024  # rows and columns of a matrix looked at together
SYMMETRY = 1e3  # asymmetry allowed, in units of rounding


def smallest_eigenvalue(
    matrix: Any,
    *,
    rank: int | None = None,
    tolerance: float = 1e-6,
    max_basis: int | None = None,
    method: str = "auto",
    seed: int = 0,
) -> Eigenvalue:
    """The smallest eigenvalue of a symmetric positive semi-definite matrix, such as a Gram matrix.

    - "dense" (n <= 5000): LAPACK. error = n eps |A| + |A v - value v|, with eps of the matrix's own
      type (a float32 matrix has float32 entries, whatever computes on it) and |A| bounded by the
      smaller of Frobenius and row-sum norm.
    - "inverse Lanczos" (larger matrices): Lanczos on (A + shift I)^-1 by a Cholesky factor, shift =
      n eps |A|; a few steps suffice. error as above. A second factorisation, of A - (value - error) I,
      proves that no eigenvalue lies below (Sylvester); where the value is within its error of zero the first one has.
      Memory is two matrices.
    - "Lanczos" (operators, which need ``shape`` and ``matvec``): full reorthogonalisation ([Parlett,
      *The Symmetric Eigenvalue Problem*, ch. 13]), the basis extended until the residual bound
      |beta_k s_k| meets the tolerance. The value is then an upper bound of the smallest eigenvalue up to
      rounding, and an eigenvalue lies within the error of it; that none lies lower is near certain with
      a random start, but not proved.

    Args:
        matrix: array (n, n), or an operator, such as `gram_operator`'s.
        rank: an upper bound of its rank, where one is known (`Gram.ranks`). Below n the value is 0, exactly, and
            nothing is computed.
        tolerance: error asked of Lanczos, relative to the value. Below n eps |A| nothing can be resolved,
            so an error there counts as converged too.
        max_basis: most vectors of Lanczos (default: n, at most 2000 for operators).
        method: "auto", or one of the three.
        seed: of the start vector.

    Returns:
        The value with its error; ``converged`` False and the message "not converged ..." where the basis
        was used up.

    Raises:
        MfresnetError: not square, not symmetric, NaN or infinite entries.

    >>> result = smallest_eigenvalue(np.diag([3.0, 2.0, 0.5]))
    >>> round(result.value, 12), result.method, result.error < 1e-12
    (0.5, 'dense', True)
    """
    if rank is not None:
        n = matrix.shape[0] if hasattr(matrix, "matvec") else len(check_matrix(matrix)[0])
        if rank < n:
            return Eigenvalue(0.0, 0.0, "rank", message=f"{n} rows of rank at most {rank}")
    return _extreme(matrix, "smallest", tolerance, max_basis, method, seed)


def largest_eigenvalue(
    matrix: Any, *, tolerance: float = 1e-6, max_basis: int | None = None, method: str = "auto", seed: int = 0
) -> Eigenvalue:
    """The largest eigenvalue of a symmetric matrix or operator; as `smallest_eigenvalue`, which see.

    Large dense matrices use plain Lanczos, for which the largest eigenvalue is the easy one.

    >>> round(largest_eigenvalue(np.diag([3.0, 2.0, 0.5])).value, 12)
    3.0
    """
    return _extreme(matrix, "largest", tolerance, max_basis, method, seed)


def spectrum(matrix: Any, *, quantiles: Sequence[float] | None = None) -> np.ndarray:
    """All eigenvalues of a symmetric matrix, ascending, or quantiles of them, for reports.

    Rounding moves each by up to n eps |A|, so the smallest ones of a Gram matrix may come out as
    negative numbers of that size: use `smallest_eigenvalue` where their error matters.

    Raises:
        MfresnetError: not square, not symmetric, NaN or infinite entries, quantiles outside [0, 1], an eigenvalue
            beyond float64.

    >>> [round(float(value), 12) for value in spectrum(np.diag([3.0, 1.0, 2.0]), quantiles=[0.0, 0.5, 1.0])]
    [1.0, 2.0, 3.0]
    """
    a, _, exponent = scale_matrix(*check_matrix(matrix))
    if quantiles is not None and not all(0 <= q <= 1 for q in quantiles):
        raise MfresnetError(f"quantiles = {list(quantiles)} is not allowed: give numbers between 0 and 1.")
    with blas_threads(len(a)):
        values = unscale(np.linalg.eigvalsh(a), exponent)
    return values if quantiles is None else np.quantile(values, quantiles)


def _extreme(matrix: Any, end: str, tolerance: float, max_basis: int | None, method: str, seed: int) -> Eigenvalue:
    if method not in ("auto", "dense", "inverse Lanczos", "Lanczos"):
        raise MfresnetError(f"method = {method!r} is not allowed: give one of auto, dense, inverse Lanczos, Lanczos.")
    if not tolerance > 0:
        raise MfresnetError(f"tolerance = {tolerance} is not allowed: give a value > 0.")
    if hasattr(matrix, "matvec"):
        n = matrix.shape[0]
        if method not in ("auto", "Lanczos"):
            raise MfresnetError(f"method {method!r} needs a matrix, but an operator was given: use Lanczos.")
        eps = float(np.finfo(np.dtype(getattr(matrix, "dtype", None) or np.float64)).eps)
        basis = min(n, 2000 if max_basis is None else max_basis)
        operator = ScaledOperator(matrix.matvec)
        return rescale(extreme_eigenvalue(operator, n, eps, end, tolerance, basis, seed), operator.exponent)
    a, eps, exponent = scale_matrix(*check_matrix(matrix))
    n = len(a)
    rounding = n * eps * min(float(np.linalg.norm(a)), max(float(np.abs(part).sum(axis=1).max()) for part in panels(a)))
    if method == "dense" or (method == "auto" and n <= DENSE_LIMIT):
        eigenvalue = _dense(a, end, rounding)
    elif end == "smallest" and method != "Lanczos":
        eigenvalue = _inverse_lanczos(a, rounding, tolerance, max_basis or n, seed)
    else:
        eigenvalue = extreme_eigenvalue(a.__matmul__, n, eps, end, tolerance, min(n, max_basis or n), seed)
    return rescale(eigenvalue, exponent)


def check_matrix(matrix: Any) -> tuple[np.ndarray, float]:
    """The matrix in float64, and the rounding unit of the type it came in, float64's for longer ones."""
    a = np.asarray(matrix)
    if a.ndim != 2 or a.shape[0] != a.shape[1] or a.shape[0] == 0:
        raise MfresnetError(f"the matrix has shape {a.shape}: give a square one.")
    if a.dtype.kind not in "fbiu":
        raise MfresnetError(f"the matrix has type {a.dtype}: give real numbers.")
    eps = float(np.finfo(np.float64).eps)
    if a.dtype.kind == "f":
        eps = max(eps, float(np.finfo(a.dtype).eps))
    a = a.astype(np.float64, copy=False)
    n, scale = len(a), 0.0
    for start in range(0, n, TILE):  # in tiles, so that a matrix that fills the memory is not copied
        rows = a[start : start + TILE]
        largest = max(float(rows.max()), -float(rows.min()))
        if not np.isfinite(largest):
            bad = np.argwhere(~np.isfinite(rows))[0]
            raise MfresnetError(
                f"the matrix has {rows[tuple(bad)]} in row {start + bad[0]}, column {bad[1]}: "
                "check the model and the inputs it came from."
            )
        scale = max(scale, largest)
    for i in range(0, n, TILE):
        for j in range(0, i + 1, TILE):
            with np.errstate(over="ignore"):
                difference = np.abs(a[i : i + TILE, j : j + TILE] - a[j : j + TILE, i : i + TILE].T).max()
            if difference > SYMMETRY * eps * scale:
                raise MfresnetError(f"the matrix is not symmetric (difference {difference:.2g}): give (A + A^T)/2.")
    return a, eps


def _dense(a: np.ndarray, end: str, rounding: float) -> Eigenvalue:
    index = 0 if end == "smallest" else len(a) - 1
    with blas_threads(len(a)):
        values, vectors = linalg.eigh(a, subset_by_index=[index, index])
        value, vector = float(values[0]), vectors[:, 0]
        residual = float(np.linalg.norm(a @ vector - value * vector))
    error = rounding + residual
    return Eigenvalue(value, error, "dense", message=_near_zero(a, value, error) if end == "smallest" else "")


def _near_zero(a: np.ndarray, value: float, error: float) -> str:
    """Why a smallest eigenvalue is zero within its error, where that can be seen."""
    if abs(value) > error:
        return ""
    weights = np.random.default_rng(0).normal(size=len(a))
    images = a @ weights
    order = np.argsort(images, kind="stable")
    # rows that differ by at most the error in each entry have images this close; twice, for rounding of the images
    near = np.flatnonzero(np.diff(images[order]) <= 2 * error * np.abs(weights).sum())
    for one, two in zip(order[near], order[near + 1], strict=True):
        if np.allclose(a[one], a[two], rtol=0, atol=error):
            low, high = sorted((int(one), int(two)))
            return f"zero within its error: rows {low} and {high} of the matrix are equal"
    return "zero within its error"


def _inverse_lanczos(a: np.ndarray, rounding: float, tolerance: float, max_basis: int, seed: int) -> Eigenvalue:
    n = len(a)
    if rounding == 0.0:  # the zero matrix
        return Eigenvalue(0.0, 0.0, "inverse Lanczos", message=_near_zero(a, 0.0, 0.0))
    factor = cholesky(a, rounding)
    if factor is None:
        return Eigenvalue(
            float("nan"), float("inf"), "inverse Lanczos", False,
            "not converged: the matrix has a negative eigenvalue beyond rounding, use method Lanczos",
        )  # fmt: skip

    value, residual = _refine(a, factor, rounding, tolerance, min(n, max_basis), seed)
    del factor  # makes room for the next
    error = rounding + residual
    converged = residual <= max(tolerance * abs(value), rounding)
    message = _near_zero(a, value, error) if converged else f"not converged: residual {residual:.2g}"
    # the rounding of this second factorisation is inside `rounding`, hence twice; a value within its error of zero was
    # proved by the first one, whose shift is smaller
    if converged and value > error and cholesky(a, -(value - error - rounding)) is None:
        converged, message = False, "not converged: an eigenvalue below the value was detected"
    return Eigenvalue(value, error, "inverse Lanczos", converged, message)


def _refine(
    a: np.ndarray, factor: np.ndarray, rounding: float, tolerance: float, max_basis: int, seed: int
) -> tuple[float, float]:
    """Rayleigh quotient and residual of the Ritz vector of A^-1, the basis extended until they are good enough."""
    value, residual = float("nan"), float("inf")
    solve = partial(linalg.cho_solve, (factor, True), check_finite=False)
    for _, _, vector in lanczos(solve, len(a), "largest", max_basis, seed):
        product = a @ vector
        value = float(vector @ product)
        residual = float(np.linalg.norm(product - value * vector))
        if residual <= max(tolerance * abs(value), rounding / 10):  # a few cheap steps more for half the error
            break
    return value, residual
