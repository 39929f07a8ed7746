"""Gram matrices of the scaled ResNet in closed form, from states and adjoints ([C24] section 3, arXiv 2403.09889).

No Jacobian is formed: a layer costs two products of size n x n x M. `gram` gives the matrices,
`gram_operator` (in `matrix_free`) their products with vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..errors import MfresnetError
from ..flow.adjoint import check_euler
from ..model import AbstractParticles, AbstractResNet, Activation, Particles, scaling
from ..model.particles import preactivation, row_factors, split_rows
from .blocks import block_length, cores, fill, pair_batches, split
from .matrix_free import GramOperator, gram_operator
from .output_adjoint import input_width, ranks_of, states_and_adjoints
from .parts import gram_by_parts
from .precision import cast, check_dtype, check_rows, double_precision, equal_rows_note

__all__ = ["Gram", "GramOperator", "gram", "gram_operator"]

FEATURE_BYTES = 2**30  # features of all layers are kept when they fit in this, else computed again for each pair
CHUNK_BYTES = 2**25  # of the features of one group of particles, where depth shares the law


@dataclass(frozen=True)
class Gram:
    """Gram matrices of shape (n C, n' C), index (i, c) -> i C + c.

    Args:
        encoder: G1, or None where only the total was held.
        head: G2, or None where only the total was held.
        total: G = alpha^2 G1 + G2.
        outputs: C.
        notes: what a reader should know, for example which rows of x are equal.
        ranks: upper bounds of the ranks by name, from the number of parameters (`sweeps.ranks_of`).
    """

    encoder: np.ndarray | None
    head: np.ndarray | None
    total: np.ndarray
    outputs: int
    notes: tuple[str, ...] = ()
    ranks: Mapping[str, int] = field(default_factory=dict)


class _Block(NamedTuple):
    """One block of points: what the layers (leading axis) and the head contribute to its rows.

    A side of the matrix is all its blocks, along one more leading axis.
    """

    z: Array  # (L, b, D), states entering the layers
    q: Array  # (L, b C, D), adjoints leaving them
    features: tuple[Array, Array] | None  # of `row_factors`, or None where they are computed again for each pair
    last: Array  # (b, D), states at s = 1


def gram(
    model: AbstractResNet,
    x: Any,
    *,
    other: Any = None,
    block: int | None = None,
    hold: Literal["all", "total"] = "all",
    dtype: Any = np.float64,
) -> Gram:
    """Gram matrices of encoder and head, and their sum.

        G1_{(i,c),(j,c')} = 1/L sum_l [ (q_ic . q_jc') 1/M sum_m s_i s_j
                                        + (z_i . z_j + 1) 1/M sum_m (u_m . q_ic) (u_m . q_jc') s'_i s'_j ]
        G2_{(i,c),(j,c')} = delta_cc' 1/K sum_k s_i s_j + (z_i . z_j + 1) 1/K sum_k a_kc a_kc' s'_i s'_j
        G = alpha^2 G1 + G2,

    with s = sigma0(w . z + b), z = z_l and q = q_{l+1} in G1, z = z_L in G2. In terms of the Jacobian J of
    g = f / beta: G1 = (L M / alpha^2) J_nu J_nu^T and G2 = K J_tau J_tau^T ([C24] section 3). Variants:

    - without bias the ``+ 1`` is absent; without head q_L is the identity, G2 = 0 and G is of the state itself;
    - where depth shares one law, one particle serves every layer, so the mean over depth is inside
      the particle: G1 = 1/M sum_m < 1/L sum_l dphi_i, 1/L sum_l dphi_j > with dphi = (q s, (u . q) s' (z, 1)),
      which is (M / alpha^2) J_nu J_nu^T;
    - a `ContinuousResNet` differentiates its particles (theta, t): see `gram_by_parts`;
    - with an embedding z_0 = E x; the gradient with respect to E itself is not part of G.

    Memory: the results, the states and adjoints (L n (1 + C) D numbers) and about 1 GiB. n = 20,000 with
    C = 1 takes 9.6 GB in float64, 3.2 GB with ``hold="total"``.

    Args:
        model: an Euler network.
        x: inputs, shape (n, d). Every real type is promoted, float16 too.
        other: a second set of inputs, shape (n', d), for the cross Gram matrix; default: x itself.
        block: points computed at once (default: measured best).
        hold: "all", or "total" for G alone.
        dtype: float64, or float32 where speed matters more than small eigenvalues.

    Returns:
        The matrices, as NumPy arrays of that type.

    Raises:
        MfresnetError: a scheme other than Euler, inputs of the wrong width, NaN or infinite entries.

    >>> import jax
    >>> from mfresnet import LayeredResNet
    >>> model = LayeredResNet.create(jax.random.key(0), inputs=2, depth=3, width=4, head_width=5, alpha=2.0)
    >>> result = gram(model, [[1.0, 0.0], [0.6, 0.8], [1.0, 0.0]])
    >>> result.total.shape, bool(np.allclose(result.total, 4 * result.encoder + result.head))
    ((3, 3), True)
    >>> result.notes
    ('rows 0 and 2 of x are equal, so lambda_min of the Gram is 0',)
    """
    if model.places is not None:  # no closed form: layers share no places
        rows = check_rows(x, columns=input_width(model))
        of_encoder, of_head = gram_by_parts(model, rows, other=other, dtype=check_dtype(dtype))
        total = float(model.alpha) ** 2 * of_encoder + of_head
        notes = equal_rows_note(rows) if other is None else ()
        return Gram(of_encoder, of_head, total, len(total) // len(rows), notes, ranks_of(model))
    check_euler(model)
    if hold not in ("all", "total"):
        raise MfresnetError(f"hold = {hold!r} is not allowed: give one of all, total.")
    dtype, width = check_dtype(dtype), input_width(model)
    left = check_rows(x, columns=width)
    right = None if other is None else check_rows(other, "other", columns=width)
    outputs = model.outputs
    length = block_length(max(len(left), 0 if right is None else len(right)), outputs, block)
    shape = (len(left) * outputs, len(left if right is None else right) * outputs)
    total = np.empty(shape, dtype)
    encoder, head = (np.empty(shape, dtype), np.empty(shape, dtype)) if hold == "all" else (None, None)
    points = len(left) + (0 if right is None else len(right))
    with double_precision():
        cast_model = cast(model, dtype)
        # features of every point, layer and particle, in s and in (u . q) s'
        keep = (
            not model.shared
            and isinstance(model.encoder, Particles)
            and (points * (1 + outputs) * model.depth * model.encoder.width * dtype.itemsize <= FEATURE_BYTES)
        )
        chunk = _chunk_width(model, length * outputs, dtype)

        def blocks(table: np.ndarray) -> _Block:
            return _blocks(cast_model, jnp.asarray(split(table, length), dtype), keep)

        rows = blocks(left)
        columns = rows if right is None else blocks(right)
        workers = cores()
        batches = pair_batches(
            len(rows.z), None if right is None else len(columns.z), (length * outputs) ** 2 * dtype.itemsize, workers
        )

        def products(pairs: np.ndarray) -> tuple[Array | None, Array | None, Array]:
            with double_precision():  # of the thread
                return _products(cast_model, rows, columns, pairs, all_parts=hold == "all", chunk=chunk)

        fill((encoder, head, total), batches, products, symmetric=right is None, workers=workers)
    notes = () if right is not None else equal_rows_note(left)
    return Gram(encoder, head, total, outputs, notes, ranks_of(model))


def _chunk_width(model: AbstractResNet, rows: int, dtype: np.dtype) -> int:
    """Particles treated at once where depth shares the law."""
    per_particle = rows * model.encoder.size * dtype.itemsize
    return max(1, min(model.encoder.width, CHUNK_BYTES // per_particle))


@partial(jax.jit, static_argnums=2)
def _blocks(model: AbstractResNet, x: Array, keep: bool) -> _Block:
    """All blocks of one side, from points of shape (blocks, b, d)."""
    return jax.lax.map(lambda points: _block(model, points, keep), x)


def _block(model: AbstractResNet, x: Array, keep: bool) -> _Block:
    z, q = states_and_adjoints(model, x)
    entering, leaving = z[:-1], q[1:].reshape(model.depth, -1, z.shape[-1])
    layers = (model.encoder, entering, leaving)
    features = (
        jax.lax.map(lambda layer: row_factors(layer[0], layer[1], layer[2], model.sigma), layers) if keep else None
    )
    return _Block(entering, leaving, features, z[-1])


@partial(jax.jit, static_argnames=("all_parts", "chunk"))
def _products(
    model: AbstractResNet, rows: _Block, columns: _Block, pairs: Array, *, all_parts: bool, chunk: int
) -> tuple[Array | None, Array | None, Array]:
    """The blocks of G1, G2 and G for a batch of pairs of blocks of points, one after the other."""

    def one(pair: Array) -> tuple[Array | None, Array | None, Array]:
        left, right = (
            jax.tree.map(lambda leaf, k=k: jax.lax.dynamic_index_in_dim(leaf, k, keepdims=False), side)
            for side, k in zip((rows, columns), pair, strict=True)
        )
        return _product(model, left, right, all_parts=all_parts, chunk=chunk)

    return jax.lax.map(one, pairs)


def _product(
    model: AbstractResNet, left: _Block, right: _Block, *, all_parts: bool, chunk: int
) -> tuple[Array | None, Array | None, Array]:
    """The blocks of G1, G2 and G for one pair of blocks of points."""
    mass = scaling.encoder_mass(*model.encoder.batch)
    if model.shared:
        encoder = _shared_product(model, left, right, chunk) / (mass * model.depth**2)
    else:
        encoder = _layered_product(model, left, right) / mass
    head = jnp.zeros_like(encoder) if model.head is None else _head_product(model.head, model.sigma, left, right)
    total = model.alpha**2 * encoder + head
    return (encoder, head, total) if all_parts else (None, None, total)


def _layered_product(model: AbstractResNet, left: _Block, right: _Block) -> Array:
    """L M times the block of G1: a running sum over layers, so that nothing of size L n n exists."""

    def add(total: Array, layer: tuple[Any, ...]) -> tuple[Array, None]:
        particles, zi, qi, fi, zj, qj, fj = layer
        if not isinstance(particles, Particles):
            return total + _outer(particles.rows(zi, qi, model.sigma), particles.rows(zj, qj, model.sigma)), None
        bias = 0.0 if particles.b is None else 1.0
        si, vi = row_factors(particles, zi, qi, model.sigma) if fi is None else fi
        sj, vj = row_factors(particles, zj, qj, model.sigma) if fj is None else fj
        values = _pairs(si, sj, _outer(qi, qj))
        return total + values + _pairs(zi, zj, _outer(vi, vj), bias), None

    start = jnp.zeros((left.q.shape[1], right.q.shape[1]), left.q.dtype)
    over = (model.encoder, left.z, left.q, left.features, right.z, right.q, right.features)
    return jax.lax.scan(add, start, over)[0]


def _head_product(head: AbstractParticles, sigma: Activation, left: _Block, right: _Block) -> Array:
    """The block of G2."""
    if not isinstance(head, Particles):
        each = jnp.eye(head.outputs, dtype=left.last.dtype)
        rows, columns = (head.rows(one, jnp.tile(each, (len(one), 1)), sigma) for one in (left.last, right.last))
        return _outer(rows, columns) / scaling.head_mass(head.width)
    pre_i, pre_j = preactivation(head, left.last), preactivation(head, right.last)
    (bi, bj), outputs = (len(left.last), len(right.last)), head.a.shape[-1]

    def slopes(pre: Array) -> Array:
        first = sigma.first(pre).astype(pre.dtype)
        return (first[:, None, :] * head.a.T[None, :, :]).reshape(-1, head.width)

    values = _outer(sigma(pre_i).astype(pre_i.dtype), sigma(pre_j).astype(pre_j.dtype))
    same = values[:, None, :, None] * jnp.eye(outputs, dtype=values.dtype)[None, :, None, :]
    bias = 0.0 if head.b is None else 1.0
    moved = _pairs(left.last, right.last, _outer(slopes(pre_i), slopes(pre_j)), bias)
    return (same.reshape(bi * outputs, bj * outputs) + moved) / scaling.head_mass(head.width)


def _shared_product(model: AbstractResNet, left: _Block, right: _Block, chunk: int) -> Array:
    """L^2 M times the block of G1 where depth shares the law, by groups of particles."""
    particles = model.encoder.layer(0)
    width = particles.width
    groups = -(-width // chunk)

    def group(leaf: Array) -> Array:
        padded = jnp.pad(leaf, [(0, groups * chunk - width)] + [(0, 0)] * (leaf.ndim - 1))
        return padded.reshape(groups, chunk, *leaf.shape[1:])

    def add(total: Array, group: tuple[AbstractParticles, Array]) -> tuple[Array, None]:
        fi, fj = (_shared_features(model.sigma, *group, side) for side in (left, right))
        return total + _outer(fi, fj), None

    start = jnp.zeros((left.q.shape[1], right.q.shape[1]), left.q.dtype)
    real = group(jnp.ones(width, start.dtype))
    return jax.lax.scan(add, start, (jax.tree.map(group, particles), real))[0]


def _shared_features(sigma: Activation, particles: AbstractParticles, real: Array, side: _Block) -> Array:
    """sum_l of what a particle feels, shape (b C, M numbers); ``real`` is 0 for the particles of the padding."""

    def features(layer: tuple[Array, Array]) -> tuple[Array, ...]:
        if isinstance(particles, Particles):
            return tuple(part.reshape(len(layer[1]), -1) for part in split_rows(particles, *layer, sigma))
        return (particles.rows(*layer, sigma),)

    def add(total: tuple[Array, ...], layer: tuple[Array, Array]) -> tuple[tuple[Array, ...], None]:
        return jax.tree.map(jnp.add, total, features(layer)), None

    start = jax.tree.map(jnp.zeros_like, jax.eval_shape(features, (side.z[0], side.q[0])))
    summed = jax.lax.scan(add, start, (side.z, side.q))[0]
    rows, chunk = side.q.shape[1], len(real)
    masked = [leaf.reshape(rows, chunk, -1) * real[None, :, None] for leaf in summed]
    return jnp.concatenate(masked, axis=2).reshape(rows, -1)


def _outer(rows: Array, columns: Array) -> Array:
    """All inner products of rows with columns."""
    return jax.lax.dot_general(rows, columns, (((1,), (1,)), ((), ())))


def _pairs(rows: Array, columns: Array, matrix: Array, plus: float = 0.0) -> Array:
    """(rows_i . columns_j + plus) matrix_{(i,c),(j,c')}."""
    weights = _outer(rows, columns) + plus
    if weights.shape == matrix.shape:
        return weights * matrix
    (bi, bj), (mi, mj) = weights.shape, matrix.shape
    return (weights[:, None, :, None] * matrix.reshape(bi, mi // bi, bj, mj // bj)).reshape(mi, mj)
