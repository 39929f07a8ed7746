"""A family: blocks of one shape, stacked along a leading axis and swept by one `lax.scan`.

Compile time does not grow with the number of blocks. The sweep is given an order and a step for each block, and that
is all that the rules of `images.rules` need. Blocks are never moved in memory: parameters, their momentum, their
running statistics and their depth coordinate stay at the block's own index, and the sweep reads them in the order
asked for. So whatever belongs to a block follows it by construction, and a step costs one gather of the parameters;
sorting in place would move momentum and statistics as well.

Your own block is an Equinox module that returns its branch F(x) and its state (``()`` for none):

>>> class Dense(eqx.Module):
...     weight: Array
...
...     def __init__(self, key):
...         self.weight = 0.1 * jax.random.normal(key, (4, 4))
...
...     def __call__(self, x, state, train):
...         return jnp.tanh(x @ self.weight), state
>>> from mfresnet.images import Place, make_rule
>>> blocks = stack(Dense, jax.random.split(jax.random.key(0), 6))
>>> rule, place = make_rule("mean-field"), Place(first=1, count=6, total=6)
>>> def loss(blocks, t, order, x):
...     y, _ = sweep(blocks, (), x, rule.plan(t, order, place), train=True)
...     return jnp.mean((y - 1) ** 2)
>>> gradient = jax.jit(jax.grad(loss, (0, 1)))
>>> t, order, rate = rule.init(place), jnp.arange(6), 0.3
>>> for step in range(50):
...     order = rule.arrange(t, order, step, jax.random.key(step))
...     g_blocks, g_t = gradient(blocks, t, order, jnp.ones((1, 4)))
...     blocks, t = jax.tree.map(lambda p, g: p - rate * g, (blocks, t), (g_blocks, g_t))
>>> bool(loss(blocks, t, order, jnp.ones((1, 4))) < 0.01), t["s"].shape
(True, (6,))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

Tree = TypeVar("Tree")


class Place(eqx.Module):
    """Where a family stands in its network: its blocks are numbers first .. first + count - 1 of total, from 1."""

    first: int = eqx.field(static=True)
    count: int = eqx.field(static=True)
    total: int = eqx.field(static=True)


class Plan(eqx.Module):
    """How a family is swept; all in the order of the sweep, j = 0 .. N - 1.

        u_{j+1} = (1 - k_j) u_j + k_j u_{j-1} + h_j F(u_j; theta_{order_j}),     u_{-1} := u_0

    Args:
        steps: h_j.
        order: the block at each place of the sweep; None for 0, 1, .., which costs no gather.
        mix: k_j; None for zero.
    """

    steps: Float[Array, " blocks"]
    order: Int[Array, " blocks"] | None = None
    mix: Float[Array, " blocks"] | None = None


def stack(make: Callable[[Array], Tree], keys: Array) -> Tree:
    """Blocks of one shape, one for each key, with their arrays stacked along a leading axis."""
    return eqx.filter_vmap(make)(keys)


def permute(tree: Tree, order: Int[Array, " blocks"]) -> Tree:
    """Every array read in this order along its first axis.

    >>> permute({"a": jnp.array([10, 20, 30])}, jnp.array([2, 0, 1]))["a"]
    Array([30, 10, 20], dtype=int32)
    """
    # a permutation repeats no index and leaves no bound: its derivative needs neither atomics nor checks
    return jax.tree.map(
        lambda leaf: leaf.at[order].get(unique_indices=True, mode="promise_in_bounds") if eqx.is_array(leaf) else leaf,
        tree,
    )


def sweep(blocks: Any, states: Any, x: Array, plan: Plan, train: bool) -> tuple[Array, Any]:
    """Send x through all blocks in the plan's order.

    Args:
        blocks: a stack of blocks (`stack`), each called as ``block(x, state, train) -> (F(x), state)``.
        states: the stack of their states, ``()`` where they have none.
        x: the input of the first block; every block keeps its shape.
        plan: order, steps and mixing of `Plan`.
        train: whether the blocks are in training (batch statistics) or evaluation.

    Returns:
        The output of the last block, and the states, each at its block's own index.
    """
    arrays, static = eqx.partition(blocks, eqx.is_array)
    before = states
    if plan.order is not None:
        arrays, before = permute((arrays, states), plan.order)

    def body(carry: tuple[Array, Array | None], given: tuple) -> tuple[tuple[Array, Array | None], Any]:
        u, last = carry
        parameters, state, step, mix = given
        branch, state = eqx.combine(parameters, static)(u, state, train)
        after = u + step.astype(u.dtype) * branch
        if last is not None:
            after = after + mix.astype(u.dtype) * (last - u)
        return (after, None if last is None else u), state

    start = (x, None if plan.mix is None else x)
    (y, _), after = jax.lax.scan(body, start, (arrays, before, plan.steps, plan.mix))
    if plan.order is not None:
        after = permute(after, jnp.argsort(plan.order))
    return y, after
