"""Convergence: dissipation identity, its share by encoder and head, and the certificate of [C24].

    dLhat/dt = -(beta^2/n^2) r^T G r,     Lhat(t) <= Lhat(0) exp( -(2 beta^2/n) int_0^t lambda_min(G) dt' )

([C24] section 3, arXiv 2403.09889), for the squared loss and the full batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..flow import Batch, Options, field
from ..kernels.gram import Gram
from ..kernels.precision import cast, double_precision
from ..model import AbstractResNet, trainable

BETWEEN_TIMES = "between two recorded times lambda_min(G) is no smaller than the lower end at either of them"


@dataclass(frozen=True)
class Dissipation:
    """The rate at which the loss falls, computed twice.

    Args:
        rate: -dLhat/dt from the velocities, sum over groups of the mean squared velocity.
        from_gram: (beta^2/n^2) r^T G r.
        residual: |rate - from_gram| / rate; rounding, for a sound implementation.
        encoder_share: share of the encoder, alpha^2 r^T G1 r / r^T G r.
    """

    rate: float
    from_gram: float
    residual: float
    encoder_share: float


@eqx.filter_jit
def _rate_and_residual(model: AbstractResNet, x: Array, y: Array) -> tuple[Array, Array]:
    velocity = field(model, trainable(model), Batch(x, y, jnp.ones(len(x), x.dtype)), Options()).model
    rate = jnp.zeros((), x.dtype)
    for part in model.parts():
        leaves = jax.tree.leaves(getattr(velocity, part.name))
        rate += sum((jnp.sum(leaf**2) for leaf in leaves), jnp.zeros((), x.dtype)) / part.mass
    return rate, model(x) - y


def dissipation(model: AbstractResNet, x: Any, y: Any, matrices: Gram) -> Dissipation:
    """The dissipation identity at a state, in float64; ``matrices`` are the Gram matrices on the same ``x``.

    >>> import jax
    >>> from mfresnet.kernels.gram import gram
    >>> from mfresnet import LayeredResNet
    >>> model = LayeredResNet.create(jax.random.key(0), inputs=2, depth=3, width=4, head_width=5)
    >>> x, y = np.eye(2), np.array([[1.0], [-1.0]])
    >>> dissipation(model, x, y, gram(model, x)).residual < 1e-12
    True
    """
    with double_precision():
        network = cast(model, np.float64)
        x, y = jnp.asarray(x, jnp.float64), jnp.asarray(y, jnp.float64)
        rate, r = _rate_and_residual(network, x, y)
        rate, r = float(rate), np.asarray(r).reshape(-1)
    factor = float(np.asarray(model.beta, np.float64)) ** 2 / len(x) ** 2
    parts = [
        factor * weight * float(r @ m @ r)
        for weight, m in ((float(np.asarray(model.alpha)) ** 2, matrices.encoder), (1.0, matrices.head))
    ]
    total = sum(parts)
    residual = abs(rate - total) / rate if rate > 0 else abs(total)
    return Dissipation(rate, total, residual, parts[0] / total if total > 0 else float("nan"))


def convergence_certificate(
    loss: float, times: np.ndarray, lambda_min: np.ndarray, error: np.ndarray, *, beta: float, n: int
) -> np.ndarray:
    """Upper bound of the loss at each of ``times``, from a lower sum of the smallest eigenvalue of G.

        Lhat(0) exp( -(2 beta^2/n) sum_k (t_{k+1} - t_k) max(0, min(l_k, l_{k+1})) ),   l_k = lambda_min(t_k) - error_k

    Along the exact flow, Lhat(t) <= Lhat(0) exp(-(2 beta^2/n) int_0^t lambda_min(G) dt') ([C24] section 3). The lower
    ends l_k are measured. What lambda_min does between two recorded times is not: the bound holds under the assumption
    `BETWEEN_TIMES`.

    Args:
        loss: Lhat(0).
        times: recorded times in plain units, shape (T,).
        lambda_min, error: of G at these times, each with its error bound, shape (T,).
        beta: scale of the output.
        n: training points, on all of which G and the loss are taken.

    Returns:
        Bounds of the loss, shape (T,), never increasing.

    >>> convergence_certificate(1.0, np.array([0.0, 1.0]), np.array([1.0, 3.0]), np.zeros(2), beta=1.0, n=2).round(4)
    array([1.    , 0.3679])
    """
    lower = np.maximum(np.asarray(lambda_min, float) - np.asarray(error, float), 0.0)
    integral = np.cumsum(np.diff(times) * np.minimum(lower[1:], lower[:-1]))
    return loss * np.exp(-2 * beta**2 / n * np.concatenate([[0.0], integral]))


def radius(lambda_head: np.ndarray, displacement: np.ndarray, start: float) -> float:
    """r_max: the largest movement recorded while lambda_min(G2) >= lambda_0/2 held ([C24] section 4).

    NaN where lambda_0 is not positive, as for a head of fewer parameters than rows.
    """
    if not start > 0:
        return float("nan")
    inside = np.asarray(lambda_head) >= start / 2
    until = len(inside) if inside.all() else int(np.argmin(inside))
    return float(np.max(np.asarray(displacement)[:until], initial=0.0))
