"""Particles: the atoms of the parameter laws, and probes: particles without mass.

An encoder particle is theta = (u, w, b), a head particle omega = (a, w, b); both send a state z to

    out * sigma0(w . z + b),       out = u in R^D (encoder),   out = a in R^C (head).

One class serves both (docs/theory.md, section 1).
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from ..errors import MfresnetError
from .activations import Activation
from .draws import LAWS


class Particles(eqx.Module):
    """A family of particles; leading axes (the layer, the seed) are free.

    Args:
        out: output weights, shape (..., M, D) for the encoder (u) or (..., K, C) for the head (a).
        w: input weights, shape (..., M, D).
        b: biases, shape (..., M), or None for particles without bias.

    >>> import jax
    >>> particles = Particles.gaussian(jax.random.key(0), (3, 5), state=2, outputs=2)
    >>> particles.u.shape, particles.b.shape
    ((3, 5, 2), (3, 5))
    """

    out: Float[Array, "*batch width out"]
    w: Float[Array, "*batch width state"]
    b: Float[Array, "*batch width"] | None

    @property
    def u(self) -> Array:
        """The encoder's output weights, as [C24] calls them."""
        return self.out

    @property
    def a(self) -> Array:
        """The head's output weights, as [C24] calls them."""
        return self.out

    @property
    def width(self) -> int:
        """Number of particles of one layer, M (or K for the head)."""
        return self.w.shape[-2]

    @classmethod
    def gaussian(
        cls,
        key: Array,
        shape: tuple[int, ...],
        *,
        state: int,
        outputs: int,
        scale: tuple[float, float, float] = (1.0, 1.0, 1.0),
        bias: bool = True,
        antithetic: bool = False,
        law: str = "gaussian",
        dtype: DTypeLike = jnp.float32,
    ) -> Particles:
        """Independent particles, standard deviations ``scale`` of (out, w, b), Gaussian: Assumption 2 of [C24].

        ``law`` is another name of `LAWS`, the distribution of each entry.

        With ``antithetic`` the second half repeats the first with ``out`` negated: each particle still
        has the starting law, but their sum vanishes, as it does in the limit of infinite width.
        """
        k_out, k_w, k_b = jax.random.split(key, 3)
        s_out, s_w, s_b = scale
        if antithetic:
            *layers, width = shape
            if width % 2:
                raise MfresnetError(f"antithetic particles come in pairs, and {width} is odd: give an even width.")
            half = cls.gaussian(
                key, (*layers, width // 2), state=state, outputs=outputs, scale=scale, bias=bias, law=law, dtype=dtype
            )
            mirrored = cls(-half.out, half.w, half.b)
            axis = len(layers)
            return jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=axis), half, mirrored)
        sample = LAWS[law]
        return cls(
            s_out * sample(k_out, (*shape, outputs), dtype),
            s_w * sample(k_w, (*shape, state), dtype),
            s_b * sample(k_b, shape, dtype) if bias else None,
        )

    def layer(self, index: int) -> Particles:
        """The particles of one layer."""
        return jax.tree.map(lambda leaf: leaf[index], self)


def preactivation(particles: Particles, z: Float[Array, "n state"]) -> Float[Array, "n width"]:
    """w_m . z_i + b_m for the particles of one layer."""
    linear = z @ particles.w.T
    return linear if particles.b is None else linear + particles.b[None, :]


def particle_sum(particles: Particles, z: Float[Array, "n state"], sigma: Activation) -> Float[Array, "n out"]:
    """sum_m out_m sigma0(w_m . z_i + b_m): no scale, which is `scaling`'s."""
    return sigma(preactivation(particles, z)) @ particles.out


def particle_sum_across(particles: Particles, z: Float[Array, "state n"], sigma: Activation) -> Float[Array, "out n"]:
    """`particle_sum` with the points along the last axis, which for a state of few entries is two to three times faster
    on a processor: what is long lies side by side in memory."""
    pre = particles.w @ z
    return particles.out.T @ sigma(pre if particles.b is None else pre + particles.b[:, None])


def squared_radius(particles: Particles, z: Float[Array, "n state"]) -> Float[Array, " n"]:
    """|z_i|^2 + 1, the squared length of the input a particle with bias sees (without bias, no 1)."""
    return jnp.sum(z * z, axis=-1) + (0.0 if particles.b is None else 1.0)


def bias_extended(particles: Particles, z: Float[Array, "n state"]) -> Float[Array, "n inputs"]:
    """(z_i, 1), the input a particle with bias sees (without bias, z_i)."""
    return z if particles.b is None else jnp.concatenate([z, jnp.ones_like(z[:, :1])], axis=1)


