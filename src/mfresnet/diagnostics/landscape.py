"""The landscape seen by a new particle, and the network as an ensemble of shallow ones ([L20], arXiv 2003.05508)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..flow import adjoint
from ..flow.adjoint import layers_of
from ..kernels.precision import cast, double_precision
from ..model import AbstractParticles, AbstractResNet, scaling
from ..model.depth import vector_field
from ..stats import explained_share


@dataclass(frozen=True)
class Landscape:
    """The first variation at random places: what adding a little mass there does to the loss.

    Args:
        lowest_encoder, lowest_head: most negative value over the random probes. At a stationary point
            of full support it is 0, and every local minimum is global ([L20]).
        spread_encoder, spread_head: standard deviation over the probes, the scale to hold it against.
        depth: depth s of the encoder's lowest probe.
    """

    lowest_encoder: float
    spread_encoder: float
    lowest_head: float
    spread_head: float
    depth: float


def landscape(model: AbstractResNet, x: Any, y: Any, *, probes: int = 256, seed: int = 0) -> Landscape:
    """Most negative first variation of the squared loss over ``probes`` Gaussian places per layer."""
    with double_precision():
        network, x, y = cast(model, np.float64), jnp.asarray(x, jnp.float64), jnp.asarray(y, jnp.float64)
        network = network.layered()
        values, head = (np.asarray(v) for v in _first_variations(network, x, y, jax.random.key(seed), probes))
    low = np.unravel_index(np.argmin(values), values.shape)
    return Landscape(
        float(values.min()),
        float(values.std()),
        float(head.min()),
        float(head.std()),
        float(model.layer_places[low[0]]),
    )


@eqx.filter_jit
def _first_variations(network: AbstractResNet, x: Array, y: Array, key: Array, probes: int) -> tuple[Array, Array]:
    """At Gaussian places: of the encoder (L, probes), and of the head (probes,) (zero without head)."""
    passes = adjoint(network, x)
    residual = (passes.f - y) / x.shape[0]
    p = network.alpha * network.beta * jnp.einsum("nc,lncd->lnd", residual, passes.q[1:])
    k_encoder, k_head = jax.random.split(key)
    places = network.encoder.redraw(k_encoder, (probes,))
    values = jax.lax.map(lambda zp: _first_variation(network, places, *zp), (passes.z[:-1], p))
    if network.head is None:
        return values, jnp.zeros(1)
    return values, _first_variation(
        network, network.head.redraw(k_head, (probes,)), passes.z[-1], network.beta * residual
    )


def _first_variation(network: AbstractResNet, places: AbstractParticles, z: Array, p: Array) -> Array:
    """sum_i p_i . sigma(z_i, theta) at each place."""
    single = jax.vmap(lambda place: jnp.sum(p * place.total(z, network.sigma)))
    return single(jax.tree.map(lambda leaf: leaf[:, None], places))


@eqx.filter_jit
def _paths(network: AbstractResNet, x: Array) -> tuple[Array, Array, Array]:
    z = network.embed(x)
    shallow = network.read(z)
    h = scaling.depth_step(network.depth)

    over, particles_of = layers_of(network)

    def add(total: Array, layer: AbstractParticles | None) -> tuple[Array, None]:
        one = network.read(z + h * vector_field(particles_of(layer), z, network.sigma, network.alpha))
        return total + one - shallow, None

    total, _ = jax.lax.scan(add, jnp.zeros_like(shallow), over, length=network.depth)
    return network(x), shallow, total


def first_order_share(model: AbstractResNet, x: Any) -> float:
    """How much of f - f_0 is explained by paths through a single block.

        1 - |f - f_0 - sum_l (f_l - f_0)|^2 / |f - f_0|^2

    f_0 reads the input directly, f_l passes through block l alone. 1 means that the deep network is an
    ensemble of shallow ones ([L20]); negative values mean that the sum of single paths is worse than none.

    >>> import jax
    >>> from mfresnet import LayeredResNet
    >>> model = LayeredResNet.create(jax.random.key(0), inputs=2, depth=5, alpha=0.01)
    >>> first_order_share(model, np.eye(2)) > 0.999
    True
    """
    with double_precision():
        f, shallow, total = _paths(cast(model, np.float64).layered(), jnp.asarray(x, jnp.float64))
        return explained_share(f - shallow, total)
