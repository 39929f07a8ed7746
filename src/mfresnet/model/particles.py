"""The two-layer particles of [C24] in closed form, and probes: particles of any kind without mass.

An encoder particle is theta = (u, w, b), a head particle omega = (a, w, b); both send a state z to

    sigma(z, theta) = out * sigma0(w . z + b),       out = u in R^D (encoder),   out = a in R^C (head).

One class serves both (docs/theory.md, section 1).
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from ..errors import MfresnetError
from .activations import Activation
from .draws import LAWS
from .family import AbstractParticles


class Particles(AbstractParticles):
    """Two-layer particles; leading axes (the layer, the seed) are free.

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

    @property
    def state(self) -> int:
        return self.w.shape[-1]

    @property
    def outputs(self) -> int:
        return self.out.shape[-1]

    @property
    def batch(self) -> tuple[int, ...]:
        return self.w.shape[:-1]

    @property
    def dtype(self) -> jnp.dtype:
        return self.w.dtype

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

    def ranks(self) -> Particles:
        return _numbers(self, 1, 1, 0)

    def deviations(self, scale: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Particles:
        s_out, s_w, s_b = scale
        return _numbers(self, s_out, s_w, s_b)

    def redraw(
        self, key: Array, shape: tuple[int, ...], scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    ) -> Particles:
        options: dict[str, Any] = {"bias": self.b is not None, "dtype": self.dtype}
        return Particles.gaussian(key, shape, state=self.state, outputs=self.outputs, scale=scale, **options)

    def smooth(self, sigma: Activation) -> bool:
        return sigma.second is not None

    def evaluate(self, z: Float[Array, " state"], sigma: Activation) -> Float[Array, " out"]:
        """out sigma0(w . z + b)."""
        pre = self.w @ z
        return self.out * sigma(pre if self.b is None else pre + self.b)

    def total(self, z: Float[Array, "n state"], sigma: Activation) -> Float[Array, "n out"]:
        """sum_m out_m sigma0(w_m . z_i + b_m)."""
        return sigma(preactivation(self, z)) @ self.out

    def total_across(self, z: Float[Array, "state n"], sigma: Activation) -> Float[Array, "out n"]:
        """`total` with the points along the last axis, which for a state of few entries is two to three times faster
        on a processor: what is long lies side by side in memory."""
        pre = self.w @ z
        return self.out.T @ sigma(pre if self.b is None else pre + self.b[:, None])

    def at(self, z: Float[Array, "n state"], sigma: Activation, scale: Array) -> Float[Array, "n out"]:
        """scale out sigma0(w . z_i + b) of one particle."""
        pre = z @ self.w if self.b is None else z @ self.w + self.b
        return scale * sigma(pre)[:, None] * self.out[None, :]

    def weighted(self, z: Float[Array, "n state"], weights: Float[Array, " width"], sigma: Activation) -> Array:
        """sum_m weights_m out_m sigma0(w_m . z_i + b_m)."""
        return (sigma(preactivation(self, z)) * weights[None, :]) @ self.out

    def pull(self, z: Float[Array, "n state"], q: Float[Array, "n c out"], sigma: Activation) -> Array:
        """sum_m (out_m . q_ic) sigma0'(w_m . z_i + b_m) w_m."""
        slope = sigma.first(preactivation(self, z)).astype(q.dtype)
        return ((q @ self.out.T) * slope[:, None, :]) @ self.w

    def pull_outputs(self, z: Float[Array, "n state"], sigma: Activation) -> Array:
        """sum_m out_mc sigma0'(w_m . z_i + b_m) w_m."""
        slope = sigma.first(preactivation(self, z)).astype(z.dtype)
        return (slope[:, None, :] * self.out.T[None, :, :]) @ self.w

    def carry(self, z: Float[Array, "n state"], tangent: Float[Array, "n state"], sigma: Activation) -> Array:
        """sum_m out_m sigma0'(w_m . z_i + b_m) (w_m . tangent_i)."""
        slope = sigma.first(preactivation(self, z)).astype(tangent.dtype)
        return (slope * (tangent @ self.w.T)) @ self.out

    def push(self, z: Float[Array, "n state"], moved: Particles, sigma: Activation) -> Array:
        """sum_m d[out_m sigma0(w_m . z_i + b_m)] when the particles move by ``moved``."""
        pre = preactivation(self, z)
        value, slope = sigma(pre).astype(z.dtype), sigma.first(pre).astype(z.dtype)
        return value @ moved.out + (slope * preactivation(moved, z)) @ self.out

    def gradient(self, z: Float[Array, "n state"], p: Float[Array, "n out"], sigma: Activation) -> Particles:
        """Gradient of Phi(theta) = sum_i (p_i . out) sigma0(w . z_i + b), for each particle."""
        pre = preactivation(self, z)
        slope = (p @ self.out.T) * sigma.first(pre)
        return Particles(sigma(pre).T @ p, slope.T @ z, None if self.b is None else jnp.sum(slope, axis=0))

    def laplacian(
        self, z: Float[Array, "n state"], p: Float[Array, "n out"], sigma: Activation, directions: Array | None = None
    ) -> Array:
        """sum_i (p_i . out) (|z_i|^2 + 1) sigma0''(w . z_i + b) (docs/theory.md, section 3)."""
        assert sigma.second is not None, "callers refuse an activation without second derivative"
        bend = (p @ self.out.T) * sigma.second(preactivation(self, z))
        return squared_radius(self, z) @ bend

    def hessian(self, z: Float[Array, "n state"], p: Float[Array, "n out"], sigma: Activation) -> tuple[Array, Array]:
        """Blocks in (out, (w, b)): mixed A (out, inputs) and B (inputs, inputs).

        ``out`` enters linearly, so its own block is zero.
        """
        assert sigma.second is not None, "callers refuse an activation without second derivative"
        pre = preactivation(self, z)
        inputs = bias_extended(self, z)
        mixed = jnp.einsum("nm,no,ni->moi", sigma.first(pre), p, inputs)
        bend = (p @ self.out.T) * sigma.second(pre)
        return mixed, jnp.einsum("nm,ni,nj->mij", bend, inputs, inputs)

    def _hessian_blocks(self, size: int) -> tuple[tuple[int, int], tuple[int, int]]:
        inputs = size - self.outputs
        return (self.outputs, inputs), (inputs, inputs)

    def rows(self, z: Float[Array, "n state"], q: Float[Array, "rows out"], sigma: Activation) -> Array:
        """q_ic s_im and (out_m . q_ic) s'_im (z_i, 1) of all particles, row (i, c) -> i C + c."""
        by_out, by_w = split_rows(self, z, q, sigma)
        return jnp.concatenate([by_out.reshape(len(q), -1), by_w.reshape(len(q), -1)], axis=1)


def _numbers(like: Particles, out: float, w: float, b: float) -> Particles:
    """One number for each group, in the places of the arrays."""
    numbers = (out, w) if like.b is None else (out, w, b)
    # leaves may be None: of what does not move
    return eqx.tree_at(
        lambda one: (one.out, one.w, one.b)[: len(numbers)], like, numbers, is_leaf=lambda leaf: leaf is None
    )


def preactivation(particles: Particles, z: Float[Array, "n state"]) -> Float[Array, "n width"]:
    """w_m . z_i + b_m for the particles of one layer."""
    linear = z @ particles.w.T
    return linear if particles.b is None else linear + particles.b[None, :]


def squared_radius(particles: Particles, z: Float[Array, "n state"]) -> Float[Array, " n"]:
    """|z_i|^2 + 1, the squared length of the input a particle with bias sees (without bias, no 1)."""
    return jnp.sum(z * z, axis=-1) + (0.0 if particles.b is None else 1.0)


def bias_extended(particles: Particles, z: Float[Array, "n state"]) -> Float[Array, "n inputs"]:
    """(z_i, 1), the input a particle with bias sees (without bias, z_i)."""
    return z if particles.b is None else jnp.concatenate([z, jnp.ones_like(z[:, :1])], axis=1)


def split_rows(
    particles: Particles, z: Float[Array, "n state"], q: Float[Array, "rows out"], sigma: Activation
) -> tuple[Array, Array]:
    """q_ic s_im and (out_m . q_ic) s'_im (z_i, 1), shapes (rows, M, out) and (rows, M, inputs)."""
    s, v = row_factors(particles, z, q, sigma)
    outputs = q.shape[0] // z.shape[0]
    by_out = jnp.repeat(s, outputs, axis=0)[:, :, None] * q[:, None, :]
    return by_out, v[:, :, None] * jnp.repeat(bias_extended(particles, z), outputs, axis=0)[:, None, :]


def row_factors(
    particles: Particles, z: Float[Array, "n state"], q: Float[Array, "rows out"], sigma: Activation
) -> tuple[Array, Array]:
    """s_im and (out_m . q_ic) s'_im, shapes (n, M) and (rows, M)."""
    pre = preactivation(particles, z)
    slope = jnp.repeat(sigma.first(pre).astype(z.dtype), q.shape[0] // z.shape[0], axis=0)
    return sigma(pre).astype(z.dtype), (q @ particles.out.T) * slope


class ProbePoints(eqx.Module):
    """Probe particles of one layer, and a slot for the curvature they see.

    A probe has no mass: it adds nothing to the state, and the state's cotangent p gives it the
    gradient of the first variation Phi(theta) = sum_i p_i . sigma(z_i, theta) at its place.
    ``curvature`` is a zero whose cotangent is the second derivative of Phi: the Laplacian
    (shape (..., P)) or the two blocks of the Hessian (docs/theory.md, sections 3 and 7).
    """

    particles: AbstractParticles
    curvature: Array | tuple[Array, Array]
    directions: Array | None = None

    @classmethod
    def of(cls, particles: AbstractParticles, curvature: str) -> ProbePoints:
        """ProbePoints at these places; ``curvature`` is "laplacian", "hessian" or "none"."""
        along = particles.directions() if curvature == "laplacian" else None
        return cls(particles, particles.no_curvature(curvature), along)


def _probe_sum(sigma: Activation, probes: ProbePoints, z: Float[Array, "n state"]) -> Float[Array, "n out"]:
    """Zero; its cotangents are the first variation's derivatives at the probes (see `ProbePoints`)."""
    return jnp.zeros((z.shape[0], probes.particles.outputs), z.dtype)


probe_sum = jax.custom_vjp(_probe_sum, nondiff_argnums=(0,))


def _probe_forward(sigma: Activation, probes: ProbePoints, z: Array) -> tuple[Array, tuple[ProbePoints, Array]]:
    return probe_sum(sigma, probes, z), (probes, z)


def _probe_backward(sigma: Activation, saved: tuple[ProbePoints, Array], p: Array) -> tuple[ProbePoints, Array]:
    probes, z = saved
    probe = probes.particles
    gradient = probe.gradient(z, p, sigma)
    if isinstance(probes.curvature, tuple):
        curvature = probe.hessian(z, p, sigma)
    elif probes.curvature.ndim == len(probe.batch):
        curvature = probe.laplacian(z, p, sigma, probes.directions)
    else:
        curvature = probes.curvature
    still = None if probes.directions is None else jnp.zeros_like(probes.directions)
    return ProbePoints(gradient, curvature, still), jnp.zeros_like(z)


probe_sum.defvjp(_probe_forward, _probe_backward)
