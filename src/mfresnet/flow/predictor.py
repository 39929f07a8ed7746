"""A residual network as predictor and prior of a path certificate."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from ..model import AbstractResNet, InitialScales
from .potential import GaussianPrior


class NetworkPredictor(eqx.Module):
    """f(params, x) of a layered or continuous network, params = the particles of encoder and head.

    Embedding, scales and, for a continuous network, the places of the particles stay as they are. With ``head_only``
    the encoder does too.

    >>> from mfresnet.model import LayeredResNet
    >>> model = LayeredResNet.create(jax.random.key(0), inputs=2, depth=3, width=4, head_width=5)
    >>> f = NetworkPredictor(model)
    >>> f(f.particles(), jnp.ones((7, 2))).shape
    (7, 1)
    """

    model: AbstractResNet
    head_only: bool = eqx.field(static=True, default=False)

    def particles(self) -> dict[str, Any]:
        """What the chain moves: encoder (unless ``head_only``) and head (unless there is none)."""
        parts = {"encoder": None if self.head_only else self.model.encoder, "head": self.model.head}
        return {name: part for name, part in parts.items() if part is not None}

    def network(self, params: dict[str, Any]) -> AbstractResNet:
        """The network with these particles."""
        return eqx.tree_at(lambda m: [getattr(m, name) for name in params], self.model, list(params.values()))

    def __call__(self, params: dict[str, Any], x: Array) -> Array:
        return self.network(params)(x)

    def prior(self, initial: InitialScales | None = None) -> GaussianPrior:
        """The law of the start: mean 0 and the standard deviations of the initial scales, 1 by default."""
        scales = initial or InitialScales()
        means, stds = {}, {}
        for name, part in self.particles().items():
            means[name] = jax.tree.map(jnp.zeros_like, part)
            deviations = part.deviations(getattr(scales, name))
            stds[name] = jax.tree.map(_std, deviations, part)
        return GaussianPrior(means, stds)


def _std(deviation: Any, leaf: Array) -> Array:
    """One number, or an array that repeats the deviations of one particle."""
    value = jnp.asarray(deviation, leaf.dtype)
    return value if value.ndim == 0 else jnp.broadcast_to(value, leaf.shape)
