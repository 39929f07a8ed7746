"""The Gram matrix of any JAX function: the empirical neural tangent kernel J J^T, dense or as an operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..errors import MfresnetError
from .blocks import BATCH_BYTES, fill, pair_batches, split
from .precision import cast, check_dtype, double_precision
from .users import outputs_of

Function = Callable[[Any, Array], Array]
Group = str | Callable[[str], bool]

JACOBIAN_BYTES = 2**28  # of the Jacobian of one block of points


@overload
def empirical_gram(
    fn: Function,
    params: Any,
    x: Any,
    *,
    other: Any = None,
    groups: None = None,
    block: int | None = None,
    dtype: Any = np.float64,
) -> np.ndarray: ...
@overload
def empirical_gram(
    fn: Function,
    params: Any,
    x: Any,
    *,
    other: Any = None,
    groups: Mapping[str, Group],
    block: int | None = None,
    dtype: Any = np.float64,
) -> dict[str, np.ndarray]: ...
def empirical_gram(
    fn: Function,
    params: Any,
    x: Any,
    *,
    other: Any = None,
    groups: Mapping[str, Group] | None = None,
    block: int | None = None,
    dtype: Any = np.float64,
) -> np.ndarray | dict[str, np.ndarray]:
    """J J^T of any function of parameters and inputs, with no scaling.

        G_{(i,c),(j,c')} = sum_p df_c(x_i)/dp df_c'(x_j)/dp,      index (i, c) -> i C + c,

    the sum over every entry of a floating-point array, or of those of a group (Jacot et al. 2018, arXiv
    1806.07572). Under the mean-field scaling of a `LayeredResNet` the matrices of [C24] carry factors L M / alpha^2 and
    K, and beta^2: `gram` has them.

    Points are differentiated one at a time, as batches of one. A function that couples the points of a batch, such as
    batch normalisation in training mode, is refused.

    Args:
        fn: ``fn(params, x)`` of shape (n,) or (n, C), or any further output axes, for x of shape (n, ...).
        params: any tree: Equinox after ``eqx.partition``, Flax dictionaries, plain arrays (JAX or NumPy). Python
            numbers, arrays of whole numbers, keys, None and other leaves are constants.
        x: inputs, the leading axis being the points.
        other: a second set of inputs, for the cross matrix.
        groups: name -> dotted path prefix (``"encoder"``, ``"layers.0.weight"``) or a predicate of the
            dotted path. Default: one matrix of all parameters.
        block: points whose Jacobian is held at once (default: 256 MB worth).
        dtype: float64 (parameters and inputs are promoted) or float32.

    Returns:
        The matrix, shape (n C, n' C), or one for each group.

    Raises:
        MfresnetError: no floating-point parameter (in a group), NaN or infinite inputs or Jacobians, a function that
            fails, makes no array of shape (n, ...), couples its points, or has no derivative.

    >>> import jax.numpy as jnp
    >>> params = {"w": jnp.array([1.0, 2.0]), "b": jnp.array(0.5)}
    >>> line = lambda p, x: x @ p["w"] + p["b"]
    >>> empirical_gram(line, params, jnp.eye(2), groups={"slope": "w", "level": "b"})["slope"]
    array([[1., 0.],
           [0., 1.]])
    """
    dtype = check_dtype(dtype)
    left, right = as_points(x, "x"), None if other is None else as_points(other, "other")
    with double_precision():
        moving, constant = moving_parts(params, dtype)
        members = _members(moving, {"": lambda _: True} if groups is None else groups)

        rows, outputs, length = jacobian_rows(fn, moving, constant, left, dtype, block)
        shape = (len(left) * outputs, len(left if right is None else right) * outputs)
        results = [np.empty(shape, dtype) for _ in members]
        lefts, rights = split(left, length), None if right is None else split(right, length)
        held: dict[str, tuple[int, list[Array]]] = {}  # the Jacobian of the current row of blocks

        def rows_of(side: str, index: int, block: np.ndarray) -> list[Array]:
            if side not in held or held[side][0] != index:
                held[side] = (index, rows(block))
            return held[side][1]

        def products(pairs: np.ndarray) -> list[np.ndarray]:
            (i, j), columns = map(int, pairs[0]), lefts if rights is None else rights
            ji = rows_of("left", i, lefts[i])
            jj = ji if rights is None and i == j else rows_of("right", j, columns[j])
            return [np.asarray(sum(ji[k] @ jj[k].T for k in indices))[None] for indices in members.values()]

        # pair by pair and row by row: one product of Jacobians keeps every core busy, and two of them are held
        batches = pair_batches(len(lefts), None if rights is None else len(rights), BATCH_BYTES, 1)
        fill(results, batches, products, symmetric=right is None)
    if not all(np.isfinite(result).all() for result in results):
        raise MfresnetError("the Jacobian of the function has NaN or infinite entries: check parameters and function.")
    return results[0] if groups is None else dict(zip(members, results, strict=True))


def jacobian_rows(
    fn: Function, moving: Any, constant: Any, points: np.ndarray, dtype: np.dtype, block: int | None
) -> tuple[Callable[[np.ndarray], list[Array]], int, int]:
    """The Jacobian of a block of points as rows (i, c), one array for each parameter; outputs and points of a block.

    To be called, as its first result, in the precision of the computation (`double_precision`).
    """

    def single(moving: Any, point: Array) -> Array:
        return jnp.ravel(fn(eqx.combine(moving, constant), point[None])[0])

    outputs = outputs_of(lambda moving, x: fn(eqx.combine(moving, constant), x), moving, _as_input(points[:2], dtype))
    jacobian = jax.jit(jax.vmap(jax.jacrev(single), in_axes=(None, 0)))

    def rows(block: np.ndarray) -> list[Array]:
        leaves = jax.tree.leaves(jacobian(moving, _as_input(block, dtype)))
        return [leaf.reshape(len(block) * outputs, -1) for leaf in leaves]

    return rows, outputs, _block_points(moving, outputs, dtype, len(points), block)


class EmpiricalOperator:
    """J J^T v for vectors v of length n C, see `empirical_operator`."""

    def __init__(self, apply: Callable[[Array], Array], size: int, dtype: np.dtype) -> None:
        self._apply = apply
        self.shape = (size, size)
        self.dtype = dtype

    def matvec(self, v: Any) -> np.ndarray:
        """J (J^T v)."""
        vector = np.asarray(v, self.dtype)
        if vector.size != self.shape[0]:
            raise MfresnetError(f"the vector has length {vector.size}: give one of length {self.shape[0]}.")
        with double_precision():
            return np.array(self._apply(jnp.asarray(vector.reshape(-1)))).reshape(vector.shape)


def empirical_operator(
    fn: Function,
    params: Any,
    x: Any,
    *,
    group: Group | None = None,
    block: int | None = None,
    devices: Sequence[Any] | None = None,
    dtype: Any = np.float64,
) -> EmpiricalOperator:
    """The matrix of `empirical_gram` as an operator: v -> J (J^T v), by one reverse and one forward derivative.

    Memory is that of one gradient of the whole batch, or of a block of points.

    Args:
        fn, params, x, dtype: as in `empirical_gram`.
        group: dotted path prefix or predicate; default: all floating-point parameters.
        block: points that are differentiated at once; memory beyond the inputs then does not grow with n. Default: all.
        devices: share the blocks over these (``jax.devices()``); default: one device.

    Raises:
        MfresnetError: no floating-point parameter in the group, NaN or infinite inputs, or a function that
            `empirical_gram` refuses.

    >>> import jax.numpy as jnp
    >>> operator = empirical_operator(lambda w, x: x @ w, jnp.ones(2), jnp.array([[3.0, 4.0]]))
    >>> operator.matvec([1.0])
    array([25.])
    """
    dtype = check_dtype(dtype)
    points = as_points(x, "x")
    with double_precision():
        moving, constant = moving_parts(params, dtype)
        members = _members(moving, {"group": (lambda _: True) if group is None else group})["group"]
        leaves, tree = jax.tree.flatten(moving)
        chosen = [leaves[k] for k in members]
        count = 1 if devices is None else len(devices)
        share = -(-len(points) // count)
        length = share if block is None else _block_points(moving, 1, dtype, share, block)
        # blocks are filled up with a repeated point, whose weight is 0
        padded = np.concatenate([points, np.repeat(points[:1], -len(points) % (length * count), axis=0)])
        blocks = _as_input(padded.reshape(-1, length, *points.shape[1:]), dtype)

        def values(chosen: list[Array], inputs: Array) -> Array:
            full = list(leaves)
            for k, leaf in zip(members, chosen, strict=True):
                full[k] = leaf
            return jnp.ravel(fn(eqx.combine(jax.tree.unflatten(tree, full), constant), inputs))

        outputs = outputs_of(
            lambda moving, x: fn(eqx.combine(moving, constant), x), moving, _as_input(points[:2], dtype)
        )
        size = len(points) * outputs

        def pull(blocks: Array, weights: Array) -> list[Array]:
            def add(total: list[Array], part: tuple[Array, Array]) -> tuple[list[Array], None]:
                gradient = jax.vjp(lambda chosen: values(chosen, part[0]), chosen)[1](part[1])[0]
                return jax.tree.map(jnp.add, total, gradient), None

            return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, chosen), (blocks, weights))[0]

        def push(blocks: Array, gradient: list[Array]) -> Array:
            return jax.lax.map(lambda x: jax.jvp(lambda one: values(one, x), (chosen,), (gradient,))[1], blocks)

        def product(blocks: Array, weights: Array) -> Array:
            return push(blocks, pull(blocks, weights))

        if devices is not None:
            mesh, along = jax.sharding.Mesh(np.array(devices), ("points",)), jax.sharding.PartitionSpec("points")
            blocks = jax.device_put(blocks, jax.sharding.NamedSharding(mesh, along))

            def shared(blocks: Array, weights: Array) -> Array:
                return push(blocks, jax.lax.psum(pull(blocks, weights), "points"))

            product = jax.shard_map(shared, mesh=mesh, in_specs=(along, along), out_specs=along, check_vma=False)

        @jax.jit
        def apply(v: Array) -> Array:
            weights = jnp.pad(v, (0, blocks.shape[0] * length * outputs - size)).reshape(blocks.shape[0], -1)
            return product(blocks, weights).reshape(-1)[:size]

    return EmpiricalOperator(apply, size, dtype)


def as_points(x: Any, name: str) -> np.ndarray:
    """Inputs of any shape (n, ...), finite."""
    array = np.asarray(x)
    if array.ndim == 0 or len(array) == 0:
        raise MfresnetError(f"{name} has shape {array.shape}: give at least one point along the first axis.")
    if array.dtype.kind not in "biu":
        array = array.astype(np.float64)
        bad = np.argwhere(~np.isfinite(array))
        if bad.size:
            raise MfresnetError(f"{name} is not finite at index {tuple(map(int, bad[0]))}: remove or impute the point.")
    return array


def _as_input(points: np.ndarray, dtype: np.dtype) -> Array:
    """Real inputs in the computing precision; whole numbers (tokens, labels) as they are."""
    return jnp.asarray(points, dtype if points.dtype.kind == "f" else None)


def moving_parts(params: Any, dtype: np.dtype) -> tuple[Any, Any]:
    """The floating-point arrays, cast, and the rest: a Python number is a constant of the function."""
    moving, constant = eqx.partition(params, eqx.is_inexact_array)
    return cast(moving, dtype), constant


def _members(moving: Any, groups: Mapping[str, Group]) -> dict[str, list[int]]:
    """Positions of each group's leaves."""
    paths = [
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, _ in jax.tree_util.tree_flatten_with_path(moving)[0]
    ]
    if not paths:
        raise MfresnetError("the parameters have no floating-point array: give a tree with at least one.")

    def belongs(path: str, group: Group) -> bool:
        if callable(group):
            return group(path)
        return path == group or path.startswith(f"{group}.")

    members = {name: [k for k, path in enumerate(paths) if belongs(path, rule)] for name, rule in groups.items()}
    for name, indices in members.items():
        if not indices:
            raise MfresnetError(f"parameter group {name!r} is empty: the parameters are {', '.join(paths)}.")
    return members


def _block_points(moving: Any, outputs: int, dtype: np.dtype, n: int, block: int | None) -> int:
    if block is not None:
        if block < 1:
            raise MfresnetError(f"block = {block} is not allowed: give a value >= 1.")
        return min(block, n)
    size = sum(leaf.size for leaf in jax.tree.leaves(moving))
    return max(1, min(n, JACOBIAN_BYTES // (size * outputs * dtype.itemsize)))