class ProbePoints(eqx.Module):
    """Probe particles of one layer, and a slot for the curvature they see.

    A probe has no mass: it adds nothing to the state, and the state's cotangent p gives it the
    gradient of the first variation Phi(theta) = sum_i (p_i . out) sigma0(w . z_i + b) at its place.
    ``curvature`` is a zero whose cotangent is the second derivative of Phi: the Laplacian
    (shape (..., P)) or the two non-zero blocks of the Hessian (docs/theory.md, sections 3 and 7).
    """

    particles: Particles
    curvature: Array | tuple[Array, Array]

    @classmethod
    def of(cls, particles: Particles, curvature: str) -> ProbePoints:
        """Probes at these places; ``curvature`` is "laplacian", "hessian" or "none"."""
        batch, dtype = particles.w.shape[:-1], particles.w.dtype
        inputs = particles.w.shape[-1] + (particles.b is not None)
        outputs = particles.out.shape[-1]
        if curvature == "hessian":
            blocks = (jnp.zeros((*batch, outputs, inputs), dtype), jnp.zeros((*batch, inputs, inputs), dtype))
            return cls(particles, blocks)
        return cls(particles, jnp.zeros(batch if curvature == "laplacian" else (*batch, 0), dtype))


def _probe_sum(sigma: Activation, probes: ProbePoints, z: Float[Array, "n state"]) -> Float[Array, "n out"]:
    """Zero; its cotangents are the first variation's derivatives at the probes (see `ProbePoints`)."""
    return jnp.zeros((z.shape[0], probes.particles.out.shape[-1]), z.dtype)


probe_sum = jax.custom_vjp(_probe_sum, nondiff_argnums=(0,))


def _probe_forward(sigma: Activation, probes: ProbePoints, z: Array) -> tuple[Array, tuple[ProbePoints, Array]]:
    return probe_sum(sigma, probes, z), (probes, z)


def _probe_backward(sigma: Activation, saved: tuple[ProbePoints, Array], p: Array) -> tuple[ProbePoints, Array]:
    probes, z = saved
    particles = probes.particles
    gradient = first_variation_gradient(sigma, particles, z, p)
    if isinstance(probes.curvature, tuple):
        curvature = first_variation_hessian(sigma, particles, z, p)
    elif probes.curvature.ndim == particles.w.ndim - 1:
        curvature = first_variation_laplacian(sigma, particles, z, p)
    else:
        curvature = probes.curvature
    return ProbePoints(gradient, curvature), jnp.zeros_like(z)


probe_sum.defvjp(_probe_forward, _probe_backward)


def first_variation_gradient(
    sigma: Activation, particles: Particles, z: Float[Array, "n state"], p: Float[Array, "n out"]
) -> Particles:
    """Gradient in theta of Phi(theta) = sum_i (p_i . out) sigma0(w . z_i + b), for each particle."""
    pre = preactivation(particles, z)
    slope = (p @ particles.out.T) * sigma.first(pre)
    return Particles(
        sigma(pre).T @ p,
        slope.T @ z,
        None if particles.b is None else jnp.sum(slope, axis=0),
    )


def first_variation_laplacian(
    sigma: Activation, particles: Particles, z: Float[Array, "n state"], p: Float[Array, "n out"]
) -> Float[Array, " width"]:
    """Laplacian in theta of Phi: sum_i (p_i . out) (|z_i|^2 + 1) sigma0''(w . z_i + b) (docs/theory.md, section 3)."""
    assert sigma.second is not None, "callers refuse an activation without second derivative"
    bend = (p @ particles.out.T) * sigma.second(preactivation(particles, z))
    return squared_radius(particles, z) @ bend


def first_variation_hessian(
    sigma: Activation, particles: Particles, z: Float[Array, "n state"], p: Float[Array, "n out"]
) -> tuple[Float[Array, "width out inputs"], Float[Array, "width inputs inputs"]]:
    """Blocks of the Hessian of Phi in (out, (w, b)): mixed A (out, inputs) and B (inputs, inputs).

    ``out`` enters linearly, so its own block is zero.
    """
    assert sigma.second is not None, "callers refuse an activation without second derivative"
    pre = preactivation(particles, z)
    inputs = bias_extended(particles, z)
    mixed = jnp.einsum("nm,no,ni->moi", sigma.first(pre), p, inputs)
    bend = (p @ particles.out.T) * sigma.second(pre)
    return mixed, jnp.einsum("nm,ni,nj->mij", bend, inputs, inputs)
