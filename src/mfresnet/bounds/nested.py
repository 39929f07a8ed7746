"""Errors of drawn sub-networks for many head sizes k' at once.

The first k' entries of a shuffled head are an exact draw of k' particles, so one draw of the largest head serves every
smaller one: the states are computed once and the heads are partial sums.
"""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from ..flow import Probes, is_misclassified
from ..model import AbstractResNet, Particles
from ..model.particles import preactivation
from .subnetwork import Draw, assemble, log_ratio_of

NUMBERS = 2**22  # activations of the head held at once, over draws computed side by side


def errors_by_heads(
    chosen: Draw,
    probes: Probes,
    model: AbstractResNet,
    x: Float[Array, "n inputs"],
    y: Float[Array, "n outputs"],
    heads: Sequence[int],
) -> np.ndarray:
    """Share of wrong points of each draw (rows) cut down to each of the ``heads`` (columns), float64.

    `subnetwork.draw_errors` of the same draws with k' = heads[g], up to rounding. Without head there is one column.

    >>> from mfresnet.bounds import draw_errors, draws, pool
    >>> from mfresnet.flow import Ensemble
    >>> from mfresnet import LayeredResNet
    >>> model = LayeredResNet.create(jax.random.key(0), inputs=2, depth=3)
    >>> probes = Ensemble.create(jax.random.key(1), model, encoder=4, head=8).probes
    >>> x, y = jax.random.normal(jax.random.key(2), (50, 2)), jnp.ones((50, 1))
    >>> chosen = draws(jax.random.key(3), 5, **pool(probes), residuals=6, heads=8)
    >>> errors = errors_by_heads(chosen, probes, model, x, y, (2, 8))
    >>> bool(np.allclose(errors[:, 1], draw_errors(chosen, probes, model, x, y)))
    True
    """
    return mistakes_by_heads(chosen, probes, model, x, y, heads).mean(axis=-1)


def mistakes_by_heads(
    chosen: Draw,
    probes: Probes,
    model: AbstractResNet,
    x: Float[Array, "n inputs"],
    y: Float[Array, "n outputs"],
    heads: Sequence[int],
) -> np.ndarray:
    """Which points each draw gets wrong (`flow.is_misclassified`), shape (draws, heads, n); see `errors_by_heads`."""
    sizes = jnp.asarray([0] if probes.head is None else list(heads), jnp.int32)
    return np.asarray(_mistakes(chosen, probes, model, x, y, sizes))


@eqx.filter_jit
def _mistakes(chosen: Draw, probes: Probes, model: AbstractResNet, x: Array, y: Array, sizes: Array) -> Array:
    side_by_side = max(1, min(8, NUMBERS // (x.shape[0] * max(1, chosen.head.shape[-1]))))

    def one(single: Draw) -> Array:
        network = assemble(single, probes, model)
        z = eqx.tree_at(lambda m: m.head, network, None, is_leaf=lambda leaf: leaf is None)(x)
        head = network.head
        if head is None:
            return is_misclassified(z, y)[None]
        mask = ((jnp.arange(head.width)[None, :] < sizes[:, None]) / sizes[:, None]).astype(z.dtype)
        if isinstance(head, Particles):
            values = model.sigma(preactivation(head, z))
            f = jnp.einsum("nk,kc,gk->gnc", values, model.beta * head.out, mask)
        else:
            f = jax.vmap(lambda weights: model.beta * head.weighted(z, weights, model.sigma))(mask)
        return jax.vmap(lambda values: is_misclassified(values, y))(f)

    return jax.lax.map(one, chosen, batch_size=side_by_side)


def log_ratios_by_heads(chosen: Draw, encoder: np.ndarray, head: np.ndarray | None, heads: Sequence[int]) -> np.ndarray:
    """log(dQ/dP) of each draw (rows) cut down to each of the ``heads`` (columns); see `errors_by_heads`."""
    columns = [0] if head is None else list(heads)
    counts = np.shape(chosen.residuals)
    cut = [chosen._replace(heads=np.full(counts, k)) for k in columns]
    return np.stack([log_ratio_of(one, encoder, head) for one in cut], axis=-1)
