"""Dissipation, rates, regime and linearised training of any model (f, params), by its empirical tangent kernel.

Along the gradient flow dtheta/dt = -grad Lhat of Lhat = 1/(2n) sum_i |f(x_i) - y_i|^2, with K = J J^T of
`mfresnet.empirical_gram` and r = f - y,

    dr/dt = -K r/n,      dLhat/dt = -r^T K r/n^2 = -|grad Lhat|^2

(Jacot et al. 2018, arXiv 1806.07572; the identities of [C24] section 3 without the mean-field factors.)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..errors import MfresnetError
from ..kernels.eigen import Eigenvalue, largest_eigenvalue
from ..kernels.empirical import Function, empirical_gram, empirical_operator
from ..kernels.precision import cast, double_precision
from .regime import Regime, linearised_predictions, regime


class TangentDissipation(NamedTuple):
    """The rate at which the loss falls, computed twice.

    Args:
        rate: |grad Lhat|^2.
        from_kernel: r^T K r/n^2.
        residual: |rate - from_kernel|/rate; rounding.
        decay: rate/Lhat = -d log Lhat/dt, at least 2 lambda_min(K)/n; 0 at a loss of 0.
    """

    rate: float
    from_kernel: float
    residual: float
    decay: float


def tangent_dissipation(fn: Function, params: Any, x: Any, y: Any, *, block: int | None = None) -> TangentDissipation:
    """The dissipation identity of the squared loss at these parameters, in float64; no matrix is formed.

    Args:
        fn, params, x, block: as in `mfresnet.empirical_operator`.
        y: targets, in the shape of fn's outputs.

    Raises:
        MfresnetError: targets of another shape, or what `mfresnet.empirical_gram` refuses.

    >>> f, w = (lambda w, x: x @ w), jnp.array([1.0, 2.0])
    >>> tangent_dissipation(f, w, np.eye(2), np.zeros(2)).from_kernel
    1.25
    """
    operator = empirical_operator(fn, params, x, block=block)
    with double_precision():
        moving, constant = eqx.partition(cast(params, np.float64), eqx.is_inexact_array)
        points, targets = jnp.asarray(x), jnp.asarray(y, jnp.float64)
        points = points.astype(jnp.float64) if jnp.issubdtype(points.dtype, jnp.floating) else points
        f = np.asarray(fn(eqx.combine(moving, constant), points), np.float64)
        _check_targets(f, targets)

        def loss(moving: Any) -> jax.Array:
            return 0.5 * jnp.sum((fn(eqx.combine(moving, constant), points) - targets) ** 2) / len(points)

        rate = sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(jax.grad(loss)(moving)))
    r = (f - np.asarray(targets)).ravel()
    from_kernel, value = float(r @ operator.matvec(r)) / len(f) ** 2, float(r @ r) / (2 * len(f))
    residual = abs(rate - from_kernel) / rate if rate > 0 else abs(from_kernel)
    return TangentDissipation(rate, from_kernel, residual, rate / value if value > 0 else 0.0)


def tangent_rate(fn: Function, params: Any, x: Any, *, block: int | None = None) -> Eigenvalue:
    """lambda_max(K)/n, the fastest rate of the flow: a step of gradient descent is stable below 2 divided by it.

    Args:
        fn, params, x, block: as in `mfresnet.empirical_operator`, by which it is computed: no matrix is formed.

    >>> round(tangent_rate(lambda w, x: x @ w, jnp.ones(2), 2 * np.eye(2)).value, 6)
    2.0
    """
    largest = largest_eigenvalue(empirical_operator(fn, params, x, block=block))
    n = len(np.asarray(x))
    return Eigenvalue(largest.value / n, largest.error / n, largest.method, largest.converged, largest.message)


def tangent_training(
    fn: Function, params: Any, x: Any, y: Any, times: Any, *, other: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of the model linearised at ``params`` after gradient flow over ``times``, in closed form.

    Args:
        fn, params, x: as in `mfresnet.empirical_gram`.
        y: targets, shape (n,) or (n, C).
        times: training times, shape (T,).
        other: further inputs at which to predict; default: x.

    Returns:
        Predictions on x, (T, n, C), and on ``other``, (T, n', C).

    >>> f = lambda w, x: x @ w
    >>> fit, _ = tangent_training(f, jnp.zeros(2), np.eye(2), np.ones(2), [0.0, 100.0])
    >>> fit[:, 0, 0].round(6).tolist()
    [0.0, 1.0]
    """
    others = x if other is None else other
    matrix, cross = empirical_gram(fn, params, x), empirical_gram(fn, params, others, other=x)
    with double_precision():
        network = cast(params, np.float64)
        f, g = (np.asarray(fn(network, jnp.asarray(points)), np.float64) for points in (x, others))
    _check_targets(f, np.asarray(y))
    start, guess, targets = (np.asarray(one, np.float64).reshape(len(one), -1) for one in (f, g, y))
    return linearised_predictions(matrix, cross, start, guess, targets, np.asarray(times, float), beta=1.0)


def tangent_regime(fn: Function, start: Any, end: Any, x: Any, y: Any) -> Regime:
    """Lazy training or feature learning: K of the trained parameters against K of the start, and their alignment.

    >>> tangent_regime(lambda w, x: x @ w, jnp.ones(2), jnp.zeros(2), np.eye(2), np.ones(2)).verdict
    'lazy'
    """
    return regime(empirical_gram(fn, start, x), empirical_gram(fn, end, x), np.asarray(y))


def _check_targets(f: np.ndarray, y: Any) -> None:
    if f.shape != tuple(y.shape):
        raise MfresnetError(
            f"the model's outputs have shape {f.shape} and the targets {tuple(y.shape)}: make them equal."
        )
    for name, values in (("the model's outputs", f), ("the targets", np.asarray(y, np.float64))):
        if not np.isfinite(values).all():
            raise MfresnetError(f"{name} have NaN or infinite entries: remove or impute these points.")
