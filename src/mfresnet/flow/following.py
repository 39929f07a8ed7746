"""How passive particles follow the steps that a solver takes for the network."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import diffrax
import equinox as eqx
import jax.numpy as jnp


class AbstractFollowing(eqx.Module):
    """Carries the network and its followers, as one system, over a step that the network alone has taken.

    A solver whose step follows from more than its ends inherits from it; `following` wraps any other one.
    """

    def jump(self, made: Any) -> Any:
        """What the network's own step is told of a jump of the field; for False no program is compiled."""
        return made

    @abstractmethod
    def begin_following(self, both: Any, t0: Any, t1: Any, y0: Any) -> Any:
        """What is known of the whole system at the start.

        Args:
            both: the term of the whole system.
            t0, t1: the first step.
            y0: (network, followers).
        """

    @abstractmethod
    def follow(self, both: Any, t0: Any, t1: Any, y0: Any, known: Any, network: Any) -> tuple[Any, Any]:
        """The whole system at ``t1``, and what is known of it there.

        Args:
            known: the same at ``t0``.
            network: the solver's state after the network's own step.
        """


class SameStep(AbstractFollowing):
    """Any solver of Diffrax: its step, of the whole system."""

    solver: diffrax.AbstractSolver

    def begin_following(self, both: Any, t0: Any, t1: Any, y0: Any) -> Any:
        """The state of the solver."""
        return self.solver.init(both, t0, t1, y0, None)

    def follow(self, both: Any, t0: Any, t1: Any, y0: Any, known: Any, network: Any) -> tuple[Any, Any]:
        """One step."""
        moved, _, _, known, _ = self.solver.step(both, t0, t1, y0, None, known, jnp.asarray(False))
        return moved, known


def following(solver: diffrax.AbstractSolver) -> AbstractFollowing:
    """The solver itself where it is one to follow, else `SameStep`."""
    return solver if isinstance(solver, AbstractFollowing) else SameStep(solver)
