"""The scaled ResNet of [C24]: encoder, head and their scales."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from .. import html
from ..errors import MfresnetError
from . import depth as depth_module
from . import scaling
from .activations import Activation, activation
from .draws import normal
from .family import AbstractParticles
from .own import OwnParticles, Particle
from .particles import Particles, ProbePoints, probe_sum


@dataclass(frozen=True)
class InitialScales:
    """Standard deviations of the start, one per group; 1 and Gaussian is Assumption 2 of [C24].

    ``law`` is a name of `LAWS`, the distribution of every entry.

    >>> InitialScales(a=0.0).head  # a head that starts at zero
    (0.0, 1.0, 1.0)
    """

    u: float = 1.0
    w: float = 1.0
    b: float = 1.0
    a: float = 1.0
    head_w: float = 1.0
    head_b: float = 1.0
    law: str = "gaussian"

    @property
    def encoder(self) -> tuple[float, float, float]:
        """Of (u, w, b)."""
        return (self.u, self.w, self.b)

    @property
    def head(self) -> tuple[float, float, float]:
        """Of (a, w, b) of the head."""
        return (self.a, self.head_w, self.head_b)


class Part(NamedTuple):
    """A group of parameters that moves.

    Args:
        name: field of the model.
        group: "encoder" or "head": what is frozen, and has a learning rate, together.
        mass: reciprocal mass of one particle; the velocity is minus the gradient times this (see `scaling`).
    """

    name: str
    group: str
    mass: float


class AbstractResNet(eqx.Module):
    """A residual network whose parameters are particles: an encoder that moves the state through depth, and a head.

        z(0) = x  (or E x),      f(x) = beta/K sum_k a_k sigma0(w_k . z(1) + b_k)      (without head: f = z(1))

    Subclasses say how the encoder's particles act in depth.

    Args:
        encoder: particles, with a leading axis for layers (or for places on the depth axis).
        head: particles of shape (K, .), or None.
        embedding: E of shape (D, d), or None (then D = d).
        alpha, beta: scales; arrays, so that runs that differ only in them share one program (beta is 1 without head).
        sigma: the activation.
        depth: number of layers L.
        scheme: how the state is stepped through depth.

    >>> model = LayeredResNet.create(jax.random.key(0), inputs=2, depth=3, width=4)
    >>> isinstance(model, AbstractResNet), [part.name for part in model.parts()]
    (True, ['encoder', 'head'])
    """

    encoder: eqx.AbstractVar[AbstractParticles]
    head: eqx.AbstractVar[AbstractParticles | None]
    embedding: eqx.AbstractVar[Float[Array, "state inputs"] | None]
    alpha: eqx.AbstractVar[Float[Array, ""]]
    beta: eqx.AbstractVar[Float[Array, ""]]
    sigma: eqx.AbstractVar[Activation]
    depth: eqx.AbstractVar[int]
    scheme: eqx.AbstractVar[str]

    @property
    def dtype(self) -> jnp.dtype:
        """Precision of the particles."""
        return self.encoder.dtype

    @property
    def shared(self) -> bool:
        """Whether every depth shares one encoder law."""
        return self.encoder.layers == 1 and self.depth > 1

    @property
    def state(self) -> int:
        """Dimension D of the state."""
        return self.encoder.state

    @property
    def inputs(self) -> int:
        """Number of columns of the inputs, d."""
        return self.state if self.embedding is None else self.embedding.shape[-1]

    @property
    def outputs(self) -> int:
        """Number of outputs, C."""
        return self.state if self.head is None else self.head.outputs

    @property
    def two_layer(self) -> bool:
        """Whether all particles are those of [C24], for which the closed forms hold."""
        return isinstance(self.encoder, Particles) and isinstance(self.head, Particles | None)

    @property
    def smooth(self) -> bool:
        """Whether all particles have the second derivatives that the change of a law's density needs."""
        return self.encoder.smooth(self.sigma) and (self.head is None or self.head.smooth(self.sigma))

    @property
    @abc.abstractmethod
    def layer_places(self) -> Float[Array, " depth"]:
        """Depth s in [0, 1] at which each layer acts, in rising order."""

    @property
    @abc.abstractmethod
    def places(self) -> Float[Array, " particles"] | None:
        """Trained places of the particles in depth, in their own order; None where layers fix them."""

    @abc.abstractmethod
    def parts(self) -> tuple[Part, ...]:
        """The groups of parameters that training moves, each with its reciprocal mass."""

    @abc.abstractmethod
    def layered(self) -> LayeredResNet:
        """The layered network with the same states, its layers of equal length."""

    @abc.abstractmethod
    def sweep(
        self,
        x: Float[Array, "n inputs"],
        probes: ProbePoints | None = None,
        *,
        recompute: bool = False,
        keep: bool = False,
    ) -> tuple[Float[Array, "n state"], Float[Array, "depth n state"] | None]:
        """The state at s = 1, and with ``keep`` the states that enter each layer (see `depth.sweep`)."""

    def embed(self, x: Float[Array, "n inputs"]) -> Float[Array, "n state"]:
        """The state at s = 0."""
        return x if self.embedding is None else x @ self.embedding.T

    def read(self, z: Float[Array, "n state"], probes: ProbePoints | None = None) -> Float[Array, "n outputs"]:
        """The prediction from the state at s = 1."""
        if self.head is None:
            return z
        prediction = scaling.output(self.beta, self.head.total_across(z.T, self.sigma).T, self.head.width)
        return prediction if probes is None else prediction + self.beta * probe_sum(self.sigma, probes, z)

    def states(self, x: Float[Array | np.ndarray, "n inputs"]) -> Float[Array, "layers n state"]:
        """All states z_0 .. z_L, shape (L+1, n, D)."""
        last, entering = self.sweep(jnp.asarray(x), keep=True)
        assert entering is not None, "keep returns them"
        return jnp.concatenate([entering, last[None]])

    def limit_state(self, x: Float[Array, "n inputs"], tolerance: float = 1e-8) -> Float[Array, "n state"]:
        """The state at s = 1 of the depth ODE, solved to ``tolerance``: the limit L -> infinity.

        The law is constant in depth from each layer (or place) to the next.
        """
        plain = self.layered()
        return depth_module.solve(
            plain.encoder, plain.embed(x), depth=plain.depth, sigma=plain.sigma, alpha=plain.alpha, tolerance=tolerance
        )

    def __call__(
        self,
        x: Float[Array | np.ndarray, "n inputs"],
        encoder_probes: ProbePoints | None = None,
        head_probes: ProbePoints | None = None,
        *,
        recompute: bool = False,
    ) -> Float[Array, "n outputs"]:
        """The predictions f(x_i), shape (n, C)."""
        z, _ = self.sweep(jnp.asarray(x), encoder_probes, recompute=recompute)
        return self.read(z, head_probes)

    def _repr_html_(self) -> str:
        """Table for a notebook."""
        kinds = {"encoder": self.encoder, "head": self.head}
        rows = [
            (name, type(family).__name__, " x ".join(map(str, family.batch)), family.size)
            for name, family in kinds.items()
            if family is not None
        ]
        sizes = f"{self.inputs} inputs, state {self.state}, {self.outputs} outputs, depth {self.depth}"
        return html.table(f"{type(self).__name__}: {sizes}", rows, ("part", "particles", "number", "numbers of each"))

    def _head_part(self) -> tuple[Part, ...]:
        return () if self.head is None else (Part("head", "head", scaling.head_mass(self.head.width)),)


