"""The powers of L and M that bias and sampling error follow, and their constants.

    bias^2 = c1^2 (1/L - 1/L_ref)^(2 a),      sampling^2 = c2^2 D L^(-2 b) M^(-2 c),      theory: a = 1, b = c = 1/2

The bias is fitted to the isolated bias^2 itself, not to its logarithm, so that an estimate that noise makes negative
counts as what it is. The reference has errors too: its bias is in the regressor 1/L - 1/L_ref; its sampling error,
extrapolated by the fitted law, is in every product and taken off bias^2. Each draw and dimension has constants of its
own; exponents are common to the dimensions of a draw. c1 and c2 are those at the exponents of the theory, root mean
squares over dimensions, so that error^2 = (c1/L)^2 + (c2 sqrt(D)/sqrt(L M))^2: the two add in quadrature.

The bias of a depth averages its widths with weights sampling^-4: the widest networks, where it is known best, dominate,
as narrow ones also have a bias of order 1/(L M), the second order of their sampling error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from .errors import Errors, Family

THEORY = {"bias.L": 1.0, "sampling.L": 0.5, "sampling.M": 0.5}
FITTED = (*THEORY, "c1", "c2")
EXPONENTS = (0.05, 4.0)  # between which the exponent of the bias is sought
# Relative error of the law bias^2 ~ L^(-2a) at finite L: no depth counts for more than one that is known to it.
MODEL_ERROR = 0.1


class _Bias(NamedTuple):
    """bias^2 of the depths of one draw and dimension, the reference's sampling error taken off.

    Args:
        gap: 1/L - 1/L_ref.
        value: bias^2.
        quartic, quadratic: its variance is quartic + quadratic * bias^2.
    """

    gap: np.ndarray
    value: np.ndarray
    quartic: np.ndarray
    quadratic: np.ndarray

    def variance(self, bias: np.ndarray) -> np.ndarray:
        """Of ``value``, where the true bias^2 is ``bias``."""
        return self.quartic + self.quadratic * bias + (MODEL_ERROR * bias) ** 2 + 1e-300

    def constant(self, power: float, variance: np.ndarray) -> tuple[float, float]:
        """The least-squares constant of value = constant * gap^(2 power), and the sum of squares it leaves."""
        law = self.gap ** (2 * power)
        constant = np.sum(law * self.value / variance) / np.sum(law**2 / variance)
        constant = max(float(constant), 0.0)
        return constant, float(np.sum((self.value - constant * law) ** 2 / variance))


def fit(families: Mapping[Family, Errors], reference: tuple[int, int], least: int) -> np.ndarray:
    """The values of `FITTED` for the dimensions of one draw; NaN where the sizes do not determine one.

    Args:
        reference: depth and width of the reference.
        least: sizes with L >= least and L M >= least^2 are used.
    """
    used = {
        family: (errors.depth >= least) & (errors.depth * errors.width >= least**2)
        for family, errors in families.items()
    }
    of_depth, of_width = _sampling_powers(families, used)
    squares, biases = [], []
    for family, errors in families.items():
        use = used[family]
        _, sampling, _ = errors.parts()[:, use]
        depth, width = errors.depth[use], errors.width[use]
        squares.append(np.mean(sampling * depth * width / family[1]) if len(depth) else np.nan)
        constant = np.mean(sampling * depth ** (2 * of_depth) * width ** (2 * of_width)) if len(depth) else np.nan
        own = constant * reference[0] ** (-2 * of_depth) * reference[1] ** (-2 * of_width)
        biases.append(_biases(errors, least, reference[0], float(np.nan_to_num(own))))
    _, constants = _bias_constants(biases, THEORY["bias.L"])
    c1, c2 = np.sqrt(np.mean(constants)), np.sqrt(np.mean(squares))
    return np.array([_bias_power(biases), of_depth, of_width, c1, c2])


def _sampling_powers(families: Mapping[Family, Errors], used: Mapping[Family, np.ndarray]) -> tuple[float, float]:
    """b and c, by least squares of log sampling with an intercept for each dimension."""
    rows, values = [], []
    for place, (family, errors) in enumerate(families.items()):
        sampling = errors.parts()[1]
        for size in np.flatnonzero(used[family] & (sampling > 0)):
            intercepts = np.eye(len(families))[place]
            rows.append([-np.log(errors.depth[size]), -np.log(errors.width[size]), *intercepts])
            values.append(0.5 * np.log(sampling[size]))
    if not rows or np.linalg.matrix_rank(rows) < 2 + len(families):
        return np.nan, np.nan
    b, c, *_ = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0]
    return float(b), float(c)


def _biases(errors: Errors, least: int, deepest: int, own: float) -> _Bias:
    """bias^2 of each depth; ``own`` is the sampling error^2 of the reference.

    With independent entries of variance sigma^2, the mean over pairs of S seeds has the variance
    (2 sigma^4/(S (S-1)) + 4 sigma^2 bias^2/S) / (N D); the reference, one more network, adds the same with S = 1.
    """
    _, sampling, bias = errors.parts()
    columns = []
    for depth in np.unique(errors.depth[(errors.depth >= least) & np.isfinite(bias)]):
        square = np.maximum(sampling[errors.depth == depth], 1e-30)
        weight = square**-2 / np.sum(square**-2)
        seeds, entries = errors.seeds, errors.entries
        columns.append(
            (
                1 / depth - 1 / deepest,
                np.sum(weight * bias[errors.depth == depth]) - own,
                (np.sum(weight**2 * 2 * square**2) / (seeds * (seeds - 1)) + 2 * own**2) / entries,
                (np.sum(weight**2 * 4 * square) / seeds + 4 * own) / entries,
            )
        )
    return _Bias(*np.array(columns, float).reshape(-1, 4).T)


def _bias_constants(biases: list[_Bias], power: float) -> tuple[float, list[float]]:
    """The sum of squares left at the exponent ``power``, and c1^2 of each dimension (NaN without a depth)."""
    left, constants = 0.0, []
    for bias in biases:
        if not len(bias.gap):
            constants.append(np.nan)
            continue
        law = bias.gap ** (2 * power)
        expected = np.maximum(bias.value, 0.0)
        for _ in range(4):  # the variance depends on what is fitted
            constant, rest = bias.constant(power, bias.variance(expected))
            expected = constant * law
        variance = bias.variance(expected)
        left += rest + float(np.sum(np.log(variance)))
        constants.append(constant)
    return left, constants


def _bias_power(biases: list[_Bias]) -> float:
    """a of least squares (of largest likelihood, as the variance depends on it); NaN where no exponent is."""
    from scipy.optimize import minimize_scalar

    if not any(len(bias.gap) > 1 for bias in biases):
        return np.nan
    grid = np.linspace(*EXPONENTS, 80)
    losses = [_bias_constants(biases, power)[0] for power in grid]
    best = int(np.argmin(losses))
    if best in (0, len(grid) - 1):
        return np.nan
    bounds = (grid[best - 1], grid[best + 1])
    result: Any = minimize_scalar(lambda power: _bias_constants(biases, power)[0], bounds=bounds, method="bounded")
    return float(result.x)
