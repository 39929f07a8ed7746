"""States and adjoints of the outputs, the two sweeps every closed-form Gram matrix is made of."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..errors import MfresnetError
from ..model import Particles, ScaledResNet, scaling
from ..model.particles import preactivation
from .precision import cast, checked_dtype, checked_rows, double_precision


def check_euler(model: ScaledResNet) -> None:
    """Refuse the schemes whose layers do not see one state each.

    Raises:
        MfresnetError: the scheme is not Euler's.
    """
    if model.scheme != "euler":
        raise MfresnetError(
            f"the closed form needs scheme 'euler', but the model has {model.scheme!r}: use empirical_gram."
        )


def input_width(model: ScaledResNet) -> int:
    """Number of columns the model expects of its inputs."""
    return (model.encoder.w if model.embedding is None else model.embedding).shape[-1]


def head_adjoint(model: ScaledResNet, z: Array) -> Array:
    """q_L of shape (n, C, D): 1/K sum_k a_k sigma0'(w_k . z + b_k) w_k, or the identity without head."""
    n, state = z.shape
    if model.head is None:
        return jnp.broadcast_to(jnp.eye(state, dtype=z.dtype), (n, state, state))
    slope = model.sigma.first(preactivation(model.head, z)).astype(z.dtype)
    return (slope[:, None, :] * model.head.a.T[None, :, :]) @ model.head.w / scaling.head_mass(model.head.width)


def layers_of(model: ScaledResNet) -> tuple[Particles | None, Any]:
    """What a scan over depth runs over (None where depth shares one law), and how to get a layer from it."""
    if model.shared:
        return None, lambda _: model.encoder.layer(0)
    return model.encoder, lambda layer: layer


@jax.jit
def states_and_adjoints(model: ScaledResNet, x: Array) -> tuple[Array, Array]:
    """z of shape (L+1, n, D) and q of shape (L+1, n, C, D), see `output_adjoint`."""
    z = model.states(x)
    step = scaling.depth_step(model.depth)
    over, particles_of = layers_of(model)

    def back(q: Array, layer: tuple[Any, Array]) -> tuple[Array, Array]:
        particles = particles_of(layer[0])
        slope = model.sigma.first(preactivation(particles, layer[1])).astype(q.dtype)
        through = ((q @ particles.u.T) * slope[:, None, :]) @ particles.w
        return q + step * scaling.residual(model.alpha, through, particles.width), q

    first, after = jax.lax.scan(back, head_adjoint(model, z[-1]), (over, z[:-1]), reverse=True)
    return z, jnp.concatenate([first[None], after])


def output_adjoint(model: ScaledResNet, x: Any, *, dtype: Any = np.float64) -> np.ndarray:
    """The adjoint q of the outputs: how output c of point i moves with its state at depth l.

        q_L = 1/K sum_k a_k sigma0'(w_k . z_L + b_k) w_k        (without head: the identity)
        q_l = q_{l+1} + alpha/(L M) sum_m (u_lm . q_{l+1}) sigma0'(w_lm . z_l + b_lm) w_lm

    that is q_l = dg/dz_l with g = f / beta (theory, section 3; [C24] eq. 6), without beta.

    Args:
        model: an Euler network of any number of outputs C.
        x: inputs, shape (n, d).
        dtype: float64 (default) or float32.

    Returns:
        q of shape (L+1, n, C, D).

    Raises:
        MfresnetError: a scheme other than Euler, inputs of the wrong width, NaN or infinite entries.

    >>> import jax
    >>> model = ScaledResNet.create(jax.random.key(0), inputs=2, depth=3, width=4, outputs=1)
    >>> output_adjoint(model, [[1.0, 0.0], [0.6, 0.8]]).shape
    (4, 2, 1, 2)
    """
    check_euler(model)
    table, dtype = checked_rows(x, columns=input_width(model)), checked_dtype(dtype)
    with double_precision():
        return np.array(states_and_adjoints(cast(model, dtype), jnp.asarray(table, dtype))[1])
