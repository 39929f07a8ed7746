"""The Gram matrix at the start, in the limit of infinite width and depth ([C24], arXiv 2403.09889, Lemma 4).

At (tau_0, nu_0) the encoder's part is 0, and the head's is a kernel of two correlated Gaussians,

    G2(tau_0, nu_0)_ij = E[sigma0(g_i) sigma0(g_j)] + v_ij E[sigma0'(g_i) sigma0'(g_j)],   v_ij = x_i . x_j + 1,

with v the covariance of g.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import pi
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..errors import MfresnetError
from ..model import Activation, activation
from .eigen import Eigenvalue, smallest_eigenvalue
from .precision import check_rows, double_precision, equal_rows_note

TERMS = 200
EPS = float(np.finfo(np.float64).eps)
OPERATIONS = 64  # roundings of a coefficient or of a closed form: generous for sums added pairwise
HALVINGS = 40  # of the panels towards 0: inputs of length 1e10 are a step there no more
TAIL = 1e-12  # share of the diagonal that the series may leave out before a message says so


@dataclass(frozen=True)
class InitialKernel:
    """G2(tau_0, nu_0), its smallest eigenvalue, and lower bounds of that which need no eigenvalue.

    Args:
        gram: the matrix, shape (n, n).
        lambda_min: its smallest eigenvalue; the error includes what the series leaves out and the rounding of the
            entries, but not the quadrature of method "quadrature".
        lower_bound: of Lemma 4 of [C24], from the largest correlation alone.
        row_bound: sharper: the same with each row's own correlations, and with Gershgorin's bound of the whole matrix.
        method: "closed form", "hermite" or "quadrature".
        notes: what a reader should know, for example which rows of x are equal.
    """

    gram: np.ndarray
    lambda_min: Eigenvalue
    lower_bound: float
    row_bound: float
    method: str
    notes: tuple[str, ...] = ()


def initial_kernel(
    x: Any, sigma: str | Activation, *, method: str = "auto", terms: int = TERMS, nodes: int = 101
) -> InitialKernel:
    """The Gram matrix of [C24] at its start, in the limit M, K, L -> infinity, for inputs of any length.

    With v_i = |x_i|^2 + 1, rho_ij = (x_i . x_j + 1)/sqrt(v_i v_j) and c_k(i) the normalised Hermite
    coefficients of t -> sigma0(sqrt(v_i) t), Mehler's formula and Stein's identity
    sqrt(v) c'_{k-1} = sqrt(k) c_k turn the two series of Lemma 4 into one:

        G2_ij = sum_k (1 + k) c_k(i) c_k(j) rho_ij^k.

    The diagonal is a one-dimensional integral; what a finite series leaves out off the diagonal is at most
    sqrt(tail_i tail_j) rho^terms. Rounding moves rho by a few eps and each term by (2 k + 1) eps; where the closed form
    is steep in rho (relu: like sqrt(1 - rho) at nearly parallel inputs) that is far more than eps. The row sums of both
    bounds are part of the error of lambda_min. ``lower_bound`` is Lemma 4's
    ``sum_k (1 + k) c_k^2 max(0, 1 - (n - 1) max_{i != j} |rho_ij|^k)``, ``row_bound`` replaces (n - 1) max by the
    largest row sum.

    Args:
        x: inputs, shape (n, d).
        sigma: activation or its name.
        method: "closed form" (relu: Cho & Saul 2009; erf: Williams 1997), "hermite", or "quadrature"
            (two-dimensional Gauss-Hermite, an independent check for smooth activations and short inputs: tanh at
            |x| = 5 is a step between its nodes, where the series still carries its error). "auto": the first
            that exists.
        terms: of the series and the bounds.
        nodes: of the quadrature, in each of its two directions.

    Raises:
        MfresnetError: NaN or infinite entries, an unknown activation, no closed form where asked for.

    >>> kernel = initial_kernel([[1.0, 0.0], [0.0, 1.0]], "tanh")
    >>> least = kernel.lambda_min  # two rows: the bound by rows is the eigenvalue itself, up to rounding
    >>> bool(0 < kernel.lower_bound <= kernel.row_bound <= least.value + least.error)
    True
    """
    table, act = check_rows(x), activation(sigma)
    if terms < 2:
        raise MfresnetError(f"terms = {terms} is not allowed: give a value >= 2.")
    cov = table @ table.T + 1.0
    std = np.sqrt(np.diag(cov))
    rho = np.clip(cov / np.outer(std, std), -1.0, 1.0)
    np.fill_diagonal(rho, 1.0)
    if method == "auto":
        method = "closed form" if act.name in _CLOSED else "hermite"
    weights = hermite_weights(act, std, terms)
    error, notes, shift = 0.0, list(equal_rows_note(table)), (table.shape[1] + 8) * EPS
    rounding = _series_rounding(weights, shift)
    if method == "closed form":
        if act.name not in _CLOSED:
            raise MfresnetError(f"activation {act.name!r} has no closed form: use method 'hermite'.")
        matrix, rounding = _closed_form(_CLOSED[act.name], std, rho, shift)
    elif method == "hermite":
        matrix, error = _series(act, std, rho, weights)
        if error > TAIL * np.trace(matrix):
            notes.append(f"the series of {terms} terms leaves out up to {error:.2g} of lambda_min: more terms help")
    elif method == "quadrature":
        matrix = _quadrature(act, cov, std, rho, nodes)
    else:
        raise MfresnetError(f"method = {method!r} is not allowed: give one of auto, closed form, hermite, quadrature.")
    least = smallest_eigenvalue(matrix)
    least = Eigenvalue(least.value, least.error + error + rounding, least.method, least.converged, least.message)
    lower, row = _bounds(matrix, rho, weights)
    return InitialKernel(matrix, least, lower, row, method, tuple(notes))


def hermite_weights(sigma: str | Activation, std: Any, terms: int = TERMS) -> np.ndarray:
    """sqrt(1 + k) c_k for k < terms, with c_k the normalised Hermite coefficients of t -> sigma0(std t).

    For unit inputs (std = sqrt 2) their squares are c_k^2 + 2 c'_{k-1}^2, the coefficients of Lemma 4 of [C24].

    Args:
        sigma: activation or its name.
        std: standard deviations of the pre-activation, shape (n,).

    Returns:
        Shape (n, terms).

    >>> abs(hermite_weights("identity", [2.0], 3)).round(12)
    array([[0.        , 2.82842712, 0.        ]])
    """
    act, scales = activation(sigma), np.atleast_1d(np.asarray(std, np.float64))
    t, mass = _nodes()
    polynomials = np.empty((terms, len(t)))
    polynomials[0], polynomials[1:2] = 1.0, t
    for k in range(1, terms - 1):
        polynomials[k + 1] = (t * polynomials[k] - np.sqrt(k) * polynomials[k - 1]) / np.sqrt(k + 1)
    weighted = (polynomials * mass).T
    distinct, place = np.unique(scales, return_inverse=True)
    coefficients = _evaluate(act.value, distinct[:, None] * t[None, :]) @ weighted
    return (coefficients * np.sqrt(1.0 + np.arange(terms)))[place]


def _nodes(order: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Points and masses of a standard Gaussian: Gauss-Legendre on panels that meet at 0 and are halved towards it.

    Unlike Gauss-Hermite this is exact to rounding for a kink at 0 (relu) and for activations made steep at 0 by long
    inputs; beyond |t| = 14 the Gaussian is below 1e-42.
    """
    points, masses = np.polynomial.legendre.leggauss(order)
    positive = np.concatenate([0.125 * 0.5 ** np.arange(HALVINGS, 0, -1), np.linspace(0.125, 14.0, 112)])
    edges = np.concatenate([-positive[::-1], [0.0], positive])
    half = np.diff(edges)[:, None] / 2
    t = ((edges[:-1] + edges[1:])[:, None] / 2 + half * points).ravel()
    return t, (half * masses).ravel() * np.exp(-0.5 * t * t) / np.sqrt(2 * pi)


