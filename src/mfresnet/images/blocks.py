"""Residual branches of image networks: pre-activation chains of normalise, rectify, convolve (He et al. 2016).

A branch is an Equinox module called as ``branch(x, state, train)``; it returns F(x) and its new state. That is all a
family asks of a block (`images.family`), so a user's own module serves as well.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ..model.draws import normal
from .convolution import Images, Kernel, convolve
from .norms import Norm, norm


def kernel(key: Array, size: int, inputs: int, outputs: int) -> Kernel:
    """A Gaussian kernel of standard deviation sqrt(2/(size^2 inputs)) (He et al. 2015)."""
    return normal(key, (size, size, inputs, outputs)) * (2 / (size * size * inputs)) ** 0.5


class Branch(eqx.Module):
    """F(x): normalise, rectify and convolve, once for each kernel."""

    norms: tuple[Norm, ...]
    kernels: tuple[Kernel, ...]
    strides: tuple[int, ...] = eqx.field(static=True)
    groups: tuple[int, ...] = eqx.field(static=True)

    def start(self) -> tuple[Any, ...]:
        """The state of each normalisation at the start."""
        return tuple(layer.start() for layer in self.norms)

    def __call__(self, x: Images, state: tuple[Any, ...], train: bool) -> tuple[Images, tuple[Any, ...]]:
        """F(x), and the states after it."""
        after = []
        for layer, before, weight, stride, groups in zip(
            self.norms, state, self.kernels, self.strides, self.groups, strict=True
        ):
            x, seen = layer(x, before, train)
            x = convolve(jax.nn.relu(x), weight, stride, groups)
            after.append(seen)
        return x, tuple(after)


def basic(key: Array, inputs: int, outputs: int, stride: int = 1, *, norm_name: str = "batch") -> Branch:
    """Two 3 x 3 convolutions.

    >>> branch = basic(jax.random.key(0), 4, 8, stride=2)
    >>> branch(jnp.ones((1, 8, 8, 4)), branch.start(), True)[0].shape
    (1, 4, 4, 8)
    """
    first, second = jax.random.split(key)
    return Branch(
        norms=(norm(norm_name, inputs), norm(norm_name, outputs)),
        kernels=(kernel(first, 3, inputs, outputs), kernel(second, 3, outputs, outputs)),
        strides=(stride, 1),
        groups=(1, 1),
    )


def bottleneck(
    key: Array, inputs: int, middle: int, outputs: int, stride: int = 1, groups: int = 1, *, norm_name: str = "batch"
) -> Branch:
    """1 x 1 down to ``middle`` channels, 3 x 3 in groups, 1 x 1 up; several groups are a ResNeXt (Xie et al. 2017).

    >>> branch = bottleneck(jax.random.key(0), 16, 8, 16, groups=4)
    >>> [weight.shape for weight in branch.kernels]
    [(1, 1, 16, 8), (3, 3, 2, 8), (1, 1, 8, 16)]
    """
    keys = jax.random.split(key, 3)
    return Branch(
        norms=(norm(norm_name, inputs), norm(norm_name, middle), norm(norm_name, middle)),
        kernels=(
            kernel(keys[0], 1, inputs, middle),
            kernel(keys[1], 3, middle // groups, middle),
            kernel(keys[2], 1, middle, outputs),
        ),
        strides=(1, stride, 1),
        groups=(1, groups, 1),
    )


class Transition(eqx.Module):
    """The first block of a stage, which changes the shape: S x + F(x) with a linear 1 x 1 shortcut S."""

    branch: Branch
    shortcut: Kernel
    stride: int = eqx.field(static=True)

    def start(self) -> tuple[Any, ...]:
        """The state of the branch at the start."""
        return self.branch.start()

    def __call__(self, x: Images, state: tuple[Any, ...], train: bool) -> tuple[Images, tuple[Any, ...]]:
        """S x + F(x), and the state after it."""
        branch, state = self.branch(x, state, train)
        return convolve(x, self.shortcut, self.stride) + branch, state


class Readout(eqx.Module):
    """Normalise, rectify, average over the image, and a linear map to the classes."""

    norm: Norm
    weight: Float[Array, "channels classes"]
    bias: Float[Array, " classes"]

    @classmethod
    def create(cls, key: Array, channels: int, classes: int, norm_name: str = "batch") -> Readout:
        """Weights of standard deviation 1/sqrt(channels), bias 0."""
        weight = normal(key, (channels, classes)) / channels**0.5
        return cls(norm(norm_name, channels), weight, jnp.zeros(classes))

    def __call__(self, x: Images, state: Any, train: bool) -> tuple[Float[Array, "n classes"], Any]:
        """Logits, not below float32, and the state after them."""
        x, state = self.norm(x, state, train)
        pooled = jnp.mean(jax.nn.relu(x), (1, 2), dtype=self.weight.dtype)
        return pooled @ self.weight + self.bias, state
