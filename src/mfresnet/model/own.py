"""A particle of one's own: any JAX function sigma(z, theta), with a Gaussian law of its start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from ..errors import MfresnetError, calling
from ..registry import Entry, Registry
from .activations import Activation
from .draws import LAWS
from .family import AbstractParticles

Function = Callable[[Array, Any], Array]


@dataclass(frozen=True, eq=False)
class Particle:
    """One kind of particle: its function, and the law of its start, N(0, std^2) entry by entry.

    Derivatives are taken by automatic differentiation; the network is that of [C24] (arXiv 2403.09889) with
    sigma(z, theta) for u sigma0(w . z + b):

        z_{l+1} = z_l + alpha/(L M) sum_m sigma(z_l, theta_lm),      f = beta/K sum_k sigma(z_L, omega_k).

    Args:
        function: sigma(z, theta) at one point, z of shape (D,), of shape (D,) in the encoder and (C,) in the head.
        std: standard deviations of the start: any tree, an array in the shape of each parameter of theta.
        smooth: whether the gradient of sigma in theta is continuous, which the change of a law's density (KL) needs. A
            Laplacian by automatic differentiation misses the jumps of relu and gives a wrong KL without a sign of it,
            so KL is measured only where this is declared.
        directions: None for exact Laplacians, which cost a product with the Hessian for each number of theta; or the
            number of directions of Hutchinson's estimate, see `AbstractParticles.laplacian`.

    >>> def product(z, theta):
    ...     return theta["u"] * jnp.tanh(theta["w"] @ z) * jnp.tanh(theta["v"] @ z)
    >>> particle = Particle(product, {"u": np.ones(2), "v": np.ones(2), "w": np.ones(2)})
    >>> from mfresnet import LayeredResNet
    >>> model = LayeredResNet.create(jax.random.key(0), inputs=2, depth=3, width=4, particle=particle)
    >>> model(jnp.ones((7, 2))).shape
    (7, 1)
    """

    function: Function
    std: Any
    smooth: bool = False
    directions: int | None = None

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise MfresnetError(
                f"the function of a particle is a {type(self.function).__name__}: give sigma(z, theta)."
            )
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(self.std)]
        if not sum(leaf.size for leaf in leaves) or any(
            leaf.dtype.kind not in "fiu" or not np.isfinite(leaf).all() for leaf in leaves
        ):
            raise MfresnetError(
                "the standard deviations of a particle's start are no tree of finite numbers: give an array in the "
                "shape of each parameter, such as {'w': numpy.ones(3)}."
            )
        if any((leaf < 0).any() for leaf in leaves):
            raise MfresnetError("a particle's start has a negative standard deviation: give values >= 0.")
        whole = isinstance(self.directions, int | np.integer)
        if self.directions is not None and not (whole and self.directions >= 1):
            raise MfresnetError(f"directions = {self.directions} is not allowed: give a whole number >= 1, or None.")
        object.__setattr__(self, "std", jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), self.std))

    @property
    def size(self) -> int:
        """Numbers of one particle."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.std))

    def check(self, state: int, outputs: int, dtype: Any = jnp.float32) -> None:
        """Refuse a function that cannot be a block: its values and derivatives are tried on Gaussian draws.

        Raises:
            MfresnetError: the function fails, changes the shape or the dtype of the state, returns NaN, or cannot be
                differentiated.
        """
        _check(self, state, outputs, jnp.dtype(dtype).name)


