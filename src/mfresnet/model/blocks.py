"""Particles beyond the two-layer one: gated, attention on sequences, convolution on images.

The state stays one row of numbers, so that every measurement serves them: a sequence of tokens is read token by token,
an image pixel by pixel.
"""

from __future__ import annotations

from math import isqrt
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..errors import MfresnetError
from .own import Particle

TOKEN = 4  # numbers of one token of `attention`


def gated(state: int, outputs: int) -> Particle:
    """A two-layer particle behind a gate, as in gated linear units (Dauphin et al. 2017, arXiv 1612.08083):

        sigma(z, theta) = u tanh(w . z + b) sigmoid(v . z + c).

    >>> gated(3, 2).size
    10
    """

    def sigma(z: Array, theta: Any) -> Array:
        return theta["u"] * jnp.tanh(theta["w"] @ z + theta["b"]) * jax.nn.sigmoid(theta["v"] @ z + theta["c"])

    one = np.ones(())
    return Particle(
        sigma, {"u": np.ones(outputs), "w": np.ones(state), "b": one, "v": np.ones(state), "c": one}, smooth=True
    )


def attention_of(token: int, rank: int = 2) -> Any:
    """A factory of particles that are heads of self-attention on sequences of tokens of ``token`` numbers:

        sigma(z, theta)_t = o sum_s softmax_s( (Q z_t) . (K z_s)/sqrt(rank) ) (v . z_s),

    a sum of M such heads being a residual attention layer, whose limit of depth is that of [Ch25] (arXiv 2509.10167). A
    head of a network (outputs other than the state) reads the mean over tokens.

    >>> attention_of(token=2)(6, 6).size  # three tokens; Q, K of 2 x 2, v and o of 2
    12
    """

    def factory(state: int, outputs: int) -> Particle:
        if state % token:
            raise MfresnetError(
                f"a state of {state} numbers is no sequence of tokens of {token}: choose another token length."
            )
        pooled = outputs != state

        def sigma(z: Array, theta: Any) -> Array:
            tokens = z.reshape(-1, token)
            queries, keys = tokens @ theta["q"].T, tokens @ theta["k"].T
            weights = jax.nn.softmax(queries @ keys.T / rank**0.5, axis=-1)
            mixed = weights @ (tokens @ theta["v"])
            return jnp.mean(mixed) * theta["o"] if pooled else jnp.outer(mixed, theta["o"]).reshape(state)

        std = {"q": np.ones((rank, token)), "k": np.ones((rank, token)), "v": np.ones(token)}
        return Particle(sigma, std | {"o": np.ones(outputs if pooled else token)}, smooth=True)

    return factory


attention = attention_of(TOKEN)


def convolution(state: int, outputs: int) -> Particle:
    """One hidden channel of a residual convolution on square images of one channel:

        sigma(z, theta) = U * tanh(W * z + b),      U, W kernels of 3 x 3, * with zeros around the image.

    As head (outputs other than the state) it reads the mean over pixels, u mean(tanh(W * z + b)).

    >>> convolution(16, 16).size, convolution(16, 3).size
    (19, 13)
    """
    side = isqrt(state)
    if side * side != state:
        raise MfresnetError(f"a state of {state} numbers is no square image: give inputs with 16, 25, 36, ... columns.")
    pooled = outputs != state

    def filtered(image: Array, kernel: Array) -> Array:
        around = jnp.pad(image, 1)
        return sum(kernel[i, j] * around[i : i + side, j : j + side] for i in range(3) for j in range(3))  # pyright: ignore[reportReturnType]

    def sigma(z: Array, theta: Any) -> Array:
        hidden = jnp.tanh(filtered(z.reshape(side, side), theta["w"]) + theta["b"])
        return jnp.mean(hidden) * theta["u"] if pooled else filtered(hidden, theta["u"]).reshape(state)

    return Particle(
        sigma,
        {"w": np.ones((3, 3)), "b": np.ones(()), "u": np.ones(outputs) if pooled else np.ones((3, 3))},
        smooth=True,
    )
