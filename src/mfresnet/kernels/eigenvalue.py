"""An eigenvalue with its error, and the scaling that keeps squares of entries within the range of float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import MfresnetError


@dataclass(frozen=True)
class Eigenvalue:
    """An eigenvalue with its error bar.

    Args:
        value: the estimate. For a Gram matrix it can be negative only within its error.
        error: bound on its distance to an eigenvalue, rounding included.
        method: "dense", "inverse Lanczos", "Lanczos", or "rank" (0, exactly).
        converged: whether the tolerance, or the floor set by rounding, was met.
        message: empty, or what a reader should know.
    """

    value: float
    error: float
    method: str
    converged: bool = True
    message: str = ""

    @property
    def lower(self) -> float:
        """value - error, what a certificate may use."""
        return self.value - self.error

    def __str__(self) -> str:
        """The value is never shown without its error.

        >>> str(Eigenvalue(-2e-15, 4e-13, "dense"))
        '-2e-15 +- 4e-13 (dense)'
        """
        note = f"; {self.message}" if self.message else ""
        return f"{self.value:.6g} +- {self.error:.1g} ({self.method}{note})"


def _exponent(largest: float) -> int:
    """k such that numbers up to ``largest`` times 2^-k have squares that neither overflow nor vanish; 0 for most."""
    return 0 if largest == 0 or 1e-100 < largest < 1e100 else int(np.frexp(largest)[1])


def panels(a: np.ndarray, rows: int = 1024) -> Iterator[np.ndarray]:
    """The matrix by groups of rows, so that what is computed of it takes no memory of its size."""
    return (a[start : start + rows] for start in range(0, len(a), rows))


def scale_matrix(a: np.ndarray, eps: float) -> tuple[np.ndarray, float, int]:
    """The matrix times 2^-k and k (`_exponent`); it is not copied where k = 0."""
    exponent = _exponent(max(max(float(part.max()), -float(part.min())) for part in panels(a)))
    return (np.ldexp(a, -exponent) if exponent else a), eps, exponent


class ScaledOperator:
    """Products with an operator times 2^-k, k chosen at the first one (`_exponent`)."""

    def __init__(self, matvec: Callable[[np.ndarray], Any]):
        self._matvec = matvec
        self.exponent: int | None = None

    def __call__(self, v: np.ndarray) -> np.ndarray:
        product = np.asarray(self._matvec(v), np.float64)
        if not np.isfinite(product).all():
            raise MfresnetError("a product of the operator is not finite: check the model and the inputs it came from.")
        if self.exponent is None:
            self.exponent = _exponent(float(np.abs(product).max()))
        return np.ldexp(product, -self.exponent) if self.exponent else product


def unscale(values: np.ndarray, exponent: int) -> np.ndarray:
    """Eigenvalues of the matrix from those of the matrix times 2^-exponent."""
    with np.errstate(over="ignore"):
        values = np.ldexp(values, exponent)
    if np.isinf(values).any():
        raise MfresnetError("an eigenvalue of the matrix is larger than the largest float64: scale the matrix.")
    return values


def rescale(eigenvalue: Eigenvalue, exponent: int | None) -> Eigenvalue:
    """The eigenvalue of the matrix from that of the matrix times 2^-exponent."""
    if not exponent:
        return eigenvalue
    with np.errstate(over="ignore"):
        value, error = (float(np.ldexp(number, exponent)) for number in (eigenvalue.value, eigenvalue.error))
    if np.isinf(value) or (np.isinf(error) and eigenvalue.converged):
        raise MfresnetError("an eigenvalue of the matrix is larger than the largest float64: scale the matrix.")
    error += 2 * float(np.finfo(np.float64).smallest_subnormal)  # what ldexp may round off both
    message = f"{eigenvalue.message} (of the matrix times 2^{-exponent})" if eigenvalue.message else ""
    return Eigenvalue(value, error, eigenvalue.method, eigenvalue.converged, message)
