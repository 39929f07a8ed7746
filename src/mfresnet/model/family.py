"""What a family of particles is, and what follows from its function sigma(z, theta) by automatic differentiation.

A particle theta sends a state z to sigma(z, theta), a vector in R^D in the encoder and in R^C in the head. Both papers
allow any such block; training, adjoint, Gram matrices and the change of a law's density need its derivatives alone:

    velocities      grad_theta Phi(theta),        Phi(theta) = sum_i p_i . sigma(z_i, theta)
    densities       Laplacian (or Hessian) of Phi in theta
    adjoint         q_i . d sigma(z_i, theta)/dz
    Gram matrices   < grad_theta (q_i . sigma(z_i, theta)), grad_theta (q_j . sigma(z_j, theta)) >

([C24] section 3, arXiv 2403.09889.) The defaults here take them by automatic differentiation. A subclass that knows a
closed form overrides them, as the two-layer `Particles` do.
"""

from __future__ import annotations

import abc
from math import prod
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from .activations import Activation


class AbstractParticles(eqx.Module):
    """A family of particles; leading axes (the layer, the seed) are free, the last one counts particles.

    Everything below that takes points z of shape (n, state) belongs to the particles of one layer. The activation is an
    argument, because the network holds one for all its particles.
    """

    @abc.abstractmethod
    def evaluate(self, z: Float[Array, " state"], sigma: Activation) -> Float[Array, " out"]:
        """sigma(z, theta) of one particle (leaves without leading axes) at one point."""

    @property
    @abc.abstractmethod
    def state(self) -> int:
        """Dimension of the states it reads, D."""

    @property
    @abc.abstractmethod
    def outputs(self) -> int:
        """Dimension of sigma(z, theta): D in the encoder, C in the head."""

    @abc.abstractmethod
    def ranks(self) -> Self:
        """Number of axes of each parameter of one particle, in the places of its leaves."""

    @abc.abstractmethod
    def deviations(self, scale: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Self:
        """Standard deviations of the Gaussian start, in the places of the leaves.

        Args:
            scale: of (out, w, b), for two-layer particles.
        """

    @abc.abstractmethod
    def redraw(self, key: Array, shape: tuple[int, ...], scale: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Self:
        """New particles of this kind from their Gaussian start, with leading axes ``shape``."""

    @abc.abstractmethod
    def smooth(self, sigma: Activation) -> bool:
        """Whether sigma(z, theta) has the second derivatives in theta that densities need."""

    @property
    def batch(self) -> tuple[int, ...]:
        """The leading axes, the last of which counts particles."""
        leaf, rank = jax.tree.leaves(self)[0], jax.tree.leaves(self.ranks())[0]
        return leaf.shape[: leaf.ndim - rank]

    def shapes(self) -> list[tuple[int, ...]]:
        """Shape of each parameter of one particle, in the order of the leaves."""
        pairs = zip(jax.tree.leaves(self), jax.tree.leaves(self.ranks()), strict=True)
        return [leaf.shape[leaf.ndim - rank :] for leaf, rank in pairs]

    @property
    def size(self) -> int:
        """Numbers of one particle."""
        return sum(prod(shape) for shape in self.shapes())

    @property
    def width(self) -> int:
        """Number of particles of one layer, M (or K for the head)."""
        return self.batch[-1]

    @property
    def layers(self) -> int:
        """Length of the first leading axis."""
        return self.batch[0]

    @property
    def dtype(self) -> jnp.dtype:
        """Precision."""
        return jnp.result_type(*jax.tree.leaves(self))

    def layer(self, index: int) -> Self:
        """The particles of one layer."""
        return jax.tree.map(lambda leaf: leaf[index], self)

    def flat(self) -> np.ndarray:
        """Particles as plain vectors, shape (*batch, numbers of one particle), in float64."""
        leaves = [np.asarray(jax.device_get(leaf), np.float64) for leaf in jax.tree.leaves(self)]
        return np.concatenate([leaf.reshape(*self.batch, -1) for leaf in leaves], axis=-1)

    # The network.

    def total(self, z: Float[Array, "n state"], sigma: Activation) -> Float[Array, "n out"]:
        """sum_m sigma(z_i, theta_m): no scale, which is `scaling`'s."""

        def at(point: Array) -> Array:
            return jnp.sum(jax.vmap(lambda one: one.evaluate(point, sigma))(self), axis=0)

        return jax.vmap(at)(z)

    def total_across(self, z: Float[Array, "state n"], sigma: Activation) -> Float[Array, "out n"]:
        """`total` with the points along the last axis."""
        return self.total(z.T, sigma).T

    def at(self, z: Float[Array, "n state"], sigma: Activation, scale: Array) -> Float[Array, "n out"]:
        """scale sigma(z_i, theta) of one particle (leaves without leading axes) at many points."""
        return scale * jax.vmap(lambda point: self.evaluate(point, sigma))(z)

    def weighted(
        self, z: Float[Array, "n state"], weights: Float[Array, " width"], sigma: Activation
    ) -> Float[Array, "n out"]:
        """sum_m weights_m sigma(z_i, theta_m)."""

        def point(z: Array) -> Array:
            return weights @ jax.vmap(lambda one: one.evaluate(z, sigma))(self)

        return jax.vmap(point)(z)

    def pull(
        self, z: Float[Array, "n state"], q: Float[Array, "n c out"], sigma: Activation
    ) -> Float[Array, "n c state"]:
        """sum_m q_ic . d sigma(z_i, theta_m)/dz: what the adjoint gains in a layer."""

        def at(point: Array, adjoints: Array) -> Array:
            _, back = jax.vjp(lambda at: self.total(at[None], sigma)[0], point)
            return jax.vmap(lambda q: back(q)[0])(adjoints)

        return jax.vmap(at)(z, q)

    def pull_outputs(self, z: Float[Array, "n state"], sigma: Activation) -> Float[Array, "n out state"]:
        """sum_m d sigma_c(z_i, theta_m)/dz of each output c."""
        each = jnp.eye(self.outputs, dtype=z.dtype)
        return self.pull(z, jnp.broadcast_to(each, (z.shape[0], *each.shape)), sigma)

    def carry(
        self, z: Float[Array, "n state"], tangent: Float[Array, "n state"], sigma: Activation
    ) -> Float[Array, "n out"]:
        """sum_m d sigma(z_i, theta_m)/dz . tangent_i."""
        return jax.jvp(lambda at: self.total(at, sigma), (z,), (tangent,))[1]

    def push(self, z: Float[Array, "n state"], moved: Self, sigma: Activation) -> Float[Array, "n out"]:
        """sum_m d sigma(z_i, theta_m)/dtheta . moved_m."""
        return jax.jvp(lambda family: family.total(z, sigma), (self,), (moved,))[1]

    # The first variation Phi(theta) = sum_i p_i . sigma(z_i, theta), for each particle.

    def variation(
        self, z: Float[Array, "n state"], p: Float[Array, "n out"], sigma: Activation
    ) -> Float[Array, " width"]:
        """Phi at each particle."""
        return jax.vmap(lambda one: _phi(one, z, p, sigma))(self)

    def gradient(self, z: Float[Array, "n state"], p: Float[Array, "n out"], sigma: Activation) -> Self:
        """Gradient of Phi."""
        return jax.vmap(jax.grad(lambda one: _phi(one, z, p, sigma)))(self)

    def directions(self) -> Array | None:
        """Directions of Hutchinson's estimate for each particle, (*batch, directions, numbers); None for exact ones."""
        return None

    def laplacian(
        self, z: Float[Array, "n state"], p: Float[Array, "n out"], sigma: Activation, directions: Array | None = None
    ) -> Float[Array, " width"]:
        """Laplacian of Phi, the trace of the Hessian H.

        Exact by default, one product with a unit vector after another; or Hutchinson's estimate (1990), the mean of
        v . H v over directions v of independent signs. A probe keeps its own directions along the flow: the change of
        its log-density is then unbiased, and the standard error of a mean over probes contains the estimate's.

        Args:
            directions: of each particle, shape (width, directions, numbers), or None.
        """

        def trace(one: Self, along: Array | None) -> Array:
            flat, unravel = ravel_pytree(one)
            slope = jax.grad(lambda flat: _phi(unravel(flat), z, p, sigma))

            def bend(direction: Array) -> Array:
                return direction @ jax.jvp(slope, (flat,), (direction,))[1]

            if along is not None:
                return jnp.mean(jax.lax.map(bend, along.astype(flat.dtype)))
            return jnp.sum(jax.lax.map(lambda k: bend(jnp.zeros_like(flat).at[k].set(1)), jnp.arange(flat.size)))

        return jax.vmap(trace)(self, directions)

    def hessian(
        self, z: Float[Array, "n state"], p: Float[Array, "n out"], sigma: Activation
    ) -> tuple[Float[Array, "width linear rest"], Float[Array, "width rest rest"]]:
        """Blocks of the Hessian [[0, A], [A^T, B]] of Phi.

        The first block belongs to parameters that enter linearly. None are known to here, so A is empty and B is all.
        """

        def full(one: Self) -> Array:
            flat, unravel = ravel_pytree(one)
            return jax.hessian(lambda flat: _phi(unravel(flat), z, p, sigma))(flat)

        bend = jax.vmap(full)(self)
        return jnp.zeros((bend.shape[0], 0, bend.shape[-1]), bend.dtype), bend

    def no_curvature(self, kind: str) -> Array | tuple[Array, Array]:
        """Zeros in the shape of `laplacian` or `hessian` ("none": nothing), for all leading axes."""
        if kind == "hessian":
            return tuple(jnp.zeros((*self.batch, *shape), self.dtype) for shape in self._hessian_blocks(self.size))  # pyright: ignore[reportReturnType]
        return jnp.zeros(self.batch if kind == "laplacian" else (*self.batch, 0), self.dtype)

    def _hessian_blocks(self, size: int) -> tuple[tuple[int, int], tuple[int, int]]:
        return (0, size), (size, size)

    def rows(
        self, z: Float[Array, "n state"], q: Float[Array, "rows out"], sigma: Activation
    ) -> Float[Array, "rows features"]:
        """grad_theta (q_ic . sigma(z_i, theta_m)) of all particles side by side, row (i, c) -> i C + c."""

        def one_row(point: Array, adjoint: Array) -> Array:
            gradient = self.gradient(point[None], adjoint[None], sigma)
            leaves = [leaf.reshape(self.width, -1) for leaf in jax.tree.leaves(gradient)]
            return jnp.concatenate(leaves, axis=1).ravel()

        return jax.vmap(one_row)(jnp.repeat(z, q.shape[0] // z.shape[0], axis=0), q)


def _phi(one: AbstractParticles, z: Array, p: Array, sigma: Activation) -> Array:
    return jnp.sum(p * jax.vmap(lambda point: one.evaluate(point, sigma))(z))
