"""The field of points that are divided among devices: one message for each evaluation.

Left to itself the compiler adds up every array of the gradient on its own, 90 to 160 small messages a step at ten
layers. Each of them waits for all processes, so that a small run on two processes mostly waits.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.sharding import PartitionSpec

from ..model import AbstractResNet
from .field import Batch, Field, Options, Probes, field
from .layout import POINTS, Layout


def field_of_shares(
    layout: Layout,
    model: AbstractResNet,
    trained: AbstractResNet,
    batch: Batch,
    options: Options,
    probes: Probes | None = None,
    curvature: str = "none",
) -> Field:
    """`field`, where each device holds a share of the points and the whole network.

    The field is a mean over the points, so that it is the mean over the shares, weighted by their weights W_s:
    sum_s W_s field_s / sum_s W_s, of which all sums are sent as one vector.

    Args:
        layout: whose devices share points and no particles.
        batch: its length is a multiple of the number of shares.
    """
    arrays, static = eqx.partition((model, probes), eqx.is_array)

    def sums(arrays: object, batch: Batch) -> Array:
        model, probes = eqx.combine(arrays, static)
        weight = jnp.sum(batch.weights)
        # a share of copies alone has weight 0 and no mean
        own = batch._replace(weights=jnp.where(weight > 0, batch.weights, 1.0))
        vector, _ = ravel_pytree(field(model, trained, own, options, probes, curvature))
        return jax.lax.psum(jnp.append(weight * vector, weight), POINTS)

    whole, points = PartitionSpec(), PartitionSpec(POINTS)
    total = jax.shard_map(sums, mesh=layout.mesh, in_specs=(whole, points), out_specs=whole, check_vma=False)(
        arrays, batch
    )
    shape = jax.eval_shape(lambda: field(model, trained, batch, options, probes, curvature))
    _, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shape))
    return unravel(total[:-1] / total[-1])
