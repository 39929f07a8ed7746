r"""Annealed Langevin chains with a Gaussian start, and the exact density ratio of their paths.

Coordinates z are standard Gaussian under the reference p_0 = N(0, I); L is a potential, gamma an inverse temperature.
A proposal draws a velocity v ~ N(0, I) and makes K steps of the splitting scheme for p_0 exp(-gamma L),

    v <- v - t gamma g(z),     (z, v) <- (z cos h + v sin h, v cos h - z sin h),     v <- v - t gamma g(z),

g = grad L, t = tan(h/2) = sqrt(e/2), e the step. The rotation keeps |z|^2 + |v|^2, and all three maps keep volume, so
the density of the proposal against that of its reversal, p_0(z) q(z, z')/(p_0(z') q(z', z)) = exp(r), is given by what
the kicks add,

    r = ( |v'|^2 + |z'|^2 - |v|^2 - |z|^2 )/2 = sum over kicks of [ t^2 gamma^2 |g|^2/2 - t gamma <v, g> ].

K = 1 is one step of the preconditioned Crank-Nicolson Langevin scheme,
z' = [ (2 - e) z - 2 e gamma g + sqrt(8 e) v ]/(2 + e); several steps are Hamiltonian Monte Carlo on the Gaussian's own
space: a longer way for the same noise.

**Adjusted**: accepted with probability min(1, exp(gamma (L - L') - r)), each step is reversible for p_0 exp(-gamma L).
**Unadjusted**: always accepted. **Minibatch**: unadjusted, with the gradient of a mean over a batch drawn afresh.

The path's density ratio c = log dQ/dP, Q the law of the chain from z_0 ~ p_0 and P the law that draws z_T ~ p_0 and
runs the steps backwards, adds up per step

    adjusted    gamma (L(z_{k-1}) - L(z_k))    (detailed balance; 0 where rejected),
    otherwise   r                              (the backward kernel makes the same steps with the velocity reversed,
    of the same e, gamma and batch).

Nothing but p_0 being free of the data is asked of P's marginal of z_T, and it is p_0 by construction
(docs/path_certificate.md). Sources: Cotter, Roberts, Stuart and White (2013, arXiv 1202.0709), pCNL; Beskos, Pinski,
Sanz-Serna and Stuart (2011), the splitting; Welling and Teh (2011), minibatch Langevin.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeVar, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jaxtyping import Float

from ..errors import MfresnetError
from ..threads import cores, spread
from .annealing import AnnealingSchedule

Kernel = Literal["adjusted", "unadjusted", "minibatch"]
KERNELS: tuple[str, ...] = get_args(Kernel)

TRACES = ("increments", "losses", "errors", "acceptance")  # of a time and a chain
CACHED_POINTS = 1024  # of the data times chains followed side by side on a CPU

# (z, data) to (L, number of mistakes); data is a tree of arrays with the points along the first axis
T = TypeVar("T")
Potential = Callable[[Float[Array, " size"], Any], tuple[Float[Array, ""], Float[Array, ""]]]
Look = Callable[[T], tuple[Any, T]]


class Chains(eqx.Module):
    """m chains where they are, and the trace of every step so far.

    Args:
        z: places, shape (m, size).
        loss, gradient, mistakes: L, its gradient and the number of mistakes there (zeros for minibatch chains).
        increments: r of each step, shape (T, m); adjusted chains leave it 0.
        losses, errors: L and mistakes after each step, shape (T + 1, m), the start first.
        acceptance: probability with which each step was accepted, shape (T, m).
    """

    z: Float[Array, "m size"]
    loss: Float[Array, " m"]
    gradient: Float[Array, "m size"]
    mistakes: Float[Array, " m"]
    increments: Float[Array, "T m"]
    losses: Float[Array, "after m"]
    errors: Float[Array, "after m"]
    acceptance: Float[Array, "T m"]


def kick(v: Any, gradient: Any, gamma: Any, e: Any) -> tuple[Any, Any]:
    """The velocity after a kick, and what it adds to |v|^2/2 (trees of arrays, one chain).

    >>> v, energy = kick(jnp.ones(2), jnp.ones(2), 1.0, 2.0)
    >>> v.tolist(), float(energy)
    ([0.0, 0.0], -1.0)
    """
    t = (0.5 * e) ** 0.5 * gamma
    change = [
        0.5 * t**2 * (g * g).sum() - t * (v * g).sum()
        for v, g in zip(jax.tree.leaves(v), jax.tree.leaves(gradient), strict=True)
    ]
    return jax.tree.map(lambda v, g: v - t * g, v, gradient), sum(change)


def turn(z: Any, v: Any, e: Any) -> tuple[Any, Any]:
    """Place and velocity after the rotation by h, tan(h/2) = sqrt(e/2).

    >>> z, v = turn(jnp.ones(1), jnp.zeros(1), 2.0)
    >>> z.tolist(), v.tolist()
    ([0.0], [-1.0])
    """
    cos, sin = (2 - e) / (2 + e), (8 * e) ** 0.5 / (2 + e)
    return (
        jax.tree.map(lambda z, v: cos * z + sin * v, z, v),
        jax.tree.map(lambda z, v: cos * v - sin * z, z, v),
    )


def leap(look: Look, z: T, v: T, gradient: T, gamma: Any, e: Any) -> tuple[T, T, Any, T, Any]:
    """One step of the scheme: place, velocity, what ``look`` knows of the place, the gradient there, its part of r."""
    v, before = kick(v, gradient, gamma, e)
    z, v = turn(z, v, e)
    known, gradient = look(z)
    v, after = kick(v, gradient, gamma, e)
    return z, v, known, gradient, before + after


def propose(look: Look, z: T, v: T, gradient: T, gamma: Any, e: Any, leaps: int = 1) -> tuple[T, Any, T, Any]:
    """A proposal of ``leaps`` steps of the scheme from place z with velocity v.

    Args:
        look: place to (what is known of it, gradient).
        z, v, gradient: arrays or trees of arrays of one chain.

    Returns:
        The new place, what ``look`` knows of it, the gradient there, and r.
    """
    state = leap(look, z, v, gradient, gamma, e)
    if leaps > 1:

        def more(_: Any, state: tuple) -> tuple:
            z, v, _, gradient, r = state
            *rest, change = leap(look, z, v, gradient, gamma, e)
            return *rest, r + change

        state = jax.lax.fori_loop(1, leaps, more, state)
    z, _, known, gradient, r = state
    return z, known, gradient, r


@eqx.filter_jit
def start(
    potential: Potential, data: Any, size: int, chains: int, length: int, key: Array, kernel: Kernel = "adjusted"
) -> Chains:
    """m chains at independent draws of p_0, with room for the trace of ``length`` steps."""
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(chains))
    z = jax.vmap(lambda k: jax.random.normal(k, (size,), jnp.float32))(keys)
    zeros = jnp.zeros(chains, jnp.float32)
    loss, mistakes, gradient = (zeros, zeros, jnp.zeros_like(z))
    if kernel != "minibatch":
        (loss, mistakes), gradient = jax.vmap(_look(potential, data))(z)
    trace = jnp.zeros((length, chains), jnp.float32)
    after = jnp.zeros((length + 1, chains), jnp.float32)
    return Chains(
        z, loss, gradient, mistakes, trace, after.at[0].set(loss), after.at[0].set(mistakes), trace
    )  # fmt: skip


def advance(
    potential: Potential,
    chains: Chains,
    data: Any,
    gammas: Float[Array, " T"],
    steps: Float[Array, " T"],
    key: Array,
    first: int | Array,
    last: int | Array,
    kernel: Kernel = "adjusted",
    batch: int = 0,
    leaps: int = 1,
) -> Chains:
    """Steps ``first`` to ``last`` - 1 of the schedule, one program for any of them.

    The numbers of step k depend on the key and k alone, so stopping and going on changes nothing. On a CPU each core
    follows its share of the chains.
    """
    # as arrays: the compiler would make a program for every pair of numbers
    bounds = jnp.asarray(first, jnp.int32), jnp.asarray(last, jnp.int32)
    given = jax.tree.leaves((potential, chains, data, gammas, steps, key, bounds, jnp.zeros(())))
    traced = any(isinstance(leaf, Tracer) for leaf in given)
    points = batch or jax.tree.leaves(data)[0].shape[0]
    m, (share, together) = len(chains.z), _plan(chains.z, points, traced)

    def run(begin: int, start: Array, end: Array) -> Chains:
        at = jnp.asarray(begin, jnp.int32)
        options = {"share": share, "kernel": kernel, "batch": batch, "leaps": leaps, "together": together}
        return _advance(potential, chains, data, gammas, steps, key, start, end, at, **options)

    if share == m:
        return run(0, *bounds)
    run(0, bounds[0], bounds[0])  # no step: compiled once, not by every thread
    parts = spread(lambda begin: jax.block_until_ready(run(begin, *bounds)), range(0, m, share), m // share)
    return _joined(parts)


def _of_chains(function: Callable[..., Array], *chains: Chains) -> Chains:
    """The function of the arrays of each field and the axis of the chains in them."""
    names = Chains.__dataclass_fields__
    return Chains(**{name: function([getattr(one, name) for one in chains], int(name in TRACES)) for name in names})


@eqx.filter_jit
def _joined(parts: list[Chains]) -> Chains:
    return _of_chains(jnp.concatenate, *parts)


def _plan(z: Array, points: int, traced: bool) -> tuple[int, int]:
    """How many chains each core follows, and how many of them side by side: divisors of their number.

    What a CPU computes for one layer of all of them would not stay in the cache of a core (a sixth of the time at 512
    points and 64 chains), and one alone costs more than two. An accelerator takes all of them, and so do devices that
    share them, and a program that this one is part of, as threads do not know its arrays (``traced``).
    """
    m = len(z)
    devices = z.sharding.device_set if isinstance(z, Array) and not traced else ()
    if jax.default_backend() != "cpu" or traced or len(devices) > 1:
        return m, m
    share = m // cores() if m % cores() == 0 and m >= 2 * cores() else m
    return share, next((k for k in range(max(2, CACHED_POINTS // points), 1, -1) if share % k == 0), share)


@eqx.filter_jit
def _advance(
    potential: Potential,
    chains: Chains,
    data: Any,
    gammas: Float[Array, " T"],
    steps: Float[Array, " T"],
    key: Array,
    first: Array,
    last: Array,
    begin: Array,
    share: int,
    kernel: Kernel,
    batch: int,
    leaps: int,
    together: int,
) -> Chains:
    """Steps of a share of the chains, those from ``begin`` on."""
    m, size = chains.z.shape

    def own(drawn: Array, axis: int = 0) -> Array:
        return drawn if share == m else jax.lax.dynamic_slice_in_dim(drawn, begin, share, axis)

    def each(function: Callable, *chains: Array) -> Any:
        """The function of each chain."""
        if together == len(chains[0]):
            return jax.vmap(function)(*chains)
        return jax.lax.map(lambda one: function(*one), chains, batch_size=together)

    def step(k: Array, now: Chains) -> Chains:
        gamma, e = gammas[k], steps[k]
        noise, uniform = jax.random.split(jax.random.fold_in(key, k))
        v = own(jax.random.normal(noise, (m * size,), now.z.dtype).reshape(m, size))
        part, gradient = data, now.gradient
        if kernel == "minibatch":
            n = jax.tree.leaves(data)[0].shape[0]
            chosen = jax.random.permutation(jax.random.fold_in(jax.random.fold_in(key, k), 2), n)[:batch]
            part = jax.tree.map(lambda leaf: leaf[chosen], data)
            _, gradient = each(_look(potential, part), now.z)
        move = partial(propose, _look(potential, part), gamma=gamma, e=e, leaps=leaps)
        new, (loss, mistakes), new_gradient, r = each(move, now.z, v, gradient)
        if kernel == "minibatch":
            return _record(now, k, new, loss, now.gradient, mistakes, r, jnp.ones_like(r))
        if kernel == "unadjusted":
            return _record(now, k, new, loss, new_gradient, mistakes, r, jnp.ones_like(r))
        accept, chance = decide(gamma * (now.loss - loss) - r, own(jax.random.uniform(uniform, (m,), now.z.dtype)))

        def choose(a: Array, b: Array) -> Array:
            return jnp.where(accept.reshape(-1, *[1] * (a.ndim - 1)), a, b)

        place, loss, gradient, mistakes = (
            choose(new, now.z), choose(loss, now.loss), choose(new_gradient, gradient), choose(mistakes, now.mistakes),
        )  # fmt: skip
        return _record(now, k, place, loss, gradient, mistakes, jnp.zeros_like(loss), chance)

    return jax.lax.fori_loop(first, last, step, _of_chains(lambda leaves, axis: own(leaves[0], axis), chains))


def decide(log_ratio: Array, uniform: Array) -> tuple[Array, Array]:
    """Whether a proposal is accepted, and its probability; one that is not a number is rejected."""
    chance = jnp.where(jnp.isnan(log_ratio), 0.0, jnp.exp(jnp.minimum(log_ratio, 0.0)))
    return jnp.log(uniform) < log_ratio, chance


def _look(potential: Potential, data: Any) -> Look:
    return lambda z: jax.value_and_grad(potential, has_aux=True)(z, data)


def _record(now: Chains, k: Array, z, loss, gradient, mistakes, increment, chance) -> Chains:
    return Chains(
        z,
        loss,
        gradient,
        mistakes,
        now.increments.at[k].set(increment),
        now.losses.at[k + 1].set(loss),
        now.errors.at[k + 1].set(mistakes),
        now.acceptance.at[k].set(chance),
    )


def prices(chains: Chains, schedule: AnnealingSchedule, upto: int, kernel: Kernel = "adjusted") -> np.ndarray:
    """c of each chain after ``upto`` steps, in float64; shape (m,), NaN where a chain left the finite numbers."""
    if kernel == "adjusted":
        losses = np.asarray(chains.losses[: upto + 1], np.float64)
        return np.asarray(schedule.gammas[:upto], np.float64) @ (losses[:-1] - losses[1:])
    return np.asarray(chains.increments[:upto], np.float64).sum(axis=0)


@eqx.filter_jit
def _trajectories(
    potential: Potential, z: Array, v: Array, data: Any, gamma: Array, e: Array, leaps: int
) -> tuple[list[Array], Array, Array, Array]:
    """Gradients along proposals from z, the losses at both ends, and r, of each chain."""
    look = jax.vmap(_look(potential, data))
    (before, _), gradient = look(z)
    step = partial(leap, _look(potential, data), gamma=gamma, e=e)
    gradients, after, total = [gradient], before, jnp.zeros_like(before)
    for _ in range(leaps):
        z, v, (after, _), gradient, change = jax.vmap(lambda z, v, g: step(z, v, g))(z, v, gradient)
        gradients.append(gradient)
        total += change
    return gradients, before, after, total


def rounding(
    potential: Potential,
    chains: Chains,
    data: Any,
    gamma: Any,
    e: Any,
    key: Array,
    tries: int = 8,
    kernel: Kernel = "adjusted",
    leaps: int = 1,
) -> float:
    """Largest error that float32 makes in the price of a step, over proposals from where the chains are.

    L and its gradient are those of the program, one deterministic function of z, which therefore *is* the potential;
    what rounding touches is the arithmetic after them, which is done again in float64. An error of eta in the
    log-acceptance changes the ratio of a step's forward and backward densities by at most a factor exp(2 eta); for the
    other kernels it is the error of r.

    Args:
        data: the points of a step, a batch of them for minibatch chains.
    """
    largest = 0.0
    gamma32, e32 = np.float32(gamma), np.float32(e)
    for k in range(tries):
        v = jax.random.normal(jax.random.fold_in(key, k), chains.z.shape, chains.z.dtype)
        # traced numbers: static ones would make a program for every schedule
        way = _trajectories(potential, chains.z, v, data, jnp.asarray(gamma32), jnp.asarray(e32), leaps)
        gradients, before, after, r = jax.device_get(way)
        for chain, (z0, v0) in enumerate(zip(np.asarray(chains.z, np.float64), np.asarray(v, np.float64), strict=True)):
            remembered = iter([g[chain].astype(np.float64) for g in gradients])
            place, velocity, gradient, exact = z0, v0, next(remembered), 0.0
            for _ in range(leaps):
                place, velocity, _, gradient, change = leap(
                    lambda _, rest=remembered: (None, next(rest)), place, velocity, gradient, float(gamma32), float(e32)
                )
                exact += change
            fall32 = gamma32 * (before[chain] - after[chain])
            fall = float(gamma32) * (float(before[chain]) - float(after[chain]))
            gap = abs(exact - float(r[chain]))
            if kernel == "adjusted":
                gap = 2 * abs(fall - exact - float(fall32 - r[chain]))
                if fall32 - r[chain] <= -20:  # a rejection, rounded or not
                    continue
            if np.isfinite(gap):
                largest = max(largest, gap)
    return largest


def check_kernel(kernel: str, batch: int | None, n: int, leaps: int = 1) -> int:
    """The batch size of a kernel (0 where it takes all points).

    Raises:
        MfresnetError: an unknown kernel, a batch that does not fit, or fewer than one step per proposal.
    """
    if leaps != int(leaps) or leaps < 1:
        raise MfresnetError(f"leaps = {leaps} is not allowed: give a whole number >= 1.")
    if kernel not in KERNELS:
        raise MfresnetError(f"kernel = {kernel!r} is not allowed: give one of {', '.join(KERNELS)}.")
    if (kernel == "minibatch") != (batch is not None):
        raise MfresnetError(f"batch = {batch} does not fit the kernel {kernel!r}: minibatch takes one, others none.")
    if batch is not None and not 1 <= batch <= n:
        raise MfresnetError(f"batch = {batch} is not allowed: give a number between 1 and the {n} points.")
    return batch or 0