class LayeredResNet(AbstractResNet):
    """The finite network of [C24] (docs/theory.md, section 1).

        z_0 = x  (or E x),   z_{l+1} = z_l + alpha/(L M) sum_m u_lm sigma0(w_lm . z_l + b_lm),
        f(x) = beta/K sum_k a_k sigma0(w_k . z_L + b_k)           (without head: f = z_L)

    Args:
        encoder: particles of shape (L, M, .), or (1, M, .) where every depth shares one law.
        head: particles of shape (K, .), or None.
        embedding: E of shape (D, d), or None (then D = d).
        alpha, beta: scales; arrays, so that runs that differ only in them share one program
            (beta is 1 without head).
        sigma: the activation.
        depth: number of layers L.
        scheme: "euler" (the ResNet), "midpoint" or "rk4".

    >>> import jax
    >>> model = LayeredResNet.create(jax.random.key(0), inputs=2, depth=3, width=4, head_width=5)
    >>> model(jax.numpy.ones((7, 2))).shape
    (7, 1)
    """

    encoder: AbstractParticles
    head: AbstractParticles | None
    embedding: Float[Array, "state inputs"] | None
    alpha: Float[Array, ""]
    beta: Float[Array, ""]
    sigma: Activation = eqx.field(static=True)
    depth: int = eqx.field(static=True)
    scheme: str = eqx.field(static=True, default="euler")

    @classmethod
    def create(
        cls,
        key: Array,
        *,
        inputs: int,
        outputs: int = 1,
        depth: int = 10,
        width: int = 20,
        head_width: int = 20,
        alpha: float = 1.0,
        beta: float = 1.0,
        sigma: str | Activation = "tanh",
        bias: bool = True,
        head: bool = True,
        embedding: int | None = None,
        shared: bool = False,
        scheme: str = "euler",
        initial: InitialScales | None = None,
        antithetic: bool = False,
        particle: Particle | None = None,
        head_particle: Particle | None = None,
        dtype: DTypeLike = jnp.float32,
    ) -> LayeredResNet:
        """A network at its start (tau_0, nu_0): independent Gaussian particles.

        Args:
            inputs, outputs: d and C. Without head C is the dimension of the state.
            embedding: dimension D of the state after a linear embedding with entries N(0, 1/D),
                which keeps lengths in the mean; None for no embedding.
            shared: one law for every depth.
            antithetic: particles in pairs of opposite output, so that the start moves no state and
                predicts 0, exactly as in the limit (see `Particles.gaussian`).
            particle, head_particle: kinds of one's own for encoder and head, instead of the two-layer ones, to which
                sigma, bias, antithetic and the scales of ``initial`` belong.

        Raises:
            MfresnetError: sizes below 1, outputs that a network without head cannot have, or a particle that is no
                block.
        """
        for name, size in {"inputs": inputs, "outputs": outputs, "depth": depth, "width": width}.items():
            if size < 1:
                raise MfresnetError(f"{name} = {size} is not allowed: give a value >= 1.")
        depth_module.SCHEMES[scheme]  # refuses an unknown name
        state = inputs if embedding is None else embedding
        if not head and outputs != state:
            raise MfresnetError(
                f"a network without head returns its state of dimension {state}, but the data has {outputs} "
                f"outputs: set model.head true, or model.embedding_dimension {outputs}."
            )
        scales = initial or InitialScales()
        k_encoder, k_head, k_embedding = jax.random.split(key, 3)
        if antithetic and (particle is not None or head_particle is not None):
            raise MfresnetError("antithetic particles are two-layer ones, whose output can be negated: leave it out.")
        common: dict[str, Any] = {"state": state, "law": scales.law, "dtype": dtype}

        def draw(
            key: Array, shape: tuple[int, ...], kind: Particle | None, outputs: int, scale: tuple[float, float, float]
        ) -> AbstractParticles:
            if kind is not None:
                kind.check(state, outputs, dtype)
                return OwnParticles.draw(key, shape, kind, outputs=outputs, **common)
            options = {"scale": scale, "bias": bias, "antithetic": antithetic}
            return Particles.gaussian(key, shape, outputs=outputs, **options, **common)

        return cls(
            encoder=draw(k_encoder, (1 if shared else depth, width), particle, state, scales.encoder),
            head=draw(k_head, (head_width,), head_particle, outputs, scales.head) if head else None,
            embedding=None if embedding is None else normal(k_embedding, (embedding, inputs), dtype) / embedding**0.5,
            alpha=jnp.asarray(alpha, dtype),
            beta=jnp.asarray(beta if head else 1.0, dtype),
            sigma=activation(sigma),
            depth=depth,
            scheme=scheme,
        )

    @property
    def layer_places(self) -> Float[Array, " depth"]:
        """Depth s = l/L at which each layer acts."""
        return jnp.arange(self.depth) / self.depth

    @property
    def places(self) -> None:
        """Layers fix the places of their particles."""
        return None

    def parts(self) -> tuple[Part, ...]:
        """The encoder, of reciprocal mass L M (M where depth shares the law), and the head, of reciprocal mass K."""
        layers, width = self.encoder.batch
        return Part("encoder", "encoder", scaling.encoder_mass(layers, width)), *self._head_part()

    def layered(self) -> LayeredResNet:
        """The network itself."""
        return self

    def sweep(
        self,
        x: Float[Array, "n inputs"],
        probes: ProbePoints | None = None,
        *,
        recompute: bool = False,
        keep: bool = False,
    ) -> tuple[Float[Array, "n state"], Float[Array, "depth n state"] | None]:
        """The state at s = 1, and with ``keep`` the states that enter each layer (see `depth.sweep`)."""
        return depth_module.sweep(
            self.encoder,
            self.embed(x),
            depth=self.depth,
            scheme=self.scheme,
            sigma=self.sigma,
            alpha=self.alpha,
            probes=probes,
            recompute=recompute,
            keep=keep,
        )


def trainable(model: AbstractResNet, *, freeze: str = "none", embedding: bool = False) -> AbstractResNet:
    """A tree of booleans: which leaves are moved by training (the scales never are)."""
    flags = jax.tree.map(lambda _: False, model)
    moves = {part.name: part.group != freeze for part in model.parts()} | {"embedding": embedding}
    for name, on in moves.items():
        value = jax.tree.map(lambda _, on=on: on, getattr(model, name))
        flags = eqx.tree_at(lambda m, name=name: getattr(m, name), flags, value, is_leaf=lambda leaf: leaf is None)
    return flags
