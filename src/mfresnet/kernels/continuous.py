"""Gram matrices of the continuous model, whose particles move in (theta, t) ([L20], arXiv 2003.05508)."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from ..model import ContinuousResNet
from .precision import cast, double_precision

POINTS = 32  # differentiated at once
PARTS = ("encoder", "t", "head")


@eqx.filter_jit
def _jacobians(network: ContinuousResNet, x: Float[Array, "n inputs"]) -> dict[str, Float[Array, "outputs parameters"]]:
    """Derivatives of all outputs with respect to each part that is there, rows (i, c) -> i C + c."""
    parts = {name: getattr(network, name) for name in PARTS if getattr(network, name) is not None}

    def single(parts: dict[str, Any], point: Array) -> Array:
        moved = eqx.tree_at(lambda m: [getattr(m, name) for name in parts], network, list(parts.values()))
        return moved(point[None])[0]

    jacobians = jax.lax.map(lambda point: jax.jacrev(single)(parts, point), x, batch_size=POINTS)
    rows = {name: jax.tree.leaves(part) for name, part in jacobians.items()}
    return {
        name: jnp.concatenate([leaf.reshape(leaf.shape[0] * leaf.shape[1], -1) for leaf in leaves], axis=1)
        for name, leaves in rows.items()
    }


def continuous_gram(
    model: ContinuousResNet, x: Any, *, other: Any = None, dtype: Any = np.float64
) -> tuple[np.ndarray, np.ndarray]:
    """G1 and G2 of a continuous network, by differentiation.

        G1 = (N J_theta J_theta^T + J_t J_t^T) / alpha^2,      G2 = K J_tau J_tau^T,      J of g = f / beta

    so that dLhat/dt = -(beta^2/n^2) r^T (alpha^2 G1 + G2) r along the flow, places moving with -dLoss/dt. An embedding
    is not part of them. Memory: n C numbers for each parameter.

    Returns:
        Two matrices of shape (n C, n' C); zeros for what is not there (a head, or an encoder of alpha 0).

    >>> import jax
    >>> model = ContinuousResNet.create(jax.random.key(0), particles=6, inputs=2, head_width=5)
    >>> encoder, head = continuous_gram(model, np.eye(2))
    >>> encoder.shape, bool(np.allclose(encoder, encoder.T))
    ((2, 2), True)
    """
    with double_precision():
        network = cast(model, dtype)
        left = _jacobians(network, jnp.asarray(x, dtype))
        right = left if other is None else _jacobians(network, jnp.asarray(other, dtype))
        matrices = {name: np.asarray(one) @ np.asarray(right[name]).T for name, one in left.items()}
    alpha, beta = float(model.alpha), float(model.beta)
    zero = np.zeros_like(matrices["t"])
    encoder = zero if alpha == 0 else (model.depth * matrices["encoder"] + matrices["t"]) / (alpha * beta) ** 2
    head = zero if model.head is None else model.head.width * matrices["head"] / beta**2
    return encoder, head
