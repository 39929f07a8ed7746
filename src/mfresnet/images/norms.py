"""Normalisation layers whose running statistics are plain data beside the parameters.

A layer is called as ``layer(x, state, train)`` and returns the normalised images and the new state: nothing is
mutated, so a stack of blocks carries a stack of states, and a block that moves takes its statistics along.
"""

from __future__ import annotations

from math import gcd
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ..errors import unknown_name
from .convolution import Images

GROUPS = 8  # of group normalisation, where the channels allow it


class Moments(eqx.Module):
    """Running mean and variance of each channel."""

    mean: Float[Array, "*stack channels"]
    variance: Float[Array, "*stack channels"]


class BatchNorm(eqx.Module):
    """Batch normalisation (Ioffe and Szegedy 2015).

        y = scale (x - mean)/sqrt(var + eps) + offset

    In training, mean and var (divided by the count m) are the batch's over images, rows and columns, and the running
    statistics move by ``momentum`` towards mean and var m/(m - 1); in evaluation the running ones are used. Statistics
    are float32 or better in any number format of x. On several devices the batch is the whole batch, not a device's.

    >>> layer = BatchNorm.create(1)
    >>> y, state = layer(jnp.array([1.0, 3.0]).reshape(2, 1, 1, 1), layer.start(), True)
    >>> y.ravel().round(3), state.mean
    (Array([-1.,  1.], dtype=float32), Array([0.2], dtype=float32))
    """

    scale: Float[Array, "*stack channels"]
    offset: Float[Array, "*stack channels"]
    momentum: float = eqx.field(static=True, default=0.1)
    eps: float = eqx.field(static=True, default=1e-5)

    @classmethod
    def create(cls, channels: int) -> BatchNorm:
        """Scale 1, offset 0."""
        return cls(jnp.ones(channels), jnp.zeros(channels))

    def start(self) -> Moments:
        """Running mean 0 and variance 1, of one layer or of a stack of layers."""
        return Moments(jnp.zeros_like(self.scale), jnp.ones_like(self.scale))

    def __call__(self, x: Images, state: Moments, train: bool) -> tuple[Images, Moments]:
        """The normalised images, and the running statistics after them."""
        wide = x.astype(self.scale.dtype)
        mean, variance = state.mean, state.variance
        if train:
            axes = (0, 1, 2)
            mean = jnp.mean(wide, axes)
            # one pass over x; the rounding may leave a tiny negative number
            variance = jnp.maximum(jnp.mean(jnp.square(wide), axes) - jnp.square(mean), 0)
            count = x.shape[0] * x.shape[1] * x.shape[2]
            seen = jax.lax.stop_gradient((mean, variance * (count / max(count - 1, 1))))
            keep = 1 - self.momentum
            state = Moments(
                keep * state.mean + self.momentum * seen[0], keep * state.variance + self.momentum * seen[1]
            )
        factor = self.scale * jax.lax.rsqrt(variance + self.eps)
        return (wide * factor + (self.offset - mean * factor)).astype(x.dtype), state


class GroupNorm(eqx.Module):
    """Group normalisation (Wu and He 2018): each image by its own statistics over groups of channels; no state.

    The number of groups is the largest that divides both 8 and the channels.

    >>> layer = GroupNorm.create(16)
    >>> y, _ = layer(jax.random.normal(jax.random.key(0), (2, 4, 4, 16)), layer.start(), True)
    >>> bool(abs(y.mean()) < 1e-6)
    True
    """

    scale: Float[Array, "*stack channels"]
    offset: Float[Array, "*stack channels"]
    groups: int = eqx.field(static=True)
    eps: float = eqx.field(static=True, default=1e-5)

    @classmethod
    def create(cls, channels: int) -> GroupNorm:
        """Scale 1, offset 0."""
        return cls(jnp.ones(channels), jnp.zeros(channels), gcd(GROUPS, channels))

    def start(self) -> tuple[()]:
        """Nothing: an image is normalised by itself."""
        return ()

    def __call__(self, x: Images, state: tuple[()], train: bool) -> tuple[Images, tuple[()]]:
        """The normalised images, and the empty state."""
        wide = x.astype(self.scale.dtype).reshape(*x.shape[:3], self.groups, -1)
        mean = jnp.mean(wide, (1, 2, 4), keepdims=True)
        variance = jnp.var(wide, (1, 2, 4), keepdims=True)
        wide = ((wide - mean) * jax.lax.rsqrt(variance + self.eps)).reshape(x.shape)
        return (wide * self.scale + self.offset).astype(x.dtype), state


Norm = BatchNorm | GroupNorm
NORMS: dict[str, Any] = {"batch": BatchNorm, "group": GroupNorm}


def norm(name: str, channels: int) -> Norm:
    """A layer by name.

    Raises:
        MfresnetError: an unknown name.

    >>> norm("group", 12).groups
    4
    """
    if name not in NORMS:
        raise unknown_name("norm", name, NORMS)
    return NORMS[name].create(channels)
