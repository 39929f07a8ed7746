"""Rules: one step of training. The Wasserstein gradient flow, or an Optax optimiser.

A rule sees the field through ``fieldof(model, probes, curvature)`` and returns what moved. Every rule
multiplies the same mean-field velocity, so its rate means the same at every L, M and K.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array

from ..errors import MfresnetError, unknown_name
from ..model import AbstractResNet
from .determinants import log_determinants
from .field import Field, Hessians, Laplacians, Probes
from .integrate import Solution, integrate
from .stabilised import RKC2, Memory
from .state import Ensemble, LogRatio, OneToOne

FieldOf = Callable[[AbstractResNet, Probes | None, str], Field]
Moved = tuple[AbstractResNet, Ensemble | None, Any, Array, Array]  # model, probes, rule_state, loss, time passed


class Rule(eqx.Module):
    """One step of training."""

    carries_probes: ClassVar[bool]  # whether the rule is a flow of the laws, which probes can follow
    adaptive: ClassVar[bool] = False  # whether it chooses its own steps

    @abc.abstractmethod
    def begin(self, moved: AbstractResNet) -> Any:
        """The state of the rule before the first step."""

    @abc.abstractmethod
    def step(self, model: AbstractResNet, ensemble: Ensemble | None, rule_state: Any, fieldof: FieldOf) -> Moved:
        """One step."""


def move_along(tree: Any, velocity: Any, h: float | Array) -> Any:
    """tree + h velocity; leaves without velocity stay."""
    return eqx.apply_updates(tree, jax.tree.map(lambda v: h * v, velocity))


def euler_gain(seen: Hessians, h: float | Array) -> tuple[LogRatio, OneToOne]:
    """What one Euler step adds to the log-densities of the probes, and at which probes it is one-to-one."""
    encoder = log_determinants(seen.encoder, h)
    head = (None, None) if seen.head is None else log_determinants(seen.head, h)
    return LogRatio(encoder[0], head[0]), OneToOne(encoder[1], head[1])


def _advance(
    ensemble: Ensemble, velocity: Probes, gain: LogRatio, h: float | Array, one_to_one: OneToOne | None = None
) -> Ensemble:
    """Probes moved by ``h velocity``, log-densities by ``gain``."""
    log_ratio, still = jax.tree.map(jnp.add, ensemble.log_ratio, gain), ensemble.one_to_one
    if one_to_one is not None:
        still = jax.tree.map(jnp.logical_and, still, one_to_one)
    return Ensemble(move_along(ensemble.probes, velocity, h), ensemble.start, log_ratio, still)


class EulerFlow(Rule):
    """theta <- theta + h v(theta). The log-density change of a step that is one-to-one is the log-determinant."""

    h: Array
    carries_probes: ClassVar[bool] = True

    def begin(self, moved: AbstractResNet) -> None:
        return None

    def step(self, model, ensemble, rule_state, fieldof) -> Moved:
        now = fieldof(model, None if ensemble is None else ensemble.probes, "hessian")
        if ensemble is not None:
            velocity, seen = now.at_probes(Hessians)
            gain, one_to_one = euler_gain(seen, self.h)
            ensemble = _advance(ensemble, velocity, gain, self.h, one_to_one)
        return move_along(model, now.model, self.h), ensemble, rule_state, now.loss, self.h


class HeunFlow(Rule):
    """Heun's second-order step; the Laplacian is integrated along with it, to the same order."""

    h: Array
    carries_probes: ClassVar[bool] = True

    def begin(self, moved: AbstractResNet) -> None:
        return None

    def step(self, model, ensemble, rule_state, fieldof) -> Moved:
        probes = None if ensemble is None else ensemble.probes
        here = fieldof(model, probes, "laplacian")
        there = fieldof(
            move_along(model, here.model, self.h),
            None if probes is None else move_along(probes, here.probes, self.h),
            "laplacian",
        )

        def mean(a, b):
            return jax.tree.map(lambda x, y: 0.5 * (x + y), a, b)

        if ensemble is not None:
            bend = mean(here.curvature, there.curvature)
            gain = jax.tree.map(lambda c: self.h * c, LogRatio(bend.encoder, bend.head))
            ensemble = _advance(ensemble, mean(here.probes, there.probes), gain, self.h)
        model = move_along(model, mean(here.model, there.model), self.h)
        return model, ensemble, rule_state, here.loss, self.h


def root_mean_square(tree: Any) -> Array:
    """Over all entries of a tree, summed leaf by leaf: Diffrax's own norm makes one long vector of each leaf first, for
    which particles that are divided among devices would have to be brought together.

    >>> float(root_mean_square({"a": jnp.array([[3.0, 0.0]]), "b": jnp.array([4.0, 0.0])}))
    2.5
    """
    leaves = jax.tree.leaves(tree)
    return jnp.sqrt(sum(jnp.sum(leaf * leaf) for leaf in leaves) / sum(leaf.size for leaf in leaves))


