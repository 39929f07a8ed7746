"""Gram matrices by differentiation: particles that move in (theta, t) have no closed form ([L20], arXiv 2003.05508)."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from ..model import AbstractResNet
from .precision import cast, double_precision

POINTS = 32  # differentiated at once


@eqx.filter_jit
def _jacobians(network: AbstractResNet, x: Float[Array, "n inputs"]) -> dict[str, Float[Array, "outputs parameters"]]:
    """Derivatives of all outputs with respect to each part that is there, rows (i, c) -> i C + c."""
    parts = {part.name: getattr(network, part.name) for part in network.parts()}

    def single(parts: dict[str, Any], point: Array) -> Array:
        moved = eqx.tree_at(lambda m: [getattr(m, name) for name in parts], network, list(parts.values()))
        return moved(point[None])[0]

    jacobians = jax.lax.map(lambda point: jax.jacrev(single)(parts, point), x, batch_size=POINTS)
    rows = {name: jax.tree.leaves(part) for name, part in jacobians.items()}
    return {
        name: jnp.concatenate([leaf.reshape(leaf.shape[0] * leaf.shape[1], -1) for leaf in leaves], axis=1)
        for name, leaves in rows.items()
    }


def gram_by_parts(
    model: AbstractResNet, x: Any, *, other: Any = None, dtype: Any = np.float64
) -> tuple[np.ndarray, np.ndarray]:
    """G1 and G2 by differentiation of each part of a network (`AbstractResNet.parts`).

        G1 = sum_p m_p J_p J_p^T / alpha^2 over the parts of the encoder,   G2 = K J_tau J_tau^T,   J of g = f / beta

    with the reciprocal mass m_p: N for theta and 1 for the places t of a continuous network, L M for a layered one, so
    that dLhat/dt = -(beta^2/n^2) r^T (alpha^2 G1 + G2) r along the flow, places moving with -dLoss/dt. An embedding
    is not part of them. Memory: n C numbers for each parameter.

    Returns:
        Two matrices of shape (n C, n' C); zeros for what is not there (a head, or an encoder of alpha 0).

    >>> from mfresnet import ContinuousResNet, LayeredResNet, gram
    >>> model = ContinuousResNet.create(jax.random.key(0), particles=6, inputs=2, head_width=5)
    >>> [matrix.shape for matrix in gram_by_parts(model, np.eye(2))]
    [(2, 2), (2, 2)]
    >>> model = LayeredResNet.create(jax.random.key(0), inputs=2, depth=3, width=4, alpha=2.0)
    >>> closed = gram(model, np.eye(2))
    >>> bool(np.allclose(gram_by_parts(model, np.eye(2)), (closed.encoder, closed.head)))
    True
    """
    with double_precision():
        network = cast(model, dtype)
        left = _jacobians(network, jnp.asarray(x, dtype))
        right = left if other is None else _jacobians(network, jnp.asarray(other, dtype))
        matrices = {name: np.asarray(one) @ np.asarray(right[name]).T for name, one in left.items()}
    alpha, beta = float(model.alpha), float(model.beta)
    zero = np.zeros_like(matrices["encoder"])
    sums = {"encoder": zero, "head": zero}
    for part in model.parts():
        sums[part.group] = sums[part.group] + part.mass * matrices[part.name]
    return zero if alpha == 0 else sums["encoder"] / (alpha * beta) ** 2, sums["head"] / beta**2
