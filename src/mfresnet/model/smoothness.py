"""Whether a particle's function has the continuous gradient that it is declared to have."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from ..errors import MfresnetError

SEGMENTS = 64
HALVINGS = 30
JUMP = 1e-4  # smallest jump that counts, relative to the largest value met
NODES, WEIGHTS = (
    array / 2 for array in np.polynomial.legendre.leggauss(8)
)  # of the Gauss-Legendre rule on [-1/2, 1/2]


@lru_cache(maxsize=256)
def check_smooth(kind: Any, state: int, outputs: int) -> None:
    """Refuse a `Particle` that is declared smooth although its value or its gradient in theta jumps, as that of relu.

    Along a segment theta(t) between two draws of the start, phi(t) = c . sigma(z, theta(t)) with random z and c is held
    against its derivatives by automatic differentiation, which do not see a jump:

        gap(l, r) = phi'(r) - phi'(l) - int_l^r phi''(t) dt,      and the same for phi and phi'.

    The gap of an interval with a jump is the height of the jump, however short the interval; other gaps vanish with the
    length. Each of `SEGMENTS` segments is halved towards the larger gap `HALVINGS` times, in float64. A kink that no
    segment crosses is not seen, so that this is a test of the declaration and no proof.

    Args:
        kind: function and law of the start.
        state, outputs: dimensions of sigma's input and value.

    Raises:
        MfresnetError: value or gradient jumps.

    >>> from mfresnet.model import particle
    >>> check_smooth(particle("gated", 3, 3), 3, 3)
    """
    with jax.enable_x64(True):
        jumps = np.asarray(
            jax.jit(jax.vmap(_jumps(kind, state, outputs)))(jax.random.split(jax.random.key(1), SEGMENTS))
        )
    for place, name in enumerate(("value", "derivative")):
        if np.any(jumps[:, place] > JUMP):
            raise MfresnetError(
                f"particle {getattr(kind.function, '__name__', 'sigma')} is declared smooth, but its {name} jumps in "
                "theta: use a smooth activation such as tanh, or leave smooth out (training without KL)."
            )


def _jumps(kind: Any, state: int, outputs: int) -> Callable[[Array], Array]:
    """Of a key: the largest jumps of phi and phi' along one segment, relative to their size."""
    std, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), kind.std))

    def jumps(key: Array) -> Array:
        keys = jax.random.split(key, 4)
        z, c = jax.random.normal(keys[0], (state,)), jax.random.normal(keys[1], (outputs,))
        z = z / jnp.linalg.norm(z)
        start, end = (std * jax.random.normal(one, std.shape) for one in keys[2:])

        def phi(t: Array) -> Array:
            return c @ kind.function(z, unravel(start + t * (end - start)))

        def value_and_slope(t: Array) -> Array:
            return jnp.stack(jax.value_and_grad(phi)(t))

        return _jump(lambda t: jax.jvp(value_and_slope, (t,), (jnp.ones_like(t),)))

    return jumps


def _jump(taylor: Callable[[Array], tuple[Array, Array]]) -> Array:
    """Of a function and its derivative: the gap of the interval that is left of [0, 1] after all halvings, relative to
    the largest absolute value at 17 points.

    Args:
        taylor: of t: (f(t), f'(t)) and its derivative.
    """

    def gap(low: Array, high: Array) -> Array:
        """Of intervals (..., 2), one for the function and one for its derivative."""
        width = high - low
        points = jnp.stack([low, high, *((low + high) / 2 + width * node for node in NODES)])
        f, slope = (
            jnp.diagonal(each, axis1=-2, axis2=-1) for each in jnp.vectorize(taylor, signature="()->(k),(k)")(points)
        )
        return jnp.abs(f[1] - f[0] - width * jnp.tensordot(WEIGHTS, slope[2:], 1))

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        of_left, of_right = gap(jnp.stack([low, middle]), jnp.stack([middle, high]))
        left = of_left > of_right
        return jnp.where(left, low, middle), jnp.where(left, middle, high)

    low, high = jax.lax.fori_loop(0, HALVINGS, halve, (jnp.zeros(2), jnp.ones(2)))
    size = jnp.max(jnp.abs(jax.vmap(lambda t: taylor(t)[0])(jnp.linspace(0, 1, 17))), axis=0)
    return gap(low, high) / jnp.maximum(size, 1e-30)
