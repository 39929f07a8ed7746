"""Depth as a coordinate of each particle: the continuous model of [L20] (docs/theory.md, section 10).

    z_{j+1} = z_j + alpha (t_{j+1} - t_j) u_j sigma0(w_j . z_j + b_j),      0 <= t_0 <= ... <= t_{N-1} <= t_N = 1

N particles (theta_j, t_j) lie on one depth axis; each acts from its own place to the next one's, the last to 1, and
before t_0 nothing moves. At t_j = j/N this is the layered network with L = N and M = 1, whose step alpha/(L M) is
alpha/N; a layered network of L M particles has as many of them, alpha times the same mean over particles and depth.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ..errors import MfresnetError
from . import scaling
from .activations import Activation
from .particles import Particles, ProbePoints
from .resnet import AbstractResNet, LayeredResNet, Part


def reflect(t: Array, length: int = 1) -> Array:
    """Places reflected into [0, length]: a triangle wave of period 2 length, with slope 1 at 0.

    The reflection of a particle that moves freely on the line is a particle that bounces off both ends; its velocity,
    and the momentum of an optimiser, change sign with the slope of the wave.

    >>> reflect(jnp.array([-0.25, 0.25, 1.25, 2.25])).tolist()
    [0.25, 0.25, 0.75, 0.25]
    """
    t = jnp.mod(t, 2 * length)
    return jnp.where(t <= length, t, 2 * length - t)


class ContinuousResNet(AbstractResNet):
    """The network of [L20] with the head of [C24], trained in (theta, t) (docs/theory.md, section 10).

    Particles have no order of their own: they are sorted by their place whenever the network is evaluated, so that
    they swap places while training, and a permutation of them changes nothing. The fields are those of `LayeredResNet`
    with an encoder of shape (N, 1, .), and:

    Args:
        t: places, shape (N,), on the unfolded line (see `reflect`).

    The velocity of theta is -N dLoss/dtheta, as for L M = N. That of t is -dLoss/dt, without N: neighbours on the axis
    differ by order 1, and with them dLoss/dt_j = alpha p . (F_{j-1} - F_j), which therefore is of order 1 itself.

    >>> model = ContinuousResNet.create(jax.random.key(0), particles=12, inputs=2, head_width=5)
    >>> model(jnp.ones((7, 2))).shape, model.places.shape
    ((7, 1), (12,))
    """

    encoder: Particles
    head: Particles | None
    embedding: Float[Array, "state inputs"] | None
    alpha: Float[Array, ""]
    beta: Float[Array, ""]
    sigma: Activation = eqx.field(static=True)
    depth: int = eqx.field(static=True)
    scheme: str = eqx.field(static=True, default="continuous")
    t: Float[Array, " particles"] = eqx.field(kw_only=True)

    @classmethod
    def create(cls, key: Array, *, particles: int, spread: bool = False, **options: Any) -> ContinuousResNet:
        """A network at its start: Gaussian theta, and places j/N (with ``spread``: independent and uniform).

        Args:
            options: of `LayeredResNet.create`, without depth, width, shared, scheme and antithetic.

        Raises:
            MfresnetError: sizes below 1, or what a continuous network does not have.
        """
        for name in ("depth", "width", "shared", "scheme", "antithetic", "particle", "head_particle"):
            if name in options:
                raise MfresnetError(f"{name} = {options[name]!r} is not allowed: a continuous network has particles.")
        if particles < 1:
            raise MfresnetError(f"particles = {particles} is not allowed: give a value >= 1.")
        k_model, k_places = jax.random.split(key)
        plain = LayeredResNet.create(k_model, depth=particles, width=1, **options)
        t = jnp.arange(particles, dtype=plain.dtype) / particles
        return cls.of(plain, jax.random.uniform(k_places, (particles,), plain.dtype) if spread else t)

    @classmethod
    def of(cls, plain: LayeredResNet, t: Float[Array, " particles"]) -> ContinuousResNet:
        """The layers of a network of width 1 at places t.

        Raises:
            MfresnetError: a network of another width, or another number of places.
        """
        encoder, head = plain.encoder, plain.head
        if not isinstance(encoder, Particles) or not isinstance(head, Particles | None):
            raise MfresnetError("a continuous network has two-layer particles: leave particle and head_particle out.")
        if encoder.batch != (len(t), 1):
            raise MfresnetError(
                f"{len(t)} places need {len(t)} layers of width 1, but the encoder has {encoder.layers} "
                f"layers of width {encoder.width}."
            )
        return cls(encoder, head, plain.embedding, plain.alpha, plain.beta, plain.sigma, plain.depth, t=t)

    @property
    def places(self) -> Float[Array, " particles"]:
        """Where the particles are, in [0, 1], in their own order."""
        return reflect(self.t)

    @property
    def layer_places(self) -> Float[Array, " depth"]:
        """The places in rising order."""
        return jnp.sort(self.places)

    def parts(self) -> tuple[Part, ...]:
        """theta, of reciprocal mass N, the places, of reciprocal mass 1 (see the class), and the head."""
        theta = Part("encoder", "encoder", scaling.encoder_mass(self.depth, 1))
        return theta, Part("t", "encoder", 1.0), *self._head_part()

    def layered(self) -> LayeredResNet:
        """The Euler network of width 1 with the same states: in order of place, with u_j N (t_{j+1} - t_j) for u_j."""
        places = self.places
        order = jnp.argsort(places)
        places, sorted_ = places[order], jax.tree.map(lambda leaf: leaf[order], self.encoder)
        share = self.depth * jnp.diff(places, append=jnp.ones((1,), places.dtype))
        encoder = eqx.tree_at(lambda e: e.out, sorted_, share[:, None, None] * sorted_.out)
        return LayeredResNet(encoder, self.head, self.embedding, self.alpha, self.beta, self.sigma, self.depth)

    def sweep(
        self,
        x: Float[Array, "n inputs"],
        probes: ProbePoints | None = None,
        *,
        recompute: bool = False,
        keep: bool = False,
    ) -> tuple[Float[Array, "n state"], Float[Array, "depth n state"] | None]:
        """The state at s = 1, and with ``keep`` those at the places of the particles, in rising order."""
        if probes is not None:
            raise MfresnetError("probes belong to a layer, which a continuous network does not have: train without.")
        return self.layered().sweep(x, recompute=recompute, keep=keep)
