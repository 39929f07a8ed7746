"""Products of the Gram matrices with vectors, never forming a matrix ([C24] section 3, arXiv 2403.09889)."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.sparse.linalg import LinearOperator

from ..errors import MfresnetError
from ..flow.adjoint import check_euler, head_adjoint, layers_of
from ..model import AbstractParticles, AbstractResNet, scaling
from .output_adjoint import input_width, ranks_of
from .precision import cast, check_dtype, check_rows, double_precision, equal_rows_note

Part = Literal["encoder", "head", "total"]


class GramOperator:
    """G v, G1 v and G2 v for vectors v of length n C, see `gram_operator`."""

    def __init__(self, model: AbstractResNet, x: Array, outputs: int, notes: tuple[str, ...]) -> None:
        self._model, self._x, self._outputs = model, x, outputs
        self._states = None
        self.shape = (len(x) * outputs, len(x) * outputs)
        self.dtype = np.dtype(x.dtype)
        self.notes = notes
        self.ranks = ranks_of(model)

    def matvec_encoder(self, v: Any) -> np.ndarray:
        """G1 v = (L M / alpha^2) J_nu J_nu^T v."""
        return self._apply(v, "encoder")

    def matvec_head(self, v: Any) -> np.ndarray:
        """G2 v = K J_tau J_tau^T v."""
        return self._apply(v, "head")

    def matvec(self, v: Any) -> np.ndarray:
        """G v = alpha^2 G1 v + G2 v, for the price of one of them."""
        return self._apply(v, "total")

    def part(self, name: Part) -> LinearOperator:
        """One of the three as SciPy's linear operator, for example for `smallest_eigenvalue`."""
        if name not in ("encoder", "head", "total"):
            raise MfresnetError(f"part = {name!r} is not allowed: give one of encoder, head, total.")
        apply = partial(self._apply, part=name)
        return LinearOperator(self.shape, matvec=apply, dtype=self.dtype)  # pyright: ignore[reportCallIssue]

    def _apply(self, v: Any, part: Part) -> np.ndarray:
        vector = np.asarray(v, self.dtype)
        if vector.size != self.shape[0]:
            raise MfresnetError(f"the vector has length {vector.size}: give one of length {self.shape[0]}.")
        with double_precision():
            if self._states is None:
                self._states = _states(self._model, self._x)
            weights = jnp.asarray(vector.reshape(len(self._x), self._outputs))
            return np.array(_product(self._model, self._states, weights, part)).reshape(vector.shape)


def gram_operator(model: AbstractResNet, x: Any, *, dtype: Any = np.float64) -> GramOperator:
    """The Gram matrices of `gram` as products with vectors: one backward and one forward pass each.

        G v = alpha^2 G1 v + G2 v,   G1 = (L M / alpha^2) J_nu J_nu^T,   G2 = K J_tau J_tau^T

    with J the Jacobian of g = f / beta. The backward pass forms J^T v (as many
    numbers as the model has), the forward pass its image under J. Memory: O(n (M + D) C) beyond the
    states (L n D numbers) and the model, so n = 50,000 is no obstacle.

    ``ranks`` has upper bounds of the ranks, which `smallest_eigenvalue` takes: where n C exceeds the number of
    parameters, lambda_min is 0 and needs no product.

    Args:
        model: an Euler network; without head, without bias and depth-shared ones too.
        x: inputs, shape (n, d).
        dtype: float64 (default) or float32.

    Raises:
        MfresnetError: a scheme other than Euler, inputs of the wrong width, NaN or infinite entries.

    >>> import jax
    >>> from mfresnet import LayeredResNet
    >>> model = LayeredResNet.create(jax.random.key(0), inputs=2, depth=3, width=4, head_width=5)
    >>> operator = gram_operator(model, [[1.0, 0.0], [0.6, 0.8]])
    >>> operator.shape, operator.matvec([1.0, 1.0]).shape
    ((2, 2), (2,))
    """
    check_euler(model)
    table, dtype = check_rows(x, columns=input_width(model)), check_dtype(dtype)
    outputs = model.outputs
    with double_precision():
        return GramOperator(cast(model, dtype), jnp.asarray(table, dtype), outputs, equal_rows_note(table))


@jax.jit
def _states(model: AbstractResNet, x: Array) -> Array:
    return model.states(x)


@partial(jax.jit, static_argnums=3)
def _product(model: AbstractResNet, z: Array, v: Array, part: Part) -> Array:
    """The part's matrix times v, shape (n, C)."""
    result = jnp.zeros_like(v)
    if part != "encoder" and model.head is not None:
        moved = model.head.gradient(z[-1], v, model.sigma)
        result = model.head.push(z[-1], moved, model.sigma) / scaling.head_mass(model.head.width)
    if part == "head":
        return result
    gradient = _backward(model, z, v)
    tangent = _forward(model, gradient, z)
    q_last = head_adjoint(model, z[-1])
    encoder = jnp.einsum("ncd,nd->nc", q_last, tangent)
    return encoder if part == "encoder" else result + model.alpha**2 * encoder


def _backward(model: AbstractResNet, z: Array, v: Array) -> AbstractParticles:
    """Gradient at each particle of sum_i p_i . sigma(z_i, theta), with p the adjoint of sum_ic v_ic g_ic."""
    over, particles_of = layers_of(model)
    step = scaling.depth_step(model.depth)

    def back(carry: tuple[Array, Any], layer: tuple[Any, Array]) -> tuple[tuple[Array, Any], Any]:
        p, summed = carry
        particles = particles_of(layer[0])
        gradient = particles.gradient(layer[1], p, model.sigma)
        pulled = particles.pull(layer[1], p[:, None, :], model.sigma)[:, 0]
        p = p + step * scaling.residual(model.alpha, pulled, particles.width)
        if not model.shared:
            return (p, None), gradient
        return (p, jax.tree.map(jnp.add, summed, gradient)), None  # one particle serves every layer

    last = jnp.einsum("ncd,nc->nd", head_adjoint(model, z[-1]), v)
    none = jax.tree.map(jnp.zeros_like, model.encoder.layer(0)) if model.shared else None
    (_, summed), gradients = jax.lax.scan(back, (last, none), (over, z[:-1]), reverse=True)
    return jax.tree.map(lambda leaf: leaf[None], summed) if model.shared else gradients


def _forward(model: AbstractResNet, gradient: AbstractParticles, z: Array) -> Array:
    """The state's motion when every particle moves by its gradient, divided by alpha.

    J_nu^T v is alpha/(L M) times the gradient and J_nu adds another alpha/(L M), so
    (L M / alpha^2) J_nu J_nu^T leaves 1/(L M) (depth-shared: M / alpha^2 leaves 1/(L^2 M)).
    """
    over, particles_of = layers_of(model)
    step = scaling.depth_step(model.depth)
    share = step if model.shared else 1.0

    def forward(tangent: Array, layer: tuple[Any, Any, Array]) -> tuple[Array, None]:
        particles = particles_of(layer[0])
        moved = gradient.layer(0) if layer[1] is None else layer[1]
        carried = particles.carry(layer[2], tangent, model.sigma)
        source = particles.push(layer[2], moved, model.sigma)
        drift = scaling.residual(model.alpha, carried, particles.width) + (share / particles.width) * source
        return tangent + step * drift, None

    moved_over = None if model.shared else gradient
    return jax.lax.scan(forward, jnp.zeros_like(z[0]), (over, moved_over, z[:-1]))[0]
