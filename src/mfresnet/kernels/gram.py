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
from ..flow.adjoint import check_euler, head_adjoint
from ..model import AbstractParticles, AbstractResNet, Activation, Particles, scaling
from ..model.particles import preactivation, row_factors, split_rows
from ..threads import cores, spread
from .blocks import block_length, fill, pair_batches, split
from .matrix_free import GramOperator, gram_operator
from .output_adjoint import input_width, ranks_of, states_and_adjoints
from .parts import gram_by_parts
from .precision import cast, check_dtype, check_rows, double_precision, equal_rows_note

__all__ = ["Gram", "GramOperator", "gram", "gram_operator"]

FEATURE_BYTES = 2**30  # features of all layers are kept when they fit in this, else computed again for each pair
SHARED_BLOCKS = 8  # fewer are not worth threads for their features
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


class _Side(NamedTuple):
    """What the layers (leading axis) and the head contribute to the rows of all points (last axis but one)."""

    z: Array  # (L, n, D), states entering the layers
    q: Array  # (L, n C, D), adjoints leaving them
    features: tuple[Array, Array] | None  # of `row_factors`, or None where they are computed again for each pair
    last: Array  # (n, D), states at s = 1
    head: tuple[Array, ...]  # of `_head_features`


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
        # features of every point, layer and particle, in s and in (u . q) s'
        keep = (
            not model.shared
            and isinstance(model.encoder, Particles)
            and (points * (1 + outputs) * model.depth * model.encoder.width * dtype.itemsize <= FEATURE_BYTES)
        )
        chunk = _chunk_width(model, length * outputs, dtype) if model.shared else 0
        options = {"length": length, "all_parts": hold == "all", "chunk": chunk}
        cast_model, workers = cast(model, dtype), cores()

        def side_of(points: np.ndarray) -> _Side:
            return _side(cast_model, points.reshape(-1, width).astype(dtype), keep)

        def side(table: np.ndarray) -> tuple[_Side, int]:
            blocks = split(table, length)
            parts = spread(side_of, np.array_split(blocks, workers if len(blocks) >= SHARED_BLOCKS else 1), workers)
            return parts[0] if len(parts) == 1 else _joined(parts), len(blocks)

        def products(pairs: np.ndarray) -> tuple[Array | None, Array | None, Array]:
            return _products(cast_model, rows, columns, pairs, **options)

        rows, down = side(left)
        columns, across = (rows, None) if right is None else side(right)
        batches = pair_batches(down, across, (length * outputs) ** 2 * dtype.itemsize, workers)
        fill((encoder, head, total), batches, products, symmetric=right is None, workers=workers)
    notes = () if right is not None else equal_rows_note(left)
    return Gram(encoder, head, total, outputs, notes, ranks_of(model))


def _chunk_width(model: AbstractResNet, rows: int, dtype: np.dtype) -> int:
    """Particles treated at once where depth shares the law."""
    per_particle = rows * model.encoder.size * dtype.itemsize
    return max(1, min(model.encoder.width, CHUNK_BYTES // per_particle))


@partial(jax.jit, static_argnums=2)
def _side(model: AbstractResNet, x: Array, keep: bool) -> _Side:
    """Of points x; ``keep`` their features too."""
    if keep:
        z = model.states(x)
        q, *features = _adjoints_and_features(model, z)
        return _Side(z[:-1], q, (features[0], features[1]), z[-1], _head_features(model, z[-1]))
    z, q = states_and_adjoints(model, x)
    return _Side(z[:-1], q[1:].reshape(model.depth, -1, z.shape[-1]), None, z[-1], _head_features(model, z[-1]))


@jax.jit
def _joined(sides: list[_Side]) -> _Side:
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=-2), *sides)


def _adjoints_and_features(model: AbstractResNet, z: Array) -> tuple[Array, Array, Array]:
    """q_1 .. q_L and `row_factors` of every layer: what the adjoint's recursion needs anyway (`flow.adjoint`)."""
    h, shape = scaling.depth_step(model.depth), z.shape

    def back(q: Array, layer: tuple[Any, Array]) -> tuple[Array, tuple[Array, Array, Array]]:
        particles, entering = layer
        s, v = row_factors(particles, entering, q, model.sigma)
        return q + h * scaling.residual(model.alpha, v @ particles.w, particles.width), (q, s, v)

    last = head_adjoint(model, z[-1]).reshape(-1, shape[-1])
    return jax.lax.scan(back, last, (model.encoder, z[:-1]), reverse=True)[1]


