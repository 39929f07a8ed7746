"""Objects that take the place of names in the section ``train``: a loss, a solver, an Optax optimiser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import diffrax
import jax.numpy as jnp
import optax

from ..config import Config
from ..diagnostics import DIAGNOSTICS
from ..flow import Loss, OptaxRule, Rule, Solver, flow, loss_of, optimiser, solver_of


@dataclass(frozen=True)
class Objects:
    """What `mfresnet.fit` was given instead of names; None where the name in the configuration holds.

    Args:
        loss: from predictions (n, C), targets (n, C) and weights (n,) to a number (`mfresnet.flow.losses`).
        solver: of the gradient flow: a Diffrax solver that estimates its error, or a `mfresnet.flow.Solver`.
        optimiser: an Optax transformation with a learning rate of its own, fed with the mean-field gradient.
    """

    loss: Loss | None = None
    solver: Solver | diffrax.AbstractSolver[Any] | None = None
    optimiser: optax.GradientTransformation | None = None

    def name_in(self, config: Config) -> Config:
        """The configuration with names for these objects that no registry has: it cannot be trained from a file."""
        changes: dict[str, Any] = {}
        if self.loss is not None:
            changes["loss"] = f"own:{getattr(self.loss, '__name__', type(self.loss).__name__)}"
        if self.solver is not None:
            solver = solver_of(self.solver)
            changes |= {"solver": f"own:{type(self.solver).__name__}", "steps": config.train.steps or solver.steps}
        if self.optimiser is not None:
            changes["rule"] = "optax:own"
        return config.model_copy(update={"train": config.train.model_copy(update=changes)})

    def check(self, config: Config) -> None:
        """Look up every name that no object replaces.

        Raises:
            MfresnetError: an unknown one.
        """
        if self.loss is None:
            loss_of(config.train.loss)
        if self.solver is None:
            solver_of(config.train.solver)
        for name in config.diagnostics.also:
            DIAGNOSTICS[name]

    def rule_in(self, config: Config, unit: float) -> Rule:
        """The rule of a resolved configuration but for langevin, which needs data.

        Args:
            unit: length of one unit of training time.
        """
        train, steps = config.train, config.train.steps or 1
        if self.optimiser is not None:
            return OptaxRule(_Constant(self.optimiser), jnp.asarray(1.0))
        if train.rule == "gradient-flow":
            return flow(self.solver or train.solver, train.time * unit / steps, train.tolerance)
        rate = train.learning_rate or 0.01
        return optimiser(train.rule, rate, unit=unit, momentum=train.momentum, decay=train.decay, steps=steps)


@dataclass(frozen=True)
class _Constant:
    """Makes the same transformation from every learning rate; equal transformations are one program."""

    transformation: optax.GradientTransformation

    def __call__(self, rate: Any) -> optax.GradientTransformation:
        return self.transformation
