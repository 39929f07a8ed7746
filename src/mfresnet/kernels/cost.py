"""What the empirical Gram matrix of many points would cost, projected from one block of them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ..errors import MfresnetError
from .empirical import Function, as_points, jacobian_rows, moving_parts
from .precision import check_dtype, double_precision


@dataclass(frozen=True)
class GramCost:
    """See `empirical_cost`.

    Args:
        points, outputs, parameters: n, C and the numbers of the parameters.
        block: points whose Jacobian is held at once.
        matrix_bytes: of the result.
        jacobian_bytes: of the Jacobians of two blocks, which are held beside it.
        flops: of the products of Jacobians.
        seconds: on this machine.
    """

    points: int
    outputs: int
    parameters: int
    block: int
    matrix_bytes: int
    jacobian_bytes: int
    flops: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.points} points, {self.outputs} outputs, {self.parameters} parameters: matrix "
            f"{self.matrix_bytes / 2**30:.3g} GiB, Jacobians {self.jacobian_bytes / 2**30:.3g} GiB (blocks of "
            f"{self.block} points), {self.flops:.2g} operations, about {self.seconds:.2g} s"
        )


def empirical_cost(
    fn: Function, params: Any, x: Any, *, points: int | None = None, block: int | None = None, dtype: Any = np.float64
) -> GramCost:
    """Memory, operations and time of `empirical_gram` at n points; nothing but one block is computed.

    With B = n/block, symmetry leaves B(B + 1)/2 products of Jacobians, of 2 (block C)^2 P operations each, and a block
    is differentiated anew for each row of blocks: at most B(B + 1)/2 times in all. Both are measured once, after
    compiling, and multiplied. Twice the block halves the second part and doubles the memory of Jacobians.

    Args:
        fn, params, block, dtype: as in `empirical_gram`.
        x: inputs, at least one; those of one block are used.
        points: n; default: the number of inputs.

    Raises:
        MfresnetError: points below 1, or what `empirical_gram` refuses.

    >>> import jax.numpy as jnp
    >>> cost = empirical_cost(lambda w, x: x @ w, jnp.ones((3, 2)), np.eye(3), points=1000, block=3)
    >>> cost.matrix_bytes, cost.jacobian_bytes, cost.parameters
    (32000000, 576, 6)
    """
    dtype, inputs = check_dtype(dtype), as_points(x, "x")
    n = len(inputs) if points is None else points
    if n < 1:
        raise MfresnetError(f"points = {points} is not allowed: give a value >= 1.")
    with double_precision():
        moving, constant = moving_parts(params, dtype)
        rows, outputs, length = jacobian_rows(fn, moving, constant, inputs, dtype, block)
        size = sum(leaf.size for leaf in jax.tree.leaves(moving))
        part = inputs[:length]

        def product() -> Any:
            return jax.block_until_ready([a @ a.T for a in held])

        jax.block_until_ready(rows(part))
        begin = time.perf_counter()
        held = jax.block_until_ready(rows(part))
        between = time.perf_counter()
        product()
        compiled = time.perf_counter()
        product()
        seconds = between - begin + time.perf_counter() - compiled
    blocks = n / length
    pairs = blocks * (blocks + 1) / 2
    return GramCost(
        points=n,
        outputs=outputs,
        parameters=size,
        block=length,
        matrix_bytes=(n * outputs) ** 2 * dtype.itemsize,
        jacobian_bytes=2 * length * outputs * size * dtype.itemsize,
        flops=2.0 * pairs * (length * outputs) ** 2 * size,
        seconds=pairs * seconds,
    )
