"""Placeholder until the loaders land."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array


def normalise(x: Array, mean: Array, std: Array) -> Array:
    """(x/255 - mean)/std."""
    return (x.astype(mean.dtype) / 255 - mean) / std


def augment(key: Array, x: Array, pad: int = 4) -> Array:
    """Random crop of the padded image and random flip."""

    def one(key: Array, image: Array) -> Array:
        k_place, k_flip = jax.random.split(key)
        place = jax.random.randint(k_place, (2,), 0, 2 * pad + 1)
        padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
        cut = jax.lax.dynamic_slice(padded, (place[0], place[1], 0), image.shape)
        return jnp.where(jax.random.bernoulli(k_flip), cut[:, ::-1], cut)

    return jax.vmap(one)(jax.random.split(key, len(x)), x)