def _head_features(model: AbstractResNet, last: Array) -> tuple[Array, ...]:
    """s and a s' of each point and output, or the derivatives with respect to all that moves in the head."""
    head = model.head
    if head is None:
        return ()
    if not isinstance(head, Particles):
        each = jnp.eye(head.outputs, dtype=last.dtype)
        return (head.rows(last, jnp.tile(each, (len(last), 1)), model.sigma),)
    pre = preactivation(head, last)
    slope = model.sigma.first(pre).astype(last.dtype)
    return model.sigma(pre).astype(last.dtype), (slope[:, None, :] * head.a.T[None, :, :]).reshape(-1, head.width)


@partial(jax.jit, static_argnames=("length", "all_parts", "chunk"))
def _products(
    model: AbstractResNet, rows: _Side, columns: _Side, pairs: Array, *, length: int, all_parts: bool, chunk: int
) -> tuple[Array | None, Array | None, Array]:
    """The blocks of G1, G2 and G for pairs of blocks of ``length`` points, one after the other."""
    mass = scaling.encoder_mass(*model.encoder.batch)

    def one(pair: Array) -> tuple[Array | None, Array | None, Array]:
        left, right = _block(rows, pair[0], length), _block(columns, pair[1], length)
        if model.shared:
            encoder = _shared_product(model, left, right, chunk) / (mass * model.depth**2)
        else:
            encoder = _layered_product(model, rows, columns, pair, length) / mass
        head = jnp.zeros_like(encoder) if model.head is None else _head_product(model.head, left, right)
        total = model.alpha**2 * encoder + head
        return (encoder, head, total) if all_parts else (None, None, total)

    return jax.lax.map(one, pairs)


def _block(side: _Side, index: Array, length: int, layer: Array | None = None) -> _Side:
    """The rows of a block of points, of one layer where asked."""

    def part(leaf: Array) -> Array:
        size = leaf.shape[-2] * length // len(side.last)
        if layer is None or leaf.ndim == 2:
            return jax.lax.dynamic_slice_in_dim(leaf, index * size, size, axis=-2)
        return jax.lax.dynamic_slice(leaf, (layer, index * size, 0), (1, size, leaf.shape[-1]))[0]

    return jax.tree.map(part, side)


def _layered_product(model: AbstractResNet, rows: _Side, columns: _Side, pair: Array, length: int) -> Array:
    """L M times the block of G1: a running sum over layers, so that nothing of size L n n exists.

    A layer's rows are cut out where they are used: the features of a block in all layers would leave the cache.
    """

    def add(total: Array, at: tuple[AbstractParticles, Array]) -> tuple[Array, None]:
        particles, layer = at
        left, right = _block(rows, pair[0], length, layer), _block(columns, pair[1], length, layer)
        if not isinstance(particles, Particles):
            fi, fj = (particles.rows(side.z, side.q, model.sigma) for side in (left, right))
            return total + _outer(fi, fj), None
        (si, vi), (sj, vj) = (
            row_factors(particles, side.z, side.q, model.sigma) if side.features is None else side.features
            for side in (left, right)
        )
        values = _pairs(si, sj, _outer(left.q, right.q))
        return total + values + _pairs(left.z, right.z, _outer(vi, vj), 0.0 if particles.b is None else 1.0), None

    size = length * rows.q.shape[1] // rows.z.shape[1]
    start = jnp.zeros((size, size), rows.q.dtype)
    return jax.lax.scan(add, start, (model.encoder, jnp.arange(model.depth)))[0]


def _head_product(head: AbstractParticles, left: _Side, right: _Side) -> Array:
    """The block of G2."""
    mass = scaling.head_mass(head.width)
    if not isinstance(head, Particles):
        return _outer(left.head[0], right.head[0]) / mass
    (si, vi), (sj, vj) = left.head, right.head
    outputs = len(vi) // len(si)
    values = _outer(si, sj)[:, None, :, None] * jnp.eye(outputs, dtype=si.dtype)[None, :, None, :]
    moved = _pairs(left.last, right.last, _outer(vi, vj), 0.0 if head.b is None else 1.0)
    return (values.reshape(moved.shape) + moved) / mass


def _shared_product(model: AbstractResNet, left: _Side, right: _Side, chunk: int) -> Array:
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


def _shared_features(sigma: Activation, particles: AbstractParticles, real: Array, side: _Side) -> Array:
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
