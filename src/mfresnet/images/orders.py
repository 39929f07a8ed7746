"""How an order of blocks changes: swaps between two orders, and where each block has been."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

Order = Int[Array, " blocks"]


def kendall(first: Order, second: Order) -> Int[Array, ""]:
    """Kendall's distance: the pairs of blocks in opposite order, which is the number of swaps of neighbours needed.

    >>> int(kendall(jnp.array([0, 1, 2]), jnp.array([2, 1, 0])))
    3
    """
    a, b = jnp.argsort(first), jnp.argsort(second)
    crossed = (a[:, None] - a) * (b[:, None] - b) < 0
    return jnp.sum(crossed, dtype=jnp.int32) // 2


def count_places(occupancy: Float[Array, "blocks places"], order: Order) -> Float[Array, "blocks places"]:
    """The number of steps that each block has spent at each place, one step later.

    >>> count_places(jnp.zeros((2, 2)), jnp.array([1, 0]))
    Array([[0., 1.],
           [1., 0.]], dtype=float32)
    """
    return occupancy.at[order, jnp.arange(len(order))].add(1)


def order_entropy(occupancy: np.ndarray) -> float:
    """Mean over blocks of the entropy of the places a block has been at, over log N: 0 if no block
    moves, 1 if every block is equally often everywhere.

    >>> order_entropy(np.eye(3)), round(order_entropy(np.ones((3, 3))), 6)
    (0.0, 1.0)
    """
    share = occupancy / np.maximum(occupancy.sum(-1, keepdims=True), 1)
    count = share.shape[-1]
    if count < 2:
        return 0.0
    logs = np.log(np.where(share > 0, share, 1.0))
    return float(abs(np.mean(np.sum(share * logs, -1))) / np.log(count))
