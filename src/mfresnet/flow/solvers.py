"""How the gradient flow is followed in training time, by name: Euler, Heun, or any error-controlled Diffrax solver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import diffrax
import jax.numpy as jnp
from jax import Array

from ..errors import MfresnetError
from ..registry import Entry, Registry
from .rules import AdaptiveFlow, EulerFlow, HeunFlow, Rule, StabilisedFlow, pid


@dataclass(frozen=True)
class Solver:
    """A solver of the gradient flow.

    Args:
        make: the rule from the length of a step (adaptive: of a recorded interval) and the tolerance, both arrays.
        steps: recorded steps of a run that names no number.
        adaptive: whether the solver chooses its own steps, which needs the field of all points.
    """

    make: Callable[[Array, Array], Rule]
    steps: int = 2000
    adaptive: bool = False


def control_steps(
    solver: diffrax.AbstractSolver,
    controller: Callable[[Array], diffrax.AbstractStepSizeController] = pid,
) -> Solver:
    """A Diffrax solver with a step-size controller.

    Args:
        solver: one that estimates its error.
        controller: makes the controller from the tolerance.

    Raises:
        MfresnetError: a solver without an error estimate, an implicit one, or one of split or stochastic equations.

    >>> control_steps(diffrax.Tsit5()).adaptive
    True
    """
    if not isinstance(solver, diffrax.AbstractAdaptiveSolver):
        raise MfresnetError(
            f"the solver {type(solver).__name__} estimates no error, so its steps cannot be controlled: wrap it in "
            "diffrax.HalfSolver, or choose another."
        )
    if isinstance(solver, diffrax.AbstractImplicitSolver) or solver.term_structure is not diffrax.AbstractTerm:
        raise MfresnetError(
            f"the solver {type(solver).__name__} is not for the gradient flow, which is one ordinary differential "
            "equation in millions of numbers: choose an explicit Runge-Kutta method, such as diffrax.Tsit5."
        )
    return Solver(partial(AdaptiveFlow, solver=solver, control=controller), steps=200, adaptive=True)


SOLVERS: Registry[Any] = Registry(
    "solver (train.solver)",
    "mfresnet.solvers",
    {
        "adaptive": Entry(control_steps(diffrax.Bosh3()), "error-controlled steps (Bogacki-Shampine 3/2)"),
        "stabilised": Entry(
            Solver(StabilisedFlow, steps=100, adaptive=True), "error-controlled stabilised steps (RKC2)"
        ),
        "heun": Entry(Solver(lambda h, tolerance: HeunFlow(h)), "fixed steps of second order"),
        "euler": Entry(Solver(lambda h, tolerance: EulerFlow(h)), "fixed steps of first order"),
    },
    base=(Solver, diffrax.AbstractSolver),
)


def solver_of(given: str | Solver | diffrax.AbstractSolver | type[diffrax.AbstractSolver]) -> Solver:
    """A solver by its name in `SOLVERS` (or at ``package.module:NAME``), or from an object.

    Raises:
        MfresnetError: an unknown name, or a Diffrax solver without an error estimate.

    >>> solver_of("euler").steps, solver_of("diffrax:Tsit5").adaptive
    (2000, True)
    """
    solver = SOLVERS[given] if isinstance(given, str) else given
    if isinstance(solver, type):
        solver = solver()
    return solver if isinstance(solver, Solver) else control_steps(solver)


def flow(solver: str | Solver | diffrax.AbstractSolver, h: float, tolerance: float = 1e-5) -> Rule:
    """The gradient flow advanced by ``h`` a step.

    Step and tolerance are arrays: flows that differ only in them share one compiled program.

    Args:
        solver: a name of `SOLVERS`, a `Solver`, or a Diffrax solver.

    >>> flow("euler", 0.1).carries_probes
    True
    """
    return solver_of(solver).make(jnp.asarray(h, float), jnp.asarray(tolerance, float))