def _evaluate(function: Callable, t: np.ndarray) -> np.ndarray:
    with double_precision():
        return np.asarray(function(jnp.asarray(t, jnp.float64)), np.float64)


def _series(act: Activation, std: np.ndarray, rho: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
    """The kernel by its series with its exact diagonal, and the norm (row sums) of what is left out beside it.

    By Cauchy-Schwarz |sum_{k >= terms} (1+k) c_k(i) c_k(j) rho^k| <= sqrt(tail_i tail_j) |rho|^terms. An activation
    that the nodes do not resolve (sin at |x| = 1000) shows in the difference of two rules, which is added.
    """
    diagonal, coarse = (_diagonal(act, std, order) for order in (16, 12))
    unresolved = _row_sum(np.sqrt(np.abs(diagonal - coarse)))
    matrix = np.zeros_like(rho)
    for column in weights.T[::-1]:  # Horner's scheme in rho
        matrix = matrix * rho + np.outer(column, column)
    tail = np.maximum(diagonal - np.diag(matrix), 0.0)
    np.fill_diagonal(matrix, np.diag(matrix) + tail)
    off = np.abs(rho - np.eye(len(rho))) ** weights.shape[1]
    return matrix, float((np.sqrt(np.outer(tail, tail)) * off).sum(axis=1).max()) + unresolved


def _diagonal(act: Activation, std: np.ndarray, order: int) -> np.ndarray:
    """E[sigma0(g_i)^2] + v_ii E[sigma0'(g_i)^2] by the rule of that order."""
    distinct, place = np.unique(std, return_inverse=True)
    t, mass = _nodes(order)
    value, slope = (_evaluate(f, distinct[:, None] * t[None, :]) for f in (act.value, act.first))
    return (((value**2) @ mass) + distinct**2 * ((slope**2) @ mass))[place]


def _series_rounding(weights: np.ndarray, shift: float) -> float:
    """Bound of what rounding does to the series, row sums: of the terms, and by rho, which is known to ``shift``.

    A term passes 2 k + 1 operations, d rho^k / d rho <= k, and sum_k a_k(i) a_k(j) <= |a(i)| |a(j)|.
    """
    k = np.arange(weights.shape[1])
    size, slope = np.linalg.norm(weights, axis=1), np.linalg.norm(np.sqrt(k) * weights, axis=1)
    return OPERATIONS * EPS * _row_sum(size) + (2 * EPS + shift) * _row_sum(slope)


def _row_sum(factor: np.ndarray) -> float:
    """The largest row sum of the outer product of a non-negative vector with itself."""
    return float(factor.max() * factor.sum())


def _closed_form(kernel: Callable, std: np.ndarray, rho: np.ndarray, shift: float) -> tuple[np.ndarray, float]:
    """A closed form, and a bound of what rounding does to it, row sums: rho is known to ``shift`` only."""
    matrix = kernel(std, rho)
    moved = np.zeros_like(matrix)
    for sign in (-1, 1):
        near = np.clip(rho + sign * shift, -1.0, 1.0)
        np.fill_diagonal(near, 1.0)
        moved = np.maximum(moved, np.abs(kernel(std, near) - matrix))
    size = np.sqrt(np.diag(matrix))
    return matrix, float(moved.sum(axis=1).max()) + OPERATIONS * EPS * _row_sum(size)


def _bounds(matrix: np.ndarray, rho: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Lemma 4's bound, and the one of row sums; for inputs of unequal length the least row counts."""
    n = len(rho)
    off = np.abs(rho - np.eye(n))
    largest = off.max()
    lemma = rows = 0.0
    power = np.ones_like(off) - np.eye(n)
    for k, column in enumerate(np.abs(weights.T)):
        least, most = column.min(), column.max()
        lemma += max(0.0, least**2 - (n - 1) * most**2 * largest**k)
        rows += max(0.0, float((column**2 - column * (power @ column)).min()))
        power = power * off
    whole = float((np.diag(matrix) - (np.abs(matrix).sum(axis=1) - np.diag(matrix))).min())
    return float(lemma), max(rows, whole)


def _quadrature(act: Activation, cov: np.ndarray, std: np.ndarray, rho: np.ndarray, nodes: int) -> np.ndarray:
    """Both expectations by Gauss-Hermite in each direction, row by row."""
    t, mass = np.polynomial.hermite_e.hermegauss(nodes)
    mass = mass / mass.sum()
    first = std[:, None] * t  # g_i
    value, slope = (_evaluate(f, first) * mass for f in (act.value, act.first))
    matrix = np.empty_like(cov)
    for i in range(len(cov)):
        # g_j given g_i = std_i t: mean std_j rho t, and an independent rest
        rest = np.sqrt(1.0 - rho[i] ** 2)
        second = std[:, None, None] * (rho[i][:, None, None] * t[:, None] + rest[:, None, None] * t)
        inner, inner_slope = (_evaluate(f, second) @ mass for f in (act.value, act.first))
        matrix[i] = inner @ value[i] + cov[i] * (inner_slope @ slope[i])
    return (matrix + matrix.T) / 2


def _erf_kernel(std: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """sigma0 = erf(t / sqrt 2): 2/pi arcsin(v_ij / sqrt((1 + v_i)(1 + v_j))) and its derivative (Williams 1997)."""
    cov, var = np.outer(std, std) * rho, std**2
    # (1 + v_i)(1 + v_j) - v_ij^2 without its cancellation at long inputs
    rest = np.sqrt(1 + np.add.outer(var, var) + np.outer(var, var) * ((1 - rho) * (1 + rho)))
    return 2 / pi * (np.arctan2(cov, rest) + cov / rest)


def _relu_kernel(std: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """The arc-cosine kernels of order 1 and 0 (Cho & Saul 2009)."""
    angle, lengths = np.arccos(rho), np.outer(std, std)
    return lengths * (np.sin(angle) + 2 * (pi - angle) * rho) / (2 * pi)


_CLOSED = {"erf": _erf_kernel, "relu": _relu_kernel}
