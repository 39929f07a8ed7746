"""States, adjoints, velocities and Laplacians of the finite network, in closed form.

The formulas of [C24] as they stand on paper (docs/theory.md, section 3), for the Euler scheme. Training
itself uses reverse-mode differentiation (`flow.field`), which agrees with these to rounding.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from ..errors import MfresnetError
from ..model import AbstractParticles, AbstractResNet, scaling

Tree = TypeVar("Tree", Array, AbstractParticles)


class Sweep(NamedTuple):
    """States z_0..z_L (L+1, n, D), adjoints q_0..q_L (L+1, n, C, D) and predictions f (n, C)."""

    z: Float[Array, "layers n state"]
    q: Float[Array, "layers n outputs state"]
    f: Float[Array, "n outputs"]


class Velocities(NamedTuple):
    """Wasserstein velocities and Laplacians of every particle, and the loss.

    The Laplacians are None where the particles have no second derivative.
    """

    loss: Float[Array, ""]
    encoder: AbstractParticles
    head: AbstractParticles | None
    laplacian_encoder: Float[Array, "layers width"] | None
    laplacian_head: Float[Array, " width"] | None


def states(model: AbstractResNet, x: Float[Array | np.ndarray, "n inputs"]) -> Float[Array, "layers n state"]:
    """States z_0..z_L, shape (L+1, n, D) ([C24], eq. 1; docs/theory.md, section 1).

    >>> import jax
    >>> from mfresnet import LayeredResNet
    >>> model = LayeredResNet.create(jax.random.key(0), inputs=2, depth=3)
    >>> states(model, jax.numpy.ones((5, 2))).shape
    (4, 5, 2)
    """
    return model.states(x)


def check_euler(model: AbstractResNet) -> None:
    """Refuse the schemes whose layers do not see one state each.

    Raises:
        MfresnetError: the scheme is not Euler's.
    """
    if model.scheme != "euler":
        raise MfresnetError(
            f"the closed form needs scheme 'euler', but the model has {model.scheme!r}: use empirical_gram."
        )


def layers_of(model: AbstractResNet) -> tuple[AbstractParticles | None, Any]:
    """What a scan over depth runs over (None where depth shares one law), and how to get a layer from it."""
    if model.shared:
        return None, lambda _: model.encoder.layer(0)
    return model.encoder, lambda layer: layer


def head_adjoint(model: AbstractResNet, z: Float[Array, "n state"]) -> Float[Array, "n outputs state"]:
    """q_L: 1/K sum_k d sigma(z, omega_k)/dz, or the identity without head."""
    n, state = z.shape
    if model.head is None:
        return jnp.broadcast_to(jnp.eye(state, dtype=z.dtype), (n, state, state))
    return model.head.pull_outputs(z, model.sigma) / scaling.head_mass(model.head.width)


def adjoint(model: AbstractResNet, x: Float[Array | np.ndarray, "n inputs"]) -> Sweep:
    """q_l = dg/dz_l of g = f/beta, by the discrete adjoint (docs/theory.md, section 3):

        q_L from the head,   q_l = q_{l+1} + alpha/(L M) sum_m (u_m . q_{l+1}) sigma0'(w_m . z_l + b_m) w_m.

    Without a head g = z_L, so q_L is the identity.

    Raises:
        MfresnetError: the scheme is not Euler, for which alone the closed form holds.

    >>> import jax
    >>> from mfresnet import LayeredResNet
    >>> model = LayeredResNet.create(jax.random.key(0), inputs=2, depth=3)
    >>> adjoint(model, jax.numpy.ones((5, 2))).q.shape
    (4, 5, 1, 2)
    """
    check_euler(model)
    return _adjoint(model, jnp.asarray(x))


@eqx.filter_jit
def _adjoint(model: AbstractResNet, x: Float[Array, "n inputs"]) -> Sweep:
    z = model.states(x)
    h = scaling.depth_step(model.depth)
    over, particles_of = layers_of(model)

    def back(q: Array, xs: tuple[Any, Array]) -> tuple[Array, Array]:
        layer, entering = particles_of(xs[0]), xs[1]
        return q + h * scaling.residual(model.alpha, layer.pull(entering, q, model.sigma), layer.width), q

    first, after = jax.lax.scan(back, head_adjoint(model, z[-1]), (over, z[:-1]), reverse=True)
    return Sweep(z, jnp.concatenate([first[None], after]), model.read(z[-1]))


def velocities(
    model: AbstractResNet, x: Float[Array | np.ndarray, "n inputs"], y: Float[Array | np.ndarray, "n outputs"]
) -> Velocities:
    """Velocities v = -grad of the first variation of the squared loss, and its Laplacians.

        dLhat/dnu(theta, s) = (alpha beta/n) sum_i r_i (q_i(s).u) sigma0(w.z_i(s) + b)
        dLhat/dtau(omega)   = (beta/n)       sum_i r_i a sigma0(w.z_i(1) + b),      r = f - y

    ([C24], eqs. 2-3; docs/theory.md, section 3.)

    >>> import jax
    >>> from mfresnet import LayeredResNet
    >>> model = LayeredResNet.create(jax.random.key(0), inputs=2, depth=3, width=4)
    >>> x, y = jax.numpy.ones((5, 2)), jax.numpy.ones((5, 1))
    >>> velocities(model, x, y).encoder.u.shape
    (3, 4, 2)
    """
    check_euler(model)
    return _velocities(model, jnp.asarray(x), jnp.asarray(y))


@eqx.filter_jit
def _velocities(model: AbstractResNet, x: Float[Array, "n inputs"], y: Float[Array, "n outputs"]) -> Velocities:
    z, q, f = _adjoint(model, x)
    residual = (f - y) / x.shape[0]
    loss = 0.5 * jnp.sum((f - y) * residual)
    # p_i = beta sum_c r_ic q_ic / n: all that the first variation needs of the adjoint
    p = model.beta * jnp.einsum("nc,lncd->lnd", residual, q)
    sigma = model.sigma
    over, particles_of = layers_of(model)

    def gradient(layer: AbstractParticles | None, z: Array, p: Array) -> AbstractParticles:
        return particles_of(layer).gradient(z, model.alpha * p, sigma)

    def laplacian(layer: AbstractParticles | None, z: Array, p: Array) -> Array:
        return particles_of(layer).laplacian(z, model.alpha * p, sigma)

    def per_particle(tree: Tree) -> Tree:
        """A shared particle acts at every depth: its first variation is the mean over depths."""
        return jax.tree.map(lambda v: jnp.mean(v, axis=0, keepdims=True), tree) if model.shared else tree

    def negative(tree: AbstractParticles) -> AbstractParticles:
        return jax.tree.map(jnp.negative, tree)

    encoder = negative(per_particle(eqx.filter_vmap(gradient)(over, z[:-1], p[1:])))
    smooth = model.smooth
    bend = per_particle(eqx.filter_vmap(laplacian)(over, z[:-1], p[1:])) if smooth else None
    if model.head is None:
        return Velocities(loss, encoder, None, bend, None)
    head = negative(model.head.gradient(z[-1], model.beta * residual, sigma))
    head_bend = model.head.laplacian(z[-1], model.beta * residual, sigma) if smooth else None
    return Velocities(loss, encoder, head, bend, head_bend)
