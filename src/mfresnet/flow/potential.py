"""Any predictor as the potential of a Langevin chain: a Gaussian prior over its parameters, a surrogate, labels."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jaxtyping import Float

from ..errors import MfresnetError, unknown_name

Predictor = Callable[[Any, Array], Array]


class GaussianPrior(eqx.Module):
    """Independent Gaussians over the leaves of a tree of parameters: theta = mean + std z, z ~ N(0, I).

    Args:
        mean: tree of floating-point arrays.
        std: tree of the same structure; each leaf is a number or an array of its mean's shape, above 0.

    Raises:
        MfresnetError: trees of different structure, shapes that do not fit, a std that is not above 0.

    >>> prior = GaussianPrior.standard({"w": jnp.zeros((3, 2)), "b": jnp.zeros(2)}, std=0.5)
    >>> prior.size, prior.params(jnp.ones(8))["b"].tolist()
    (8, [0.5, 0.5])
    """

    mean: Any
    std: Any

    def __check_init__(self) -> None:
        means, structure = jax.tree.flatten(self.mean)
        if not means:
            raise MfresnetError("the prior has no parameters: give a tree with at least one array.")
        if jax.tree.structure(self.std) != structure:
            raise MfresnetError(
                f"the prior's std has the structure {jax.tree.structure(self.std)}, its mean {structure}: give one std "
                "per leaf of the mean."
            )
        for mean, std in zip(means, jax.tree.leaves(self.std), strict=False):
            if not jnp.issubdtype(jnp.result_type(mean), jnp.floating):
                raise MfresnetError(f"a parameter of type {jnp.result_type(mean)} has no Gaussian prior: keep it in f.")
            if jnp.shape(std) not in ((), jnp.shape(mean)):
                raise MfresnetError(
                    f"a std of shape {jnp.shape(std)} does not fit its mean of shape {jnp.shape(mean)}."
                )
            concrete = not isinstance(std, Tracer)
            if concrete and not np.all((np.asarray(std) > 0) & np.isfinite(np.asarray(std))):
                raise MfresnetError("the prior's std must be finite and above 0: keep what is fixed in f.")

    @classmethod
    def standard(cls, params: Any, std: float = 1.0) -> GaussianPrior:
        """Mean 0 and one std for every entry, in the structure of ``params``, whose values are not used."""
        params = jax.tree.map(jnp.asarray, params)
        return cls(
            jax.tree.map(jnp.zeros_like, params), jax.tree.map(lambda leaf: jnp.full((), std, leaf.dtype), params)
        )

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(self.mean))

    def params(self, z: Float[Array, " size"]) -> Any:
        """The parameters at the standard coordinates z."""
        leaves, structure = jax.tree.flatten(self.mean)
        place, parts = 0, []
        for mean, std in zip(leaves, jax.tree.leaves(self.std), strict=False):
            count = prod(jnp.shape(mean))
            parts.append(mean + std * z[place : place + count].reshape(jnp.shape(mean)).astype(jnp.result_type(mean)))
            place += count
        return jax.tree.unflatten(structure, parts)


class PredictorPotential(eqx.Module):
    """(z, (x, y)) to (L, mistakes) for outputs f(params, x).

    Two classes, y in {-1, +1}:      L = mean_i sigmoid(-scale y_i f_i)
    several, y in {0 .. C-1}:        L = mean_i [1 - softmax(scale f_i)_{y_i}], which for two classes is the same
    "squared":                       L = mean_i (f_i - y_i)^2/2, or its sum over one-hot classes: the training loss
    any function of (f, y):          L = mean_i surrogate(f, y)_i

    A point is a mistake unless the right class is strictly first; outputs that are not numbers are mistakes.
    With ``risk``, a function of (f, y) in [0, 1], "mistakes" is its sum: the bounded loss that is certified.
    """

    f: Predictor
    prior: GaussianPrior
    scale: Array
    surrogate: str | Callable = eqx.field(static=True, default="sigmoid")
    risk: Callable | None = eqx.field(static=True, default=None)

    def outputs(self, z: Float[Array, " size"], x: Any) -> Array:
        """f of the parameters at z; shape (n,) for one output."""
        f = self.f(self.prior.params(z), x)
        return f[:, 0] if f.ndim == 2 and f.shape[1] == 1 else f

    def __call__(self, z: Float[Array, " size"], data: tuple[Any, Array]) -> tuple[Array, Array]:
        x, y = data
        f = self.outputs(z, x)
        return jnp.mean(self.losses(f, y)).astype(jnp.float32), jnp.sum(self.mistakes(f, y)).astype(jnp.float32)

    def losses(self, f: Array, y: Array) -> Float[Array, " n"]:
        """The surrogate of each point."""
        if callable(self.surrogate):
            return self.surrogate(f, y)
        if self.surrogate == "sigmoid":
            return jax.nn.sigmoid(-self.scale * _margins(f, y, self.scale))
        if f.ndim == 1:
            return 0.5 * (f - y) ** 2
        return 0.5 * jnp.sum((f - jax.nn.one_hot(y, f.shape[-1], dtype=f.dtype)) ** 2, axis=-1)

    def mistakes(self, f: Array, y: Array) -> Float[Array, " n"]:
        """1 for a mistake, or the risk; 1 where the outputs are not numbers."""
        if self.risk is not None:
            risk = self.risk(f, y)
            return jnp.where((risk >= 0) & (risk <= 1), risk, 1.0)
        if f.ndim == 1:
            return jnp.where(y * f > 0, 0.0, 1.0)
        own = jnp.take_along_axis(f, y[:, None], axis=-1)
        others = jnp.where(jax.nn.one_hot(y, f.shape[-1], dtype=bool), -jnp.inf, f)
        return jnp.where(jnp.all(own > others, axis=-1), 0.0, 1.0)

    @eqx.filter_jit
    def count(self, z: Float[Array, "m size"], data: tuple[Any, Array]) -> Float[Array, " m"]:
        """Mistakes (or the sum of risks) of each chain."""
        return jax.lax.map(lambda one: self(one, data)[1], z)


def _margins(f: Array, y: Array, scale: Array) -> Array:
    """y f, or f_y - log(sum_{j != y} exp(scale f_j))/scale, whose sigmoid is the softmax."""
    if f.ndim == 1:
        return y * f
    own = jax.nn.one_hot(y, f.shape[-1], dtype=bool)
    others = jax.nn.logsumexp(jnp.where(own, -jnp.inf, scale * f), axis=-1) / scale
    return jnp.sum(jnp.where(own, f, 0), axis=-1) - others


def labels(y: Any, n: int, outputs: tuple[int, ...], risk: Callable | None) -> np.ndarray:
    """Targets as the potential reads them: -1/+1 (n,) for one output, class numbers (n,) for several.

    Args:
        y: -1/+1 for one output; class numbers or one-hot rows for C >= 2; anything with ``risk``.
        outputs: shape of f(params, x).

    Raises:
        MfresnetError: labels outside the classes, regression targets without a bounded loss, wrong shapes.

    >>> labels([[1.0], [-1.0]], 2, (2, 1), None).tolist()
    [1.0, -1.0]
    """
    if len(outputs) not in (1, 2) or outputs[0] != n:
        raise MfresnetError(f"f returns outputs of shape {outputs} for {n} points: return shape ({n},) or ({n}, C).")
    y = np.asarray(y)
    if y.shape[:1] != (n,):
        raise MfresnetError(f"labels of shape {y.shape} do not fit {n} points: give one per point.")
    if risk is not None:
        return y.astype(np.float32) if np.issubdtype(y.dtype, np.floating) else y
    classes = outputs[1] if len(outputs) == 2 else 1
    if classes == 1:
        y = y.reshape(n, -1)[:, 0] if y.size == n else y
        if y.shape != (n,) or not np.all(np.abs(y.astype(np.float64)) == 1):
            raise MfresnetError(
                "labels outside the classes -1 and +1 of a single output: recode two classes, return one output per "
                "class for several, or give risk=, a loss in [0, 1], for regression (only bounded losses "
                "are certified)."
            )
        return y.astype(np.float32)
    if y.shape == (n, classes) and np.all((y == 0) | (y == 1)) and np.all(y.sum(axis=1) == 1):
        y = y.argmax(axis=1)
    y = y.reshape(n, -1)[:, 0] if y.size == n else y
    if y.shape != (n,) or not np.all((y == np.round(y)) & (y >= 0) & (y < classes)):
        raise MfresnetError(
            f"labels outside the classes 0 .. {classes - 1} of the {classes} outputs: give class numbers or one-hot "
            "rows, or risk=, a loss in [0, 1], for regression (only bounded losses are certified)."
        )
    return y.astype(np.int32)


def check_surrogate(surrogate: str | Callable, scale: float) -> None:
    """Raise for an unknown surrogate, or a scale that is not above 0."""
    if not callable(surrogate) and surrogate not in ("sigmoid", "squared"):
        raise unknown_name("surrogate", surrogate, ("sigmoid", "squared"))
    if not (np.isfinite(scale) and scale > 0):
        raise MfresnetError(f"scale = {scale} is not allowed: give a finite number above 0.")
