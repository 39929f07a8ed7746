"""How training lies on many devices: points along one axis of a mesh, particles along the other.

Only the places of arrays are stated; what a step then has to send follows from them. A device holds its share of the
particles of *every* layer, so a mean over particles is a sum over the devices of one row of the mesh, once a layer in
each direction; a sum over points (the loss, its gradient) is one over the devices of a column, once a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from ..model import AbstractParticles
from .field import Batch
from .state import LogRatio, OneToOne

T = TypeVar("T")
POINTS, PARTICLES = "points", "particles"


@dataclass(frozen=True)
class Layout:
    """Places of arrays on a mesh.

    Args:
        mesh: devices on the axes `POINTS` and `PARTICLES`.

    >>> from mfresnet.model import AbstractResNet
    >>> layout = Layout(AbstractMesh((1, 2), (POINTS, PARTICLES)))
    >>> from mfresnet import LayeredResNet
    >>> places = layout.of(LayeredResNet.create(jax.random.key(0), inputs=3, depth=5, width=4))
    >>> places.encoder.w.shard_shape((5, 4, 3)), places.encoder.b.shard_shape((5, 4))  # two of four particles
    ((5, 2, 3), (5, 2))
    """

    mesh: Mesh | AbstractMesh

    @property
    def shares(self) -> int:
        """Into how many shares the points are divided."""
        return self.mesh.shape[POINTS]

    @property
    def particle_shares(self) -> int:
        """Into how many shares the particles are divided."""
        return self.mesh.shape[PARTICLES]

    @property
    def points(self) -> NamedSharding:
        """Of an array whose first axis is that of the points."""
        return NamedSharding(self.mesh, PartitionSpec(POINTS))

    @property
    def whole(self) -> NamedSharding:
        """Of an array that every device holds."""
        return NamedSharding(self.mesh, PartitionSpec())

    def average(self, function: Callable[[Batch], T], batch: Batch) -> T:
        """``function(batch)`` of points that are divided among the devices, where its arrays are means over points.

        Each device takes the mean over its own points, and the sum over devices is one of a single array: between
        processes each array is a message of its own, which takes longer than its content. Where particles are divided
        too, the compiler places the sums.
        """
        if self.particle_shares > 1:
            return function(batch)

        def of_share(batch: Batch) -> T:
            means, restore = ravel_pytree(function(batch))
            weight = jnp.sum(batch.weights).astype(means.dtype)
            # a device that has no point but filling has no mean
            sums = jnp.append(jnp.where(weight > 0, weight * means, 0), weight)
            total = jax.lax.psum(sums, POINTS)
            return restore(total[:-1] / total[-1])

        places = PartitionSpec(POINTS), PartitionSpec()
        # without its check of what varies among devices, which adds up each gradient by itself
        return jax.shard_map(of_share, mesh=self.mesh, in_specs=places[:1], out_specs=places[1], check_vma=False)(batch)

    def of(self, tree: T) -> T:
        """The place of each array of a tree (None for what is no array).

        Particles, and what is known of each probe, are divided along the axis of the particles, and with them the
        moments that an optimiser keeps in the same shape. What has no such axis, or one that cannot be divided (a few
        probes), is on every device.
        """
        return jax.tree.map(self._of_node, tree, is_leaf=_has_particles)

    def _of_node(self, node: Any) -> Any:
        if isinstance(node, AbstractParticles):
            return jax.tree.map(
                lambda leaf, rank: None if leaf is None else self._of_array(leaf, rank + 1),
                node,
                node.ranks(),
                is_leaf=lambda leaf: leaf is None,
            )
        if isinstance(node, LogRatio | OneToOne):
            return jax.tree.map(lambda leaf: self._of_array(leaf, 1), node)
        return self._of_array(node)

    def _of_array(self, leaf: Any, from_last: int | None = None) -> NamedSharding | None:
        if not eqx.is_array(leaf):
            return None
        parts = self.particle_shares
        if parts == 1 or from_last is None or leaf.ndim < from_last or leaf.shape[-from_last] % parts:
            return self.whole
        axes: list[str | None] = [None] * leaf.ndim
        axes[-from_last] = PARTICLES
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    def held(self, tree: T) -> T:
        """The tree, inside a compiled program, with the promise that its arrays lie where `of` says.

        Left to itself the compiler may return a state that every device holds.
        """
        arrays, rest = eqx.partition(tree, eqx.is_array)
        return eqx.combine(jax.tree.map(jax.lax.with_sharding_constraint, arrays, self.of(arrays)), rest)


def _has_particles(node: Any) -> bool:
    return isinstance(node, AbstractParticles | LogRatio | OneToOne)
