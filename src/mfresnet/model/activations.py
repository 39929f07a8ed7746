"""Activations sigma0 with first and second derivative, and their bounds.

The theory asks more of an activation than its value: velocities use sigma0', the change of a law's
density uses sigma0'' ([C24], docs/theory.md sections 3 and 7), and the bounds use sup |sigma0| and sup |sigma0'|.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, pi, sqrt

import jax
import jax.numpy as jnp
from jax import Array

from ..registry import Registry

Scalar = Callable[[Array], Array]


@dataclass(frozen=True)
class Activation:
    """A scalar activation ``sigma0``, applied entry by entry.

    Args:
        name: how messages and reports call it.
        value: sigma0.
        first: sigma0'.
        second: sigma0'', or None where it does not exist (relu): what needs it is then refused.
        bounds: (sup |sigma0|, sup |sigma0'|, sup |sigma0''|), ``inf`` where unbounded.
        polynomial: whether sigma0 is a polynomial (its Hermite series is finite).

    >>> activation("tanh").bounds[:2]
    (1.0, 1.0)
    """

    name: str
    value: Scalar
    first: Scalar
    second: Scalar | None
    bounds: tuple[float, float, float]
    polynomial: bool = False

    def __call__(self, x: Array) -> Array:
        return self.value(x)

    @classmethod
    def from_function(
        cls, name: str, value: Scalar, bounds: tuple[float, float, float] = (inf, inf, inf)
    ) -> Activation:
        """Your own activation: both derivatives are taken by automatic differentiation.

        >>> import jax.numpy as jnp
        >>> Activation.from_function("square", lambda x: x**2).second(jnp.array([3.0]))
        Array([2.], dtype=float32)
        """
        first = jax.grad(value)
        second = jax.grad(first)
        return cls(name, value, jnp.vectorize(first), jnp.vectorize(second), bounds)

    def assumption3(self) -> tuple[str, ...]:
        """What Assumption 3 of [C24] asks and this activation lacks; empty when it holds.

        It asks for |sigma0'| <= C, |sigma0''| <= C (so that |sigma0(x)| <= C max(|x|, 1)) and for
        infinitely many non-zero Hermite coefficients, that is, no polynomial.
        """
        _, first, second = self.bounds
        lacks = []
        if first == inf:
            lacks.append("no bound on its first derivative is known")
        if self.second is None:
            lacks.append("it has no second derivative")
        elif second == inf:
            lacks.append("no bound on its second derivative is known")
        if self.polynomial:
            lacks.append("it is a polynomial, so its Hermite series is finite")
        return tuple(lacks)


def _gauss(x: Array) -> Array:
    return jnp.exp(-0.5 * x * x) / sqrt(2 * pi)


def _normal_cdf(x: Array) -> Array:
    return 0.5 * jax.lax.erfc(-x / sqrt(2.0))


def _logistic_second(x: Array) -> Array:
    s = jax.nn.sigmoid(x)
    return s * (1 - s) * (1 - 2 * s)


def _sech2(x: Array) -> Array:
    t = jnp.tanh(x)
    return 1 - t * t


def _tanh_second(x: Array) -> Array:
    t = jnp.tanh(x)
    return -2 * t * (1 - t * t)


def _logistic_first(x: Array) -> Array:
    s = jax.nn.sigmoid(x)
    return s * (1 - s)


# The suprema of tanh'', sigmoid'' and gelu' are attained at roots known in closed form (tanh'' at
# tanh^2 = 1/3, sigmoid'' at s = 1/2 +- 1/sqrt(12), gelu' at sqrt 2); tests check all by a fine grid.
_BUILT_IN = (
    Activation("tanh", jnp.tanh, _sech2, _tanh_second, (1.0, 1.0, 4 / (3 * sqrt(3)))),
    # erf(x / sqrt 2), the field's convention: E over a Gaussian is an arcsine (Williams 1997)
    Activation(
        "erf",
        lambda x: jax.lax.erf(x / sqrt(2.0)),
        lambda x: 2 * _gauss(x),
        lambda x: -2 * x * _gauss(x),
        (1.0, sqrt(2 / pi), sqrt(2 / pi) * 0.6065306597126334),
    ),
    Activation("sigmoid", jax.nn.sigmoid, _logistic_first, _logistic_second, (1.0, 0.25, 1 / (6 * sqrt(3)))),
    Activation("softplus", jax.nn.softplus, jax.nn.sigmoid, _logistic_first, (inf, 1.0, 0.25)),
    Activation(
        "gelu",
        lambda x: x * _normal_cdf(x),
        lambda x: _normal_cdf(x) + x * _gauss(x),
        lambda x: (2 - x * x) * _gauss(x),
        (inf, 1.1289041834184, sqrt(2 / pi)),
    ),
    Activation("relu", jax.nn.relu, lambda x: (x > 0).astype(x.dtype), None, (inf, 1.0, inf)),
    Activation("sin", jnp.sin, jnp.cos, lambda x: -jnp.sin(x), (1.0, 1.0, 1.0)),
    Activation("identity", lambda x: x, jnp.ones_like, jnp.zeros_like, (inf, 1.0, 0.0), polynomial=True),
)

ACTIVATIONS: Registry[Activation] = Registry(
    "activation", "mfresnet.activations", {one.name: one for one in _BUILT_IN}, base=Activation
)


def activation(name: str | Activation) -> Activation:
    """The activation of that name; ``package.module:ATTRIBUTE`` loads your own.

    Raises:
        MfresnetError: an unknown name, or what it points to is no ``Activation``.

    >>> activation("tanh").name
    'tanh'
    """
    return name if isinstance(name, Activation) else ACTIVATIONS[name]
