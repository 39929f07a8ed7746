"""Optimisers of image training: Optax chains, with the coordinates of the blocks as a parameter group of their own."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array

from ..errors import MfresnetError, unknown_name
from ..flow.rules import optimiser as table_optimiser

MILESTONES = (0.5, 0.75)  # of the steps: epochs 80 and 120 of 160, 150 and 225 of 300 (Lu et al. 2020)


def _milestones(rate: Any, steps: int) -> optax.Schedule:
    return optax.piecewise_constant_schedule(rate, {round(share * steps): 0.1 for share in MILESTONES})


SCHEDULES: dict[str, Callable[[Any, int], optax.Schedule]] = {
    "step": _milestones,
    "cosine": optax.cosine_decay_schedule,
    "constant": lambda rate, steps: optax.constant_schedule(rate),
}


def schedule(name: str, rate: Any, steps: int, warmup: int = 0) -> optax.Schedule:
    """The learning rate of each step 0 .. steps - 1.

        step:      rate, divided by 10 at steps/2 and at 3 steps/4
        cosine:    rate (1 + cos(pi step/steps))/2
        constant:  rate

    times (step + 1)/warmup in the first ``warmup`` steps.

    Raises:
        MfresnetError: an unknown name.

    >>> rates = schedule("step", 0.1, 160)
    >>> [round(float(rates(step)), 6) for step in (0, 79, 80, 120)]
    [0.1, 0.1, 0.01, 0.001]
    """
    if name not in SCHEDULES:
        raise unknown_name("schedule", name, SCHEDULES)
    rates = SCHEDULES[name](rate, steps)
    if warmup <= 1:  # a single step of warm-up has the factor 1
        return rates
    factors = optax.linear_schedule(1 / warmup, 1.0, warmup - 1)
    return lambda step: rates(step) * factors(step)


class Descent(eqx.Module):
    """How the weights of a network and the coordinates of its blocks follow their gradients.

        network:      make(rate(k)) of the gradient + decay * weights
        coordinates:  make(factor * rate(k)) of the gradient, which sees no parameters and so lets none decay

    after the gradient of both together was clipped to a norm of ``clip``. The factor is the block rule's own
    (`Rule.rate`). The default is stochastic gradient descent with momentum: v <- mu v + g + decay w, w <- w - rate v.

    Args:
        rate: at the start of the schedule.
        schedule: a name of `SCHEDULES` (static).
        warmup: epochs of linear warm-up (static).
        decay: added to the gradient of the network times its weights.
        clip: largest norm of the gradient; None for any (static).
        make: the optimiser from its learning rate, an Optax function such as `optax.adamw` (static).
        own: an Optax transformation with a rate of its own, in place of ``make``, ``rate`` and ``schedule`` (static).

    >>> descent = Descent.named("optax:adam", rate=0.1, schedule="constant")
    >>> transformation = descent.transformation(factor=0.5, per_epoch=10, epochs=2)
    >>> weights = {"network": jnp.ones(1), "coordinates": jnp.ones(1)}
    >>> updates, state = transformation.update(weights, transformation.init(weights), weights)
    >>> {name: round(float(update[0]), 3) for name, update in updates.items()}  # Adam's first step has the rate's size
    {'coordinates': -0.05, 'network': -0.1}
    """

    rate: Array = eqx.field(converter=lambda value: jnp.asarray(value, jnp.result_type(float)), default=0.1)
    schedule: str = eqx.field(static=True, default="step")
    warmup: int = eqx.field(static=True, default=0)
    decay: Array = eqx.field(converter=lambda value: jnp.asarray(value, jnp.result_type(float)), default=1e-4)
    clip: float | None = eqx.field(static=True, default=None)
    make: Callable[[Any], optax.GradientTransformation] = eqx.field(
        static=True, default_factory=lambda: table_optimiser("momentum", 1.0).make
    )
    own: optax.GradientTransformation | None = eqx.field(static=True, default=None)

    @classmethod
    def named(cls, name: str, *, momentum: float = 0.9, **options: Any) -> Descent:
        """sgd, momentum, adam or any optimiser of Optax (``optax:NAME``), as for networks on points.

        Raises:
            MfresnetError: Optax has no optimiser of that name, or it needs more than gradients and parameters.
        """
        make = table_optimiser(name, 1.0, momentum=momentum).make
        weights = {"w": jnp.ones((2, 2))}

        def update(weights: Any) -> Any:
            transformation = make(0.1)
            return transformation.update(weights, transformation.init(weights), weights)

        try:
            jax.eval_shape(update, weights)
        except TypeError as error:  # Python's own, for an argument that the optimiser lacks
            reason = str(error).partition("\n")[0]
            raise MfresnetError(f"rule {name!r} needs more than gradients and parameters: {reason}.") from error
        return cls(make=make, **options)

    def transformation(self, factor: float, per_epoch: int, epochs: int) -> optax.GradientTransformationExtraArgs:
        """The Optax transformation of ``{"network": .., "coordinates": ..}``.

        Args:
            factor: learning rate of the coordinates over that of the network.
            per_epoch, epochs: steps of an epoch, and epochs of the training.
        """
        rates = schedule(self.schedule, self.rate, per_epoch * epochs, self.warmup * per_epoch)
        if self.own is None:
            network, coordinates = self._inject(rates), self._inject(lambda step: factor * rates(step))
        else:
            network, coordinates = self.own, optax.chain(self.own, optax.scale(factor))
        groups: dict[Hashable, optax.GradientTransformation] = {
            "network": optax.chain(optax.add_decayed_weights(self.decay), network),
            "coordinates": _without_parameters(coordinates),
        }
        clip = optax.identity() if self.clip is None else optax.clip_by_global_norm(self.clip)
        return optax.chain(clip, optax.partition(groups, {name: name for name in groups}))

    def _inject(self, rates: optax.Schedule) -> optax.GradientTransformationExtraArgs:
        """The optimiser with its rate as a number of its state."""
        inject = optax.inject_hyperparams(
            lambda learning_rate: self.make(learning_rate), hyperparam_dtype=jnp.result_type(float)
        )
        return inject(learning_rate=rates)


def _without_parameters(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """A transformation that is shown parameters of 0: what decays weights leaves these alone."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return inner.update(updates, state, jax.tree.map(jnp.zeros_like, updates))

    return optax.GradientTransformation(inner.init, update)
