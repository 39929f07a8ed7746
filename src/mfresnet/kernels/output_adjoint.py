"""States and adjoints of the outputs in a stated precision, from checked input."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..flow import adjoint
from ..flow.adjoint import check_euler
from ..model import AbstractResNet
from .precision import cast, check_dtype, check_rows, double_precision


def input_width(model: AbstractResNet) -> int:
    """Number of columns the model expects of its inputs."""
    return model.inputs


def ranks_of(model: AbstractResNet) -> dict[str, int]:
    """Upper bounds of the ranks of G1, G2 and G: the numbers that move in encoder, head and both.

    A Gram matrix is J J^T, with a column of J for each number. Where n C exceeds them, lambda_min is 0.

    >>> from mfresnet import LayeredResNet
    >>> ranks_of(LayeredResNet.create(jax.random.key(0), inputs=2, depth=3, width=4, head_width=5))
    {'encoder': 60, 'head': 20, 'total': 80}
    """
    sizes = {"encoder": 0, "head": 0}
    for part in model.parts():
        sizes[part.group] += sum(leaf.size for leaf in jax.tree.leaves(getattr(model, part.name)))
    encoder, head = sizes.values()
    return {"encoder": encoder, "head": head, "total": encoder + head}


@jax.jit
def states_and_adjoints(model: AbstractResNet, x: Array) -> tuple[Array, Array]:
    """z of shape (L+1, n, D) and q of shape (L+1, n, C, D), see `mfresnet.flow.adjoint`."""
    passes = adjoint(model, x)
    return passes.z, passes.q


def output_adjoint(model: AbstractResNet, x: Any, *, dtype: Any = np.float64) -> np.ndarray:
    """The adjoint q of the outputs: how output c of point i moves with its state at depth l.

        q_L = 1/K sum_k a_k sigma0'(w_k . z_L + b_k) w_k        (without head: the identity)
        q_l = q_{l+1} + alpha/(L M) sum_m (u_lm . q_{l+1}) sigma0'(w_lm . z_l + b_lm) w_lm

    that is q_l = dg/dz_l with g = f / beta ([C24] eq. 6), without beta.

    Args:
        model: an Euler network of any number of outputs C.
        x: inputs, shape (n, d).
        dtype: float64 (default) or float32.

    Returns:
        q of shape (L+1, n, C, D).

    Raises:
        MfresnetError: a scheme other than Euler, inputs of the wrong width, NaN or infinite entries.

    >>> import jax
    >>> from mfresnet import LayeredResNet
    >>> model = LayeredResNet.create(jax.random.key(0), inputs=2, depth=3, width=4, outputs=1)
    >>> output_adjoint(model, [[1.0, 0.0], [0.6, 0.8]]).shape
    (4, 2, 1, 2)
    """
    check_euler(model)
    table, dtype = check_rows(x, columns=input_width(model)), check_dtype(dtype)
    with double_precision():
        return np.array(states_and_adjoints(cast(model, dtype), jnp.asarray(table, dtype))[1])
