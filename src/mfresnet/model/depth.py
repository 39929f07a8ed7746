"""The depth sweep: how a state travels from s = 0 to s = 1.

    dz/ds = alpha E_{theta ~ nu_s}[ u sigma0(w . z + b) ]

One vector field, stepped by Euler (the ResNet itself), midpoint or RK4, or solved by Diffrax to a
tolerance (the reference for L -> infinity). Within a layer the law is constant in s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt

import diffrax
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from ..registry import Entry, Registry
from . import scaling
from .activations import Activation
from .family import AbstractParticles
from .particles import ProbePoints, probe_sum

Field = Callable[[Array], Array]
State = Float[Array, "n state"]

SEGMENT = 100  # layers whose states are kept at once when recomputing: a floor, see `segment_length`
UNROLL = 10  # layers written out per loop turn: half the time of 4 at L = 10, and no longer to compile


def vector_field(
    layer: AbstractParticles, z: State, sigma: Activation, alpha: Array, probes: ProbePoints | None = None
) -> State:
    """alpha / M sum_m sigma(z, theta_m), plus massless probes (docs/theory.md, section 1)."""
    velocity = scaling.residual(alpha, layer.total(z, sigma), layer.width)
    return velocity if probes is None else velocity + alpha * probe_sum(sigma, probes, z)


def vector_field_across(
    layer: AbstractParticles,
    z: Float[Array, "state n"],
    sigma: Activation,
    alpha: Array,
    probes: ProbePoints | None = None,
) -> Float[Array, "state n"]:
    """`vector_field` with the points along the last axis (see `AbstractParticles.total_across`)."""
    velocity = scaling.residual(alpha, layer.total_across(z, sigma), layer.width)
    return velocity if probes is None else velocity + alpha * probe_sum(sigma, probes, z.T).T


def euler(field: Field, z: Array, h: float) -> Array:
    """z + h F(z): one residual block. Order 1."""
    return z + h * field(z)


def midpoint(field: Field, z: Array, h: float) -> Array:
    """z + h F(z + h/2 F(z)). Order 2."""
    return z + h * field(z + (0.5 * h) * field(z))


def rk4(field: Field, z: Array, h: float) -> Array:
    """The classical Runge-Kutta step. Order 4."""
    k1 = field(z)
    k2 = field(z + (0.5 * h) * k1)
    k3 = field(z + (0.5 * h) * k2)
    k4 = field(z + h * k3)
    return z + (h / 6) * (k1 + 2 * k2 + 2 * k3 + k4)


@dataclass(frozen=True)
class Scheme:
    """One step of the state through depth, from s to s + h.

    Args:
        step: the new state from the vector field (constant in s within a step), the state and h.
        stages: evaluations of the field in one step.

    >>> float(Scheme(euler, stages=1)(lambda z: -z, jnp.ones(()), 0.5))
    0.5
    """

    step: Callable[[Field, Array, float], Array]
    stages: int

    def __call__(self, field: Field, z: Array, h: float) -> Array:
        return self.step(field, z, h)


SCHEMES: Registry[Scheme] = Registry(
    "depth scheme",
    "mfresnet.schemes",
    {
        "euler": Entry(Scheme(euler, 1), "the ResNet itself, order 1"),
        "midpoint": Entry(Scheme(midpoint, 2), "order 2"),
        "rk4": Entry(Scheme(rk4, 4), "classical Runge-Kutta, order 4"),
    },
    base=Scheme,
)


def segment_length(depth: int) -> int:
    """Layers per segment when recomputing: sqrt(L) balances the two levels, but at least `SEGMENT`."""
    return max(SEGMENT, isqrt(depth))


def sweep(
    encoder: AbstractParticles,
    z: State,
    *,
    depth: int,
    scheme: str,
    sigma: Activation,
    alpha: Array,
    probes: ProbePoints | None = None,
    recompute: bool = False,
    keep: bool = False,
) -> tuple[State, Float[Array, "depth n state"] | None]:
    """Send the states through all layers.

    Args:
        encoder: particles with a leading axis of ``depth`` layers, or of 1 where depth shares the law.
        z: states at s = 0.
        probes: probe particles of each layer, see `ProbePoints`.
        recompute: keep the states only at the start of segments and recompute the rest in the
            backward pass: memory like sqrt(L) instead of L, for one more forward sweep.
        keep: also return the state *entering* each layer.

    Returns:
        The state at s = 1, and the entering states (or None).
    """
    shared = encoder.layers == 1 and depth > 1
    advance = SCHEMES[scheme]
    h = scaling.depth_step(depth)

    def body(z: Array, xs: tuple[AbstractParticles | None, ProbePoints | None]) -> tuple[Array, Array | None]:
        layer, own = xs
        particles = encoder.layer(0) if layer is None else layer
        own = probes_of_shared if shared else own
        moved = advance(lambda state: vector_field_across(particles, state, sigma, alpha, own), z, h)
        return moved, z if keep else None

    probes_of_shared = jax.tree.map(lambda leaf: leaf[0], probes) if shared else None
    xs = (None, None) if shared else (encoder, probes)
    z = z.T
    if not recompute:
        return _across(*jax.lax.scan(body, z, xs, length=depth, unroll=min(depth, UNROLL)))

    body = jax.checkpoint(body)
    length = min(segment_length(depth), depth)
    segments, rest = divmod(depth, length)

    @jax.checkpoint
    def segment(z: Array, xs: tuple) -> tuple[Array, Array | None]:
        return jax.lax.scan(body, z, xs, length=length)

    head = jax.tree.map(lambda leaf: leaf[: segments * length].reshape(segments, length, *leaf.shape[1:]), xs)
    z, kept = jax.lax.scan(segment, z, head, length=segments)
    if kept is not None:
        kept = kept.reshape(segments * length, *kept.shape[2:])
    if rest:
        z, last = jax.lax.scan(body, z, jax.tree.map(lambda leaf: leaf[segments * length :], xs), length=rest)
        kept = None if kept is None or last is None else jnp.concatenate([kept, last])
    return _across(z, kept)


def _across(z: Array, kept: Array | None) -> tuple[State, Float[Array, "depth n state"] | None]:
    """States with the points along the first axis again."""
    return z.T, None if kept is None else jnp.swapaxes(kept, 1, 2)


def solve(
    encoder: AbstractParticles,
    z: State,
    *,
    depth: int,
    sigma: Activation,
    alpha: Array,
    tolerance: float = 1e-8,
) -> State:
    """The state at s = 1 of the depth ODE itself, by Diffrax's Dopri8 to a tolerance.

    The law is constant in s within a layer, so the equation is solved layer by layer.
    """
    controller = diffrax.PIDController(rtol=tolerance, atol=tolerance)

    def field(s: ArrayLike, z: State, layer: AbstractParticles) -> State:
        return vector_field(layer, z, sigma, alpha)

    def through(z: State, layer: AbstractParticles) -> tuple[State, None]:
        length = 1.0 if shared else scaling.depth_step(depth)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            diffrax.Dopri8(),
            t0=0.0,
            t1=length,
            dt0=None,
            y0=z,
            args=layer,
            stepsize_controller=controller,
            max_steps=100_000,
            adjoint=diffrax.ForwardMode(),
        )
        assert solution.ys is not None, "Diffrax saves the end by default"
        return solution.ys[0], None

    shared = encoder.layers == 1
    return jax.lax.scan(through, z, encoder)[0]
