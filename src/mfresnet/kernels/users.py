"""What is asked of a user's function f(params, x) before its kernel is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..errors import MfresnetError, calling

COUPLING = 1e-3  # largest change of an output by another point of the batch, relative to the outputs: rounding is below


def outputs_of(fn: Callable[[Any, Array], Array], params: Any, points: Array) -> int:
    """Outputs of each point, of a function that has a Jacobian point by point; others are refused.

    Args:
        fn: of parameters, all of them floating-point, and points.
        points: the first one or two.

    Raises:
        MfresnetError: the function fails, makes no floating-point array of shape (n, ...), NaN or infinity, has no
            derivative, or its output at a point depends on the other points of the batch.

    >>> outputs_of(lambda w, x: x @ w, jnp.ones((3, 2)), jnp.ones((2, 3)))
    2
    """
    with calling(f"the function f(params, x), at x of shape {points.shape},"):
        made = jax.eval_shape(fn, params, points)
    shape, kind = getattr(made, "shape", None), getattr(made, "dtype", np.dtype(object))
    if shape is None or len(shape) == 0 or shape[0] != len(points):
        raise MfresnetError(
            f"the function makes {type(made).__name__ if shape is None else shape} of x of shape {points.shape}: "
            f"return one array of shape ({len(points)}, ...), the outputs of each point."
        )
    if not jnp.issubdtype(kind, jnp.floating):
        raise MfresnetError(f"the function returns {kind}, which has no Jacobian: return floating-point outputs.")

    def both(params: Any) -> tuple[Array, Array]:
        return fn(params, points)[0], fn(params, points[:1])[0]

    with calling("the derivative of the function", "write it with differentiable functions of jax.numpy"):
        jax.eval_shape(jax.jacrev(both), params)
        jax.eval_shape(lambda params: jax.jvp(both, (params,), (params,)), params)
    together, alone = (np.asarray(one, np.float64) for one in jax.jit(both)(params))
    if not (np.isfinite(together).all() and np.isfinite(alone).all()):
        raise MfresnetError("the function returns NaN or infinity at the first point: check parameters and inputs.")
    if np.max(np.abs(together - alone)) > COUPLING * max(np.max(np.abs(together)), np.max(np.abs(alone))):
        raise MfresnetError(
            "the function couples the points of a batch (its output at a point changes with the others): put batch "
            "normalisation and dropout in evaluation mode."
        )
    return int(np.prod(shape[1:]))
