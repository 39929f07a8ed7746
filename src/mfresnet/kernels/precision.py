"""float64 for diagnostics, without flipping a global switch behind the user's back, and checked inputs.

The smallest eigenvalue of a Gram matrix is often below the rounding of float32, so diagnostics
compute in float64 whatever the precision of training.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from threadpoolctl import ThreadpoolController

from ..errors import MfresnetError

SMALL = 2000  # rows of a matrix below which one thread factorises it


@contextmanager
def double_precision() -> Iterator[None]:
    """Inside, JAX computes in float64 where asked; outside, the user's setting is untouched.

    Matrix products inside have the full precision of their type: accelerators round those of
    float32 to fewer bits unless told.

    >>> import jax.numpy as jnp
    >>> with double_precision():
    ...     inside = jnp.ones(1).dtype
    >>> str(inside), str(jnp.ones(1).dtype)
    ('float64', 'float32')
    """
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        yield


@lru_cache(maxsize=1)
def _pools() -> ThreadpoolController:
    """The thread pools of the linear-algebra libraries, looked up once."""
    return ThreadpoolController()


@contextmanager
def blas_threads(n: int) -> Iterator[None]:
    """One linear-algebra thread for matrices up to ``SMALL``, all of them above.

    Threads of a small factorisation wait for each other by spinning; on a busy machine that costs
    far more than they gain (seen: 20 s for 0.25 s at n = 512 on 2 cores at load 6).
    """
    if n > SMALL:
        yield
        return
    with _pools().limit(limits=1, user_api="blas"):
        yield


def cast(tree: Any, dtype: Any) -> Any:
    """The tree with every inexact array in ``dtype``; call inside `double_precision` for float64.

    Lower precisions (float16, bfloat16, float32) are represented exactly in float64.
    """

    def leaf(value: Any) -> Any:
        if isinstance(value, Array) and value.dtype == dtype:
            return value
        return jnp.asarray(value, dtype) if eqx.is_inexact_array_like(value) else value

    return jax.tree.map(leaf, tree)


def check_dtype(dtype: Any) -> np.dtype:
    """float64 or float32, the precisions in which a diagnostic can be computed.

    >>> check_dtype("float16")
    Traceback (most recent call last):
    mfresnet.errors.MfresnetError: dtype = float16 is not allowed: give float64 or float32.
    """
    checked = np.dtype(dtype)
    if checked not in (np.dtype(np.float64), np.dtype(np.float32)):
        raise MfresnetError(f"dtype = {checked} is not allowed: give float64 or float32.")
    return checked


def check_rows(x: Any, name: str = "x", *, columns: int | None = None) -> np.ndarray:
    """A table of finite numbers as a float64 NumPy array of shape (rows, columns).

    Whole numbers and every float type, float16 and bfloat16 too, are promoted, which is exact.

    Raises:
        MfresnetError: no numbers, not a table, no rows, the wrong width, NaN or infinite entries.

    >>> check_rows([[1.0, float("nan")]])
    Traceback (most recent call last):
    mfresnet.errors.MfresnetError: x has nan in row 0, column 1: remove or impute the row.
    """
    try:
        array = np.asarray(x)
        if array.dtype.kind == "c":
            raise TypeError("complex numbers")
        array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise MfresnetError(
            f"{name} is not a table of real numbers ({error}): give an array (rows, columns)."
        ) from error
    if array.ndim != 2:
        raise MfresnetError(f"{name} has shape {array.shape}: give a table of shape (rows, columns).")
    if array.shape[0] == 0:
        raise MfresnetError(f"{name} has no rows: give at least one.")
    if columns is not None and array.shape[1] != columns:
        raise MfresnetError(f"{name} has {array.shape[1]} columns, but {columns} are expected: give {columns} columns.")
    bad = np.argwhere(~np.isfinite(array))
    if bad.size:
        row, column = bad[0]
        raise MfresnetError(f"{name} has {array[row, column]} in row {row}, column {column}: remove or impute the row.")
    return array


def equal_rows(x: np.ndarray) -> tuple[int, int] | None:
    """The first pair of equal rows of a table, or None: such a pair makes lambda_min of a Gram matrix 0.

    >>> equal_rows(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
    (0, 2)
    """
    order = np.lexsort(x.T[::-1])
    same = np.flatnonzero(np.all(x[order[1:]] == x[order[:-1]], axis=1))
    pairs = [(int(min(pair)), int(max(pair))) for k in same if (pair := order[k : k + 2]) is not None]
    return min(pairs) if pairs else None


def equal_rows_note(x: np.ndarray) -> tuple[str, ...]:
    """The pair of `equal_rows` as a sentence for a result's notes."""
    pair = equal_rows(x)
    return () if pair is None else (f"rows {pair[0]} and {pair[1]} of x are equal, so lambda_min of the Gram is 0",)
