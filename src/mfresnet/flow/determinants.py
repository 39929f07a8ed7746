"""The log-determinant of an Euler step, by elimination in plain array operations.

LAPACK's batched routines are not called here: on the CPU they share XLA's pool of threads with the program that calls
them and wait for its other workers, so two of them at once (head and encoder, or two programs) wait for ever on a
machine with two cores.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

PANEL = 16  # columns eliminated one by one; what is left of them is taken off by products of matrices


def log_determinants(curvature: tuple[Array, Array], h: float | Array) -> tuple[Array, Array]:
    """-log|det(I - h Hess Phi)| of one Euler step for each probe, and whether the matrix is positive definite there.

    The Hessian of Phi in (out, (w, b)) is [[0, A], [A^T, B]], so the determinant is that of the Schur
    complement I - h B - h^2 A^T A, and the matrix is positive definite where the complement is.
    """
    mixed, bend = curvature
    eye = jnp.broadcast_to(jnp.eye(bend.shape[-1], dtype=bend.dtype), bend.shape)
    schur = eye - h * bend - h**2 * jnp.einsum("...oi,...oj->...ij", mixed, mixed)
    value, definite = eliminate_all(schur)
    return -value, definite


def eliminate_all(matrix: Float[Array, "*batch q q"]) -> tuple[Float[Array, "*batch"], Bool[Array, "*batch"]]:
    """log|det| of symmetric matrices and whether they are positive definite, by A = L D L^T without pivoting.

    det A = prod_j d_j, and A is positive definite where every d_j > 0. For a positive definite matrix that is as stable
    as Cholesky's factor; for another one the error grows with max |A|/min |d_j|, and such a step is marked anyway.

    >>> value, definite = eliminate_all(jnp.array([[[2.0, 1.0], [1.0, 2.0]], [[1.0, 2.0], [2.0, 1.0]]]))
    >>> value.round(4).tolist(), definite.tolist()
    ([1.0986000299453735, 1.0986000299453735], [True, False])
    """
    rest, batch = matrix, matrix.shape[:-2]
    value, definite = jnp.zeros(batch, matrix.dtype), jnp.ones(batch, bool)
    while rest.shape[-1]:
        size = min(PANEL, rest.shape[-1])
        columns, pivots = _panel(rest[..., :size])
        value = value + jnp.sum(jnp.log(jnp.abs(pivots)), -1)
        definite = definite & jnp.all(pivots > 0, -1)
        below = columns[..., size:, :]
        rest = rest[..., size:, size:] - jnp.einsum("...ik,...jk->...ij", below / _nonzero(pivots)[..., None, :], below)
    return value, definite


def _panel(columns: Array) -> tuple[Array, Array]:
    """The first columns of a symmetric matrix, each less its part along those before it, and their pivots."""
    size = columns.shape[-1]

    def eliminate(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        columns, pivots = carry
        column = jax.lax.dynamic_index_in_dim(columns, j, -1, keepdims=False)
        row = jax.lax.dynamic_index_in_dim(columns, j, -2, keepdims=False)
        pivot = jax.lax.dynamic_index_in_dim(row, j, -1, keepdims=False)
        right = jnp.where(jnp.arange(size) > j, row / _nonzero(pivot)[..., None], 0)
        return columns - column[..., :, None] * right[..., None, :], pivots.at[..., j].set(pivot)

    return jax.lax.fori_loop(0, size, eliminate, (columns, jnp.zeros((*columns.shape[:-2], size), columns.dtype)))


def _nonzero(pivot: Array) -> Array:
    return jnp.where(pivot == 0, jnp.finfo(pivot.dtype).tiny, pivot)