def pid(tolerance: Array) -> diffrax.AbstractStepSizeController:
    """Diffrax's controller at one relative and absolute tolerance of the root mean square over all particles."""
    return diffrax.PIDController(rtol=tolerance, atol=tolerance, norm=root_mean_square)


class AdaptiveFlow(Rule):
    """The flow over a time ``h`` by an error-controlled solver (by default Bosh3: most stability per evaluation).

    The error of the network's particles alone controls the steps. Probes and their log-densities follow them
    (`integrate`). What is remembered is the mean accepted step, with which the next interval starts.

    Args:
        h: length of the interval.
        tolerance: relative and absolute, an array.
        solver: any Diffrax solver with an error estimate (static).
        control: the step-size controller from the tolerance (static).
    """

    h: Array
    tolerance: Array
    solver: diffrax.AbstractSolver = eqx.field(static=True, default=diffrax.Bosh3())
    control: Callable[[Array], diffrax.AbstractStepSizeController] = eqx.field(static=True, default=pid)
    carries_probes: ClassVar[bool] = True
    adaptive: ClassVar[bool] = True

    def begin(self, moved: AbstractResNet) -> Any:
        return jnp.asarray(self.h / 16, dtype_of(moved))

    def step(self, model, ensemble, rule_state, fieldof) -> Moved:
        end, rest, loss = self.solve(model, ensemble, rule_state, fieldof)
        if ensemble is not None:
            ensemble = Ensemble(end.followers[0], ensemble.start, end.followers[1], ensemble.one_to_one)
        rule_state = self.remember(end)
        # A solver that gave up is a divergence, which shows as a loss that is not finite.
        return eqx.combine(end.network, rest), ensemble, rule_state, jnp.where(end.success, loss, jnp.nan), self.h

    def solve(
        self, model: AbstractResNet, ensemble: Ensemble | None, rule_state: Any, fieldof: FieldOf
    ) -> tuple[Solution, AbstractResNet, Array]:
        """The solution for what moves, at the end of the interval; what does not move; the loss at its beginning."""
        first = fieldof(model, None, "none")
        params, rest = _split_like(model, first.model)

        def velocity(params):
            return fieldof(eqx.combine(params, rest), None, "none").model

        def follow(params, followers):
            moving, seen = fieldof(eqx.combine(params, rest), followers[0], "laplacian").at_probes(Laplacians)
            return moving, LogRatio(seen.encoder, seen.head)

        length = self.h.astype(dtype_of(params))
        last, memory = self.recall(rule_state, first.model)
        end = integrate(
            velocity,
            params,
            length,
            jnp.minimum(last, length),
            self.solver,
            self.control(self.tolerance),
            None if ensemble is None else follow,
            None if ensemble is None else (ensemble.probes, ensemble.log_ratio),
            memory,
        )
        return end, rest, first.loss

    def recall(self, rule_state: Any, slope: Any) -> tuple[Array, Any]:
        """The first step, and the state of the solver where it is known, from what the rule remembers and the field."""
        return rule_state, None

    def remember(self, end: Solution) -> Any:
        """What the rule remembers at the end of an interval."""
        dtype = dtype_of(end.network)
        return self.h.astype(dtype) / jnp.maximum(end.accepted, 1).astype(dtype)


class StabilisedFlow(AdaptiveFlow):
    """The flow by Runge-Kutta-Chebyshev steps (`RKC2`), whose number of stages follows the spectral radius.

    What is remembered is the mean accepted step, the direction in which the field changes most, and
    the radius with its age.
    """

    solver: diffrax.AbstractSolver = eqx.field(static=True, default=RKC2())

    def begin(self, moved: AbstractResNet) -> Any:
        zero = jnp.zeros((), dtype_of(moved))
        return super().begin(moved), jax.tree.map(jnp.zeros_like, moved), zero, jnp.asarray(0, jnp.int32)

    def recall(self, rule_state: Any, slope: Any) -> tuple[Array, Memory]:
        step, direction, radius, age = rule_state
        direction = jax.tree.map(lambda v, f: jnp.where(radius > 0, v, f), direction, slope)
        return step, Memory(slope, direction, radius, age, jnp.asarray(1, jnp.int32))

    def remember(self, end: Solution) -> Any:
        return super().remember(end), end.memory.direction, end.memory.radius, end.memory.age


def dtype_of(moved: AbstractResNet) -> jnp.dtype:
    """Precision of what is trained."""
    return jnp.result_type(*jax.tree.leaves(moved))