class OwnParticles(AbstractParticles):
    """Particles of one's own kind, see `Particle`; what the theory needs of them is taken by automatic differentiation.

    Args:
        theta: the parameters, each with leading axes (the layer, and the particles).
        kind: function and law of the start.
        state, outputs: dimensions of sigma's input and value.
    """

    theta: Any
    kind: Particle = eqx.field(static=True)
    state_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)

    @classmethod
    def draw(
        cls,
        key: Array,
        shape: tuple[int, ...],
        kind: Particle,
        *,
        state: int,
        outputs: int,
        law: str = "gaussian",
        dtype: DTypeLike = jnp.float32,
    ) -> OwnParticles:
        """Independent particles from the start of their kind; ``law`` is a name of `LAWS`."""
        leaves, tree = jax.tree.flatten(kind.std)
        keys = jax.random.split(key, len(leaves))
        drawn = [
            jnp.broadcast_to(jnp.asarray(std, dtype), (*shape, *std.shape))
            * LAWS[law](one, (*shape, *std.shape), dtype)
            for one, std in zip(keys, leaves, strict=True)
        ]
        return cls(jax.tree.unflatten(tree, drawn), kind, state, outputs)

    @property
    def state(self) -> int:
        return self.state_size

    @property
    def outputs(self) -> int:
        return self.output_size

    def _like(self, theta: Any) -> OwnParticles:
        return OwnParticles(theta, self.kind, self.state_size, self.output_size)

    def ranks(self) -> OwnParticles:
        return self._like(jax.tree.map(np.ndim, self.kind.std))

    def deviations(self, scale: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> OwnParticles:
        return self._like(self.kind.std)

    def redraw(
        self, key: Array, shape: tuple[int, ...], scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    ) -> OwnParticles:
        return OwnParticles.draw(
            key, shape, self.kind, state=self.state_size, outputs=self.output_size, dtype=self.dtype
        )

    def smooth(self, sigma: Activation) -> bool:
        return self.kind.smooth

    def directions(self) -> Array | None:
        if self.kind.directions is None:
            return None
        shape = (*self.batch, self.kind.directions, self.kind.size)
        return jax.random.rademacher(jax.random.key(0), shape, self.dtype)

    def evaluate(self, z: Float[Array, " state"], sigma: Activation) -> Float[Array, " out"]:
        return self.kind.function(z, self.theta)


Factory = Callable[[int, int], Particle]

TWO_LAYER = "two-layer"
DRAWS = 8  # of the start, at which a function is tried

# Kinds of particles by name: functions (D, outputs) -> `Particle`. The two-layer particles have a class of their own.
PARTICLES: Registry[Factory] = Registry(
    "particle",
    "mfresnet.particles",
    {
        "gated": Entry("mfresnet.model.blocks:gated", "u sigma0(w.z + b) sigmoid(v.z + c)"),
        "attention": Entry("mfresnet.model.blocks:attention", "one head of self-attention on a sequence ([Ch25])"),
        "convolution": Entry("mfresnet.model.blocks:convolution", "one channel of a 3 x 3 convolution on an image"),
    },
)


def particle(name: str, state: int, outputs: int) -> Particle:
    """The particle of that name, or of the factory at ``package.module:ATTRIBUTE``, for these dimensions.

    A second call returns the same object, so that what was compiled for it is used again.

    Raises:
        MfresnetError: an unknown name, or a factory that makes no `Particle`.

    >>> particle("gated", 2, 2).size
    8
    """
    return _made(PARTICLES[name], name, state, outputs)


@lru_cache(maxsize=256)
def _made(factory: Factory, name: str, state: int, outputs: int) -> Particle:
    with calling(f"particle {name!r}, called with ({state}, {outputs}),"):
        made = factory(state, outputs)
    if not isinstance(made, Particle):
        raise MfresnetError(f"particle {name!r} made a {type(made).__name__}: return an mfresnet.Particle.")
    return made


@lru_cache(maxsize=256)
def _check(kind: Particle, state: int, outputs: int, dtype: str) -> None:
    name = f"particle {getattr(kind.function, '__name__', 'sigma')}"
    with jax.ensure_compile_time_eval():
        key = jax.random.key(0)
        theta = OwnParticles.draw(key, (DRAWS,), kind, state=state, outputs=outputs, dtype=jnp.dtype(dtype)).theta
        z = jax.random.normal(jax.random.fold_in(key, 1), (DRAWS, state), dtype)
        z = z / jnp.linalg.norm(z, axis=1, keepdims=True)
        places = {"z": z, "theta": theta}

        def value(place: Any) -> Array:
            return kind.function(place["z"], place["theta"])

        with calling(f"{name}, at a state of shape ({state},),"):
            made = jax.eval_shape(value, jax.tree.map(lambda leaf: leaf[0], places))
        if getattr(made, "shape", None) != (outputs,):
            raise MfresnetError(
                f"{name} makes {getattr(made, 'shape', type(made).__name__)} of a state of shape ({state},): "
                f"return an array of shape ({outputs},)."
            )
        if made.dtype != jnp.dtype(dtype):
            raise MfresnetError(
                f"{name} returns {made.dtype} for a state of type {dtype}: convert with .astype(z.dtype)."
            )
        values = jnp.stack([value(jax.tree.map(lambda leaf, k=k: leaf[k], places)) for k in range(DRAWS)])
        if not bool(jnp.isfinite(values).all()):
            raise MfresnetError(
                f"{name} returns NaN or infinity at a draw of its start: check its formula or lower its std."
            )
        with calling(f"the derivative of {name}", "write it with differentiable functions of jax.numpy"):
            mixed = jax.random.normal(jax.random.fold_in(key, 2), (outputs,), dtype)  # a plain sum may be constant
            slopes = jax.vmap(jax.grad(lambda place: mixed @ value(place)))(places)
        _check_slopes(name, jax.vmap(value), places, slopes)


def _check_slopes(name: str, values: Callable[[Any], Array], places: Any, slopes: Any) -> None:
    """Refuse derivatives that are not finite, all 0 in theta, or 0 in an argument on which the values depend."""
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(slopes)):
        raise MfresnetError(
            f"the derivative of {name} is NaN or infinite at a draw of its start: avoid roots and quotients at 0, see "
            "jax.numpy.where."
        )
    way_out = "avoid rounding, comparisons and stop_gradient"
    if not any(bool(jnp.any(leaf)) for leaf in jax.tree.leaves(slopes["theta"])):
        raise MfresnetError(
            f"the derivative of {name} in theta is 0 at every draw of its start, so it cannot be trained: {way_out}."
        )
    leaves, tree = jax.tree_util.tree_flatten_with_path(places)
    plain, base = [leaf for _, leaf in leaves], values(places)
    for k, ((path, leaf), slope) in enumerate(zip(leaves, jax.tree.leaves(slopes), strict=True)):
        if leaf.size and not bool(jnp.any(slope)):
            moved = [
                *plain[:k],
                leaf + 2 * jax.random.normal(jax.random.key(k), leaf.shape, leaf.dtype),
                *plain[k + 1 :],
            ]
            if bool(jnp.any(values(jax.tree.unflatten(tree, moved)) != base)):
                raise MfresnetError(
                    f"{name} depends on {_argument(path)}, but its derivative is 0 at every draw of its start: "
                    f"{way_out}."
                )


def _argument(path: Any) -> str:
    return f"{path[0].key}{jax.tree_util.keystr(path[1:])}"
