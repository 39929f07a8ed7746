"""Random numbers of any shape, drawn as one row.

The numbers are those of `jax.random` for the same key and shape. But a counter of several axes, or of one under `vmap`
with several more, takes XLA many times as long to compile as one row: 2.5 s against 0.3 s for a kernel of four axes.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod, sqrt

import jax
from jax import Array

from ..registry import Entry, Registry

Sampler = Callable[[Array, tuple[int, ...], jax.typing.DTypeLike], Array]


def normal(key: Array, shape: tuple[int, ...], dtype: jax.typing.DTypeLike = float) -> Array:
    """Independent N(0, 1).

    >>> key = jax.random.key(0)
    >>> bool((normal(key, (2, 3)) == jax.random.normal(key, (2, 3))).all())
    True
    """
    return jax.random.normal(key, (prod(shape),), dtype).reshape(shape)


def uniform(key: Array, shape: tuple[int, ...], dtype: jax.typing.DTypeLike = float) -> Array:
    """Independent and uniform in [0, 1).

    >>> key = jax.random.key(0)
    >>> bool((uniform(key, (2, 3)) == jax.random.uniform(key, (2, 3))).all())
    True
    """
    return jax.random.uniform(key, (prod(shape),), dtype).reshape(shape)


def standard_uniform(key: Array, shape: tuple[int, ...], dtype: jax.typing.DTypeLike = float) -> Array:
    """Independent and uniform in [-sqrt 3, sqrt 3): mean 0, variance 1."""
    return sqrt(3.0) * (2 * uniform(key, shape, dtype) - 1)


# Entries of the starting laws, of mean 0 and variance 1; the theory is that of Gaussian ones (Assumption 2 of [C24]).
LAWS: Registry[Sampler] = Registry(
    "law of the start",
    "mfresnet.laws",
    {"gaussian": Entry(normal, "N(0, 1), the theory's"), "uniform": Entry(standard_uniform, "on [-sqrt 3, sqrt 3]")},
)
