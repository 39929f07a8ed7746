"""An error-controlled solution of the network's flow, which passive particles follow without a say in the steps.

The network's steps are found by a loop of their own, in which nothing else is computed. What follows the network
(probes and their log-densities) is then carried over each accepted step by the same solver, as one system with the
network. So the network is the same to the bit, whatever follows it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
from jax import Array

from .following import following

MAX_STEPS = 100_000  # attempted steps of one call


class Solution(NamedTuple):
    """The end of an interval.

    Args:
        network, followers: at its end.
        accepted, attempted: numbers of steps.
        success: whether the solver reached the end.
        memory: of the solver at the end.
    """

    network: Any
    followers: Any
    accepted: Array
    attempted: Array
    success: Array
    memory: Any


class _State(NamedTuple):
    """Between two attempts: the step from ``start`` to ``end`` is tried next."""

    start: Array
    end: Array
    network: Any
    solver: Any
    control: Any
    jump: Any
    accepted: Array
    attempted: Array
    success: Array


def integrate(
    velocity: Callable[[Any], Any],
    network: Any,
    length: Array,
    first_step: Array,
    solver: diffrax.AbstractSolver,
    controller: diffrax.AbstractStepSizeController,
    follow: Callable[[Any, Any], Any] | None = None,
    followers: Any = None,
    memory: Any = None,
) -> Solution:
    """Solve d network/dt = velocity(network) over a time ``length``, and d followers/dt = follow(network, followers).

    Args:
        first_step: length of the first attempt.
        solver, controller: any of Diffrax's (or one's own) that estimate an error.
        memory: the state of the solver at the beginning, where it is known from the interval before.

    >>> end = integrate(
    ...     lambda y: -y, jnp.asarray(1.0), jnp.asarray(1.0), jnp.asarray(0.1), diffrax.Bosh3(),
    ...     diffrax.PIDController(1e-5, 1e-5), lambda y, z: y, jnp.asarray(0.0),
    ... )
    >>> round(float(end.network), 3), round(float(end.followers), 3)
    (0.368, 0.632)
    """
    alone = diffrax.ODETerm(lambda t, y, args: velocity(y))
    both = diffrax.ODETerm(lambda t, y, args: (velocity(y[0]), None if follow is None else follow(*y)))
    carrier = following(solver)
    order = solver.error_order(alone)
    assert order is not None, "an ordinary differential equation has an order"
    zero = jnp.zeros_like(length)
    end, control = controller.init(alone, zero, length, network, first_step, None, solver.func, order)
    end = jnp.minimum(end, length)
    one, false = jnp.asarray(0, jnp.int32), jnp.asarray(False)
    begin = _State(
        zero, end, network, solver.init(alone, zero, end, network, None) if memory is None else memory,
        control, false, one, one, jnp.asarray(True),
    )  # fmt: skip

    def attempt(state: _State) -> _State:
        after, error, _, kept, result = solver.step(
            alone, state.start, state.end, state.network, None, state.solver, carrier.jump(state.jump)
        )
        error = jax.tree.map(lambda e: jnp.where(jnp.isnan(e), jnp.inf, e), error)
        keep, start, end, jump, control, control_result = controller.adapt_step_size(
            state.start, state.end, state.network, after, None, error, order, state.control
        )
        start, end = jnp.minimum(start, length), jnp.minimum(end, length)
        # a last step shorter than a thousandth of the one before it is not made
        start = jnp.where(keep & (length - start < 1e-3 * (state.end - state.start)), length, start)
        fine = (result == diffrax.RESULTS.successful) & (control_result == diffrax.RESULTS.successful)
        fine = fine & ((end > start) | (start >= length)) & (state.attempted < MAX_STEPS)

        def select(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda a, b: jnp.where(keep, a, b), new, old)

        return _State(
            start, end, select(after, state.network), select(kept, state.solver), control,
            jnp.where(keep, jump, state.jump), state.accepted + jnp.asarray(keep, jnp.int32), state.attempted + 1, fine,
        )  # fmt: skip

    def going(state: _State) -> Array:
        return (state.start < length) & state.success

    if follow is None:
        last = jax.lax.while_loop(going, attempt, begin)
        return Solution(last.network, followers, last.accepted, last.attempted, last.success, last.solver)

    def attempt_until_accepted(state: _State) -> tuple[_State, Array]:
        def try_step(carry: tuple[_State, Array]) -> tuple[_State, Array]:
            return attempt(carry[0]), carry[0].end

        def is_rejected(carry: tuple[_State, Array]) -> Array:
            return going(carry[0]) & (carry[0].accepted == state.accepted)

        return jax.lax.while_loop(is_rejected, try_step, (state, state.end))

    def carry_over(carry: tuple[_State, Any, Any]) -> tuple[_State, Any, Any]:
        state, followers, known = carry
        after, end = attempt_until_accepted(state)
        (_, followers), known = carrier.follow(both, state.start, end, (state.network, followers), known, after.solver)
        return after, followers, known

    known = carrier.begin_following(both, zero, end, (network, followers))
    last, followers, _ = jax.lax.while_loop(lambda c: going(c[0]), carry_over, (begin, followers, known))
    return Solution(last.network, followers, last.accepted, last.attempted, last.success, last.solver)
