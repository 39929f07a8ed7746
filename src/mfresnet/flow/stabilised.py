"""A stabilised explicit solver: Runge-Kutta-Chebyshev of second order, RKC2.

A step of s stages is stable along the negative axis to beta(s) = 2/3 (s^2 - 1) (1 - 2/15 eps), eps = 2/13, about
0.65 s^2, where s steps of a classical method reach about 2 s. The flow of a wide network is stiff like that: its
Jacobian is nearly symmetric, with a largest eigenvalue of beta^2 lambda_max(G)/n, which limits the steps of a classical
solver long after that mode has died out. s follows from the length of the step and the spectral radius.

Sommeijer, Shampine, Verwer, RKC: an explicit solver for parabolic PDEs, J. Comput. Appl. Math. 88 (1997) 315-326.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .following import AbstractFollowing

DAMPING = 2 / 13  # eps
MOST_STAGES = 128
SAFETY = 1.2  # factor of the estimated spectral radius, as in the authors' program
EVERY = 5  # steps between two estimates
ROUNDS = 50  # of the power method, which stops at a change of 1 %


class Chebyshev(NamedTuple):
    """Coefficients of stage j of a step of s stages at [s, j], zero where there is none; ``first`` at [s].

    With d_j = Y_j - y_n and F_j = f(Y_j):  d_1 = first h F_0,
    d_j = mu d_{j-1} + nu d_{j-2} + slope h F_{j-1} + start h F_0,  at the time t_n + time h.
    """

    first: np.ndarray
    mu: np.ndarray
    nu: np.ndarray
    slope: np.ndarray
    start: np.ndarray
    time: np.ndarray


@lru_cache
def chebyshev(most: int = MOST_STAGES) -> Chebyshev:
    """The coefficients of the paper (its eqs. 2.3 to 2.8), for 2 to ``most`` stages.

    >>> table = chebyshev(4)
    >>> round(float(table.time[4, 4]), 12)  # the last stage is at the end of the step
    1.0
    """
    first, table = np.zeros(most + 1), np.zeros((5, most + 1, most + 1))
    for s in range(2, most + 1):
        w0 = 1 + DAMPING / s**2
        t, dt, ddt = [np.zeros(s + 1) for _ in range(3)]  # Chebyshev polynomials at w0, first and second derivatives
        t[:2], dt[:2] = (1, w0), (0, 1)
        for j in range(2, s + 1):
            t[j] = 2 * w0 * t[j - 1] - t[j - 2]
            dt[j] = 2 * w0 * dt[j - 1] - dt[j - 2] + 2 * t[j - 1]
            ddt[j] = 2 * w0 * ddt[j - 1] - ddt[j - 2] + 4 * dt[j - 1]
        w1 = dt[s] / ddt[s]
        b = np.empty(s + 1)
        b[2:] = ddt[2:] / dt[2:] ** 2
        b[:2] = b[2]
        first[s] = b[1] * w1
        times = np.zeros(s + 1)
        times[1] = first[s]
        for j in range(2, s + 1):
            mu, nu, slope = 2 * w0 * b[j] / b[j - 1], -b[j] / b[j - 2], 2 * w1 * b[j] / b[j - 1]
            start = -(1 - b[j - 1] * t[j - 1]) * slope
            times[j] = mu * times[j - 1] + nu * times[j - 2] + slope + start
            table[:, s, j] = mu, nu, slope, start, times[j]
        table[4, s, 1] = times[1]
    return Chebyshev(first, *table)


class Memory(NamedTuple):
    """What a step leaves to the next one.

    Args:
        slope: the field at the end.
        direction: along which the field changes most, as far as it is known, like the solution.
        radius: the spectral radius, where it was last estimated.
        age: steps since then.
        evaluations: of the field, so far.
    """

    slope: Any
    direction: Any
    radius: Array
    age: Array
    evaluations: Array


class Advance(NamedTuple):
    """A step: its end, the change, the field at the end, and the stages that it needs (may be too many)."""

    end: Any
    change: Any
    slope: Any
    stages: Array


class RKC2(diffrax.AbstractAdaptiveSolver, AbstractFollowing):
    """Runge-Kutta-Chebyshev of second order for Diffrax; number of stages by the spectral radius of the field.

    The embedded estimate of the local error is 0.8 (y_n - y_{n+1}) + 0.4 h (f_n + f_{n+1}). A step costs as many
    evaluations as it has stages; every fifth costs one more, of the power method, which starts from what it found.

    >>> solution = diffrax.diffeqsolve(
    ...     diffrax.ODETerm(lambda t, y, args: -1000 * (y - jnp.cos(t))), RKC2(), 0.0, 1.0, 0.01, jnp.array([0.0]),
    ...     stepsize_controller=diffrax.PIDController(1e-4, 1e-4),
    ... )
    >>> abs(float(solution.ys[0, 0]) - 0.5411) < 1e-3, int(solution.stats["num_steps"]) < 100  # a classical solver: 400
    (True, True)
    """

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar[Callable[..., Any]] = diffrax.ThirdOrderHermitePolynomialInterpolation

    def order(self, terms: Any) -> int:
        """Two."""
        return 2

    def error_order(self, terms: Any) -> int:
        """Three: of the local error and of its estimate."""
        return 3

    def init(self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any) -> Memory:
        """The field, whose own direction is the first guess of the power method."""
        slope = terms.vf(t0, y0, args)
        return Memory(slope, slope, jnp.zeros((), _dtype(y0)), jnp.asarray(0, jnp.int32), jnp.asarray(1, jnp.int32))

    def func(self, terms: Any, t0: Any, y0: Any, args: Any) -> Any:
        """The field."""
        return terms.vf(t0, y0, args)

    def step(self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any, solver_state: Memory, made_jump: Any) -> Any:
        """One step, see `diffrax.AbstractSolver.step`."""
        slope = solver_state.slope
        if made_jump is not False:
            slope = jax.lax.cond(made_jump, lambda: terms.vf(t0, y0, args), lambda: slope)
        direction, radius, rounds = spectral_radius(lambda y: terms.vf(t0, y, args), y0, slope, solver_state)
        made = self.advance(terms, t0, t1, y0, args, slope, radius)
        h = jnp.asarray(t1 - t0, _dtype(y0))
        # a step too long for the largest number of stages is not accepted
        too_long = jnp.where(made.stages > MOST_STAGES, jnp.inf, 0.0).astype(h.dtype)
        error = jax.tree.map(lambda d, a, b: 0.4 * h * (a + b) - 0.8 * d + too_long, made.change, slope, made.slope)
        ends = {"k0": slope, "k1": made.slope}
        dense = {"y0": y0, "y1": made.end} | {k: jax.tree.map(lambda f: h * f, f) for k, f in ends.items()}
        evaluations = solver_state.evaluations + rounds + jnp.minimum(made.stages, MOST_STAGES)
        memory = Memory(made.slope, direction, radius, (solver_state.age + 1) % EVERY, evaluations)
        return made.end, error, dense, memory, diffrax.RESULTS.successful

    def jump(self, made: Any) -> Any:
        """None: the field of a flow is smooth."""
        return False

    def begin_following(self, both: Any, t0: Any, t1: Any, y0: Any) -> Any:
        """The field."""
        return both.vf(t0, y0, None)

    def follow(self, both: Any, t0: Any, t1: Any, y0: Any, known: Any, network: Memory) -> tuple[Any, Any]:
        """A step of as many stages as the network's own had."""
        made = self.advance(both, t0, t1, y0, None, known, network.radius)
        return made.end, made.slope

    def advance(self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any, slope: Any, radius: Array) -> Advance:
        """The step of as many stages as ``radius`` asks for (at most `MOST_STAGES`), from the field ``slope`` at y0."""
        h = jnp.asarray(t1 - t0, _dtype(y0))
        wanted = jnp.ceil(jnp.sqrt(1 + 1.54 * SAFETY * h * radius))
        wanted = jnp.clip(jnp.where(jnp.isfinite(wanted), wanted, MOST_STAGES + 1), 2, MOST_STAGES + 1)
        wanted = wanted.astype(jnp.int32)
        s = jnp.minimum(wanted, MOST_STAGES)
        first, *stages = (jnp.asarray(part, _dtype(y0))[s] for part in chebyshev())
        mu, nu, at_slope, at_start, time = stages

        def stage(j: Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            last, before = carry
            seen = terms.vf(t0 + time[j - 1] * h, jax.tree.map(jnp.add, y0, last), args)
            new = jax.tree.map(
                lambda a, b, f, f0: mu[j] * a + nu[j] * b + h * (at_slope[j] * f + at_start[j] * f0),
                last, before, seen, slope,
            )  # fmt: skip
            return new, last

        begin = jax.tree.map(lambda f: first * h * f, slope), jax.tree.map(jnp.zeros_like, y0)
        change, _ = jax.lax.fori_loop(2, s + 1, stage, begin)
        end = jax.tree.map(jnp.add, y0, change)
        return Advance(end, change, terms.vf(t1, end, args), wanted)


def spectral_radius(velocity: Callable[[Any], Any], y: Any, slope: Any, memory: Memory) -> tuple[Any, Array, Array]:
    """(direction, spectral radius, evaluations) of the Jacobian at ``y``, by the power method with differences.

    It approaches the radius from below and stops at a change of 1 %: usually after one evaluation, from the direction
    that is remembered. Within `EVERY` steps what is remembered holds. A direction along which the field does not change
    is replaced by a fixed one without structure.
    """
    length = _norm(y)
    size = jnp.sqrt(jnp.finfo(_dtype(y)).eps) * jnp.where(length > 0, length, 1.0)

    def turn(carry: tuple[Any, Array, Array, Array]) -> tuple[Any, Array, Array, Array]:
        direction, radius, _, count = carry
        scale = size / jnp.maximum(_norm(direction), jnp.finfo(size.dtype).tiny)
        moved = velocity(jax.tree.map(lambda a, v: a + scale * v, y, direction))
        difference = jax.tree.map(jnp.subtract, moved, slope)
        new = _norm(difference) / size
        settled = jnp.where(new > 0, jnp.abs(new - radius) <= 0.01 * new, count > 0)
        return jax.tree.map(lambda d: jnp.where(new > 0, d, _irregular(d)), difference), new, settled, count + 1

    begin = (memory.direction, memory.radius, memory.age > 0, jnp.asarray(0, jnp.int32))
    direction, radius, _, rounds = jax.lax.while_loop(lambda c: ~c[2] & (c[3] < ROUNDS), turn, begin)
    return direction, radius, rounds


def _irregular(leaf: Array) -> Array:
    return jnp.cos(1.0 + jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape)


def _norm(tree: Any) -> Array:
    """Euclidean norm, summed leaf by leaf."""
    return jnp.sqrt(sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(tree)))


def _dtype(tree: Any) -> Any:
    return jnp.result_type(*jax.tree.leaves(tree))