def _split_like(model: AbstractResNet, velocity: AbstractResNet) -> tuple[AbstractResNet, AbstractResNet]:
    """The leaves of ``model`` that have a velocity, and the rest."""
    return eqx.partition(model, jax.tree.map(lambda v: v is not None, velocity, is_leaf=lambda v: v is None))


class OptaxRule(Rule):
    """An Optax optimiser, fed with the negative mean-field velocity as its gradient.

    Args:
        make: the optimiser from its learning rate (static; the same function is the same program).
        rate: the learning rate, an array: runs that differ only in it share one program.
        decay: how the rate falls over ``horizon`` steps, a name of `DECAYS` (static).
        horizon: steps after which a falling rate is 0, an array; None without decay.
    """

    make: Callable[[Any], optax.GradientTransformation] = eqx.field(static=True)
    rate: Array
    decay: str = eqx.field(static=True, default="none")
    horizon: Array | None = None
    carries_probes: ClassVar[bool] = False

    @property
    def transformation(self) -> optax.GradientTransformation:
        """The Optax transformation at this rate."""
        if self.horizon is None:
            return self.make(self.rate)
        return self.make(lambda count: self.rate * DECAYS[self.decay](jnp.clip(count / self.horizon, 0.0, 1.0)))

    def begin(self, moved: AbstractResNet) -> Any:
        # Optax takes any pytree, its annotations know containers of arrays only
        return self.transformation.init(moved)  # pyright: ignore[reportArgumentType]

    def step(self, model, ensemble, rule_state, fieldof) -> Moved:
        now = fieldof(model, None, "none")
        gradient = jax.tree.map(jnp.negative, now.model)
        params, _ = _split_like(model, now.model)
        # any pytree again, as in `begin`
        updates, rule_state = self.transformation.update(gradient, rule_state, params)  # pyright: ignore[reportArgumentType]
        return eqx.apply_updates(model, updates), ensemble, rule_state, now.loss, jnp.asarray(0.0)


# Factor of the learning rate after a share t of the horizon.
DECAYS: dict[str, Callable[[Array], Array]] = {
    "none": jnp.ones_like,
    "linear": lambda t: 1.0 - t,
    "cosine": lambda t: 0.5 * (1.0 + jnp.cos(jnp.pi * t)),
}


PRESETS = ("sgd", "momentum", "adam")


@lru_cache
def _with_momentum(momentum: float) -> Callable[[Any], optax.GradientTransformation]:
    """Momentum of that size from a learning rate; the same size is the same function, so the same program."""
    return partial(optax.sgd, momentum=momentum)


def optimiser(
    name: str,
    rate: float,
    *,
    unit: float = 1.0,
    momentum: float = 0.9,
    decay: str = "none",
    steps: int | None = None,
) -> OptaxRule:
    """A preset, or any optimiser of Optax by its name there (``optax:adamw``).

    Args:
        rate: for sgd and momentum a step of training time in units of ``unit``; otherwise the optimiser's own.
        momentum: of the preset momentum.
        decay: a name of `DECAYS`: "none", or "linear" or "cosine" to 0 after ``steps`` steps.

    Raises:
        MfresnetError: Optax has no optimiser of that name.

    >>> optimiser("optax:adamw", 0.01).carries_probes
    False
    """
    falling: dict[str, Any] = {}
    if decay != "none":
        if decay not in DECAYS or steps is None:
            raise MfresnetError(f"decay = {decay!r} is not allowed: give one of {', '.join(DECAYS)}, with its steps.")
        falling = {"decay": decay, "horizon": jnp.asarray(steps, float)}
    if name == "sgd":
        return OptaxRule(optax.sgd, jnp.asarray(rate * unit, float), **falling)
    if name == "momentum":
        return OptaxRule(_with_momentum(momentum), jnp.asarray(rate * unit, float), **falling)
    own = name.removeprefix("optax:")
    maker: Callable[[Any], Any] | None = getattr(optax, own, None)
    if not (name == "adam" or name.startswith("optax:")) or not callable(maker):
        raise unknown_name("rule", name, ["gradient-flow", *PRESETS, "optax:NAME"])
    try:
        transformation = maker(rate)
    except (AttributeError, TypeError, ValueError) as error:  # of wrong or missing arguments
        raise MfresnetError(f"rule {name!r} cannot be made from a learning rate alone: {error}.") from error
    if not isinstance(transformation, optax.GradientTransformation):
        raise MfresnetError(f"rule {name!r} is not an Optax optimiser: choose one such as optax:adamw.")
    return OptaxRule(maker, jnp.asarray(rate, float), **falling)
