r"""Annealed Langevin chains with a Gaussian start, and the exact density ratio of their paths.

Coordinates z are standard Gaussian under the reference p_0 = N(0, I); L is a potential, gamma an inverse temperature.
The proposal is one step of the preconditioned Crank-Nicolson Langevin scheme for p_0 exp(-gamma L),

    z' = [ (2 - e) z - 2 e gamma g(z) + sqrt(8 e) xi ]/(2 + e),     xi ~ N(0, I),     g = grad L,

whose transition density q has the ratio  p_0(z) q(z, z')/(p_0(z') q(z', z)) = exp(r),

    r = - gamma/2 <z' - z, g + g'> - e gamma/4 <z + z', g - g'> - e gamma^2/4 <g - g', g + g'>.

**Adjusted**: accepted with probability min(1, exp(gamma (L - L') - r)), each step is reversible for p_0 exp(-gamma L).
**Unadjusted**: always accepted. **Minibatch**: unadjusted, with the gradient of a mean over a batch drawn afresh.

The path's density ratio c = log dQ/dP, Q the law of the chain from z_0 ~ p_0 and P the law that draws z_T ~ p_0 and
runs the steps backwards, adds up per step

    adjusted    gamma (L(z_{k-1}) - L(z_k))    (detailed balance; 0 where rejected),
    otherwise   r                              (the backward kernel is the Langevin step of the same e, gamma and
    batch).

Nothing but p_0 being free of the data is asked of P's marginal of z_T, and it is p_0 by construction
(docs/path_certificate.md). Sources: Cotter, Roberts, Stuart and White (2013, arXiv 1202.0709), pCNL; Welling and Teh
(2011), minibatch Langevin.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from ..errors import MfresnetError
from .annealing import AnnealingSchedule

Kernel = Literal["adjusted", "unadjusted", "minibatch"]
KERNELS: tuple[str, ...] = get_args(Kernel)

# (z, data) to (L, number of mistakes); data is a tree of arrays with the points along the first axis
Potential = Callable[[Float[Array, " size"], Any], tuple[Float[Array, ""], Float[Array, ""]]]


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


def proposal(z: Array, gradient: Array, gamma: Array, e: Array, xi: Array) -> Array:
    """One unadjusted step (module docstring).

    >>> proposal(jnp.ones(2), jnp.zeros(2), 1.0, 0.0, jnp.zeros(2)).tolist()
    [1.0, 1.0]
    """
    return ((2 - e) * z - 2 * e * gamma * gradient + jnp.sqrt(8 * e) * xi) / (2 + e)


def log_ratio(z: Any, gradient: Any, new: Any, new_gradient: Any, gamma: Any, e: Any) -> Any:
    """r = log p_0(z) q(z, z') - log p_0(z') q(z', z), from differences, which float32 keeps (last axis summed)."""
    change, total = gradient - new_gradient, gradient + new_gradient
    return (
        -0.5 * gamma * ((new - z) * total).sum(-1)
        - 0.25 * e * gamma * ((new + z) * change).sum(-1)
        - 0.25 * e * gamma**2 * (change * total).sum(-1)
    )


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
        (loss, mistakes), gradient = _slope(potential)(z, data)
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
) -> Chains:
    """Steps ``first`` to ``last`` - 1 of the schedule, one program for any of them.

    The numbers of step k depend on the key and k alone, so stopping and going on changes nothing.
    """
    # as arrays: the compiler would make a program for every pair of numbers
    bounds = jnp.asarray(first, jnp.int32), jnp.asarray(last, jnp.int32)
    return _advance(potential, chains, data, gammas, steps, key, *bounds, kernel, batch)


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
    kernel: Kernel,
    batch: int,
) -> Chains:
    slope = _slope(potential)

    def adjusted(k: Array, now: Chains) -> Chains:
        gamma, e, noise, uniform = _of_step(k, now)
        new = proposal(now.z, now.gradient, gamma, e, noise)
        (loss, mistakes), gradient = slope(new, data)
        ratio = gamma * (now.loss - loss) - log_ratio(now.z, now.gradient, new, gradient, gamma, e)
        accept = jnp.log(uniform) < ratio  # false where undefined: such a proposal is rejected
        chance = jnp.where(jnp.isnan(ratio), 0.0, jnp.exp(jnp.minimum(ratio, 0.0)))

        def choose(a: Array, b: Array) -> Array:
            return jnp.where(accept.reshape(-1, *[1] * (a.ndim - 1)), a, b)

        place, loss, gradient, mistakes = (
            choose(new, now.z), choose(loss, now.loss), choose(gradient, now.gradient), choose(mistakes, now.mistakes),
        )  # fmt: skip
        return _record(now, k, place, loss, gradient, mistakes, jnp.zeros_like(loss), chance)

    def unadjusted(k: Array, now: Chains) -> Chains:
        gamma, e, noise, _ = _of_step(k, now)
        new = proposal(now.z, now.gradient, gamma, e, noise)
        (loss, mistakes), gradient = slope(new, data)
        r = log_ratio(now.z, now.gradient, new, gradient, gamma, e)
        return _record(now, k, new, loss, gradient, mistakes, r, jnp.ones_like(r))

    def minibatch(k: Array, now: Chains) -> Chains:
        gamma, e, noise, _ = _of_step(k, now)
        n = jax.tree.leaves(data)[0].shape[0]
        chosen = jax.random.permutation(jax.random.fold_in(jax.random.fold_in(key, k), 2), n)[:batch]
        part = jax.tree.map(lambda leaf: leaf[chosen], data)
        (_, _), gradient = slope(now.z, part)
        new = proposal(now.z, gradient, gamma, e, noise)
        (loss, mistakes), new_gradient = slope(new, part)
        r = log_ratio(now.z, gradient, new, new_gradient, gamma, e)
        return _record(now, k, new, loss, now.gradient, mistakes, r, jnp.ones_like(r))

    def _of_step(k: Array, now: Chains) -> tuple[Array, Array, Array, Array]:
        noise, uniform = jax.random.split(jax.random.fold_in(key, k))
        m, size = now.z.shape
        xi = jax.random.normal(noise, (m * size,), now.z.dtype).reshape(m, size)
        return gammas[k], steps[k], xi, jax.random.uniform(uniform, (m,), now.z.dtype)

    body = {"adjusted": adjusted, "unadjusted": unadjusted, "minibatch": minibatch}[kernel]
    return jax.lax.fori_loop(first, last, body, chains)


def _slope(potential: Potential) -> Callable:
    return jax.vmap(jax.value_and_grad(potential, has_aux=True), in_axes=(0, None))


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
def _acceptance_inputs(potential: Potential, z: Array, data: Any, gamma: Array, e: Array, key: Array) -> tuple:
    (before, _), gradient = _slope(potential)(z, data)
    new = proposal(z, gradient, gamma, e, jax.random.normal(key, z.shape, z.dtype))
    (after, _), new_gradient = _slope(potential)(new, data)
    r = log_ratio(z, gradient, new, new_gradient, gamma, e)
    return (z, gradient, new, new_gradient), (before, after), r, gamma * (before - after) - r


def rounding(
    potential: Potential,
    chains: Chains,
    data: Any,
    gamma: Any,
    e: Any,
    key: Array,
    tries: int = 8,
    kernel: Kernel = "adjusted",
) -> float:
    """Largest error that float32 makes in the price of a step, over proposals from where the chains are.

    L and its gradient are those of the program, one deterministic function of z, which therefore *is* the potential;
    what rounding touches is the arithmetic after them. An error of eta in the log-acceptance changes the ratio of a
    step's forward and backward densities by at most a factor exp(2 eta); for the other kernels it is the error of r.

    Args:
        data: the points of a step, a batch of them for minibatch chains.
    """
    largest = 0.0
    gamma64, e64 = float(np.float32(gamma)), float(np.float32(e))
    for k in range(tries):
        places, losses, r, ratio = jax.device_get(
            _acceptance_inputs(
                potential, chains.z, data, jnp.float32(gamma), jnp.float32(e), jax.random.fold_in(key, k)
            )
        )
        z, gradient, new, new_gradient = (np.asarray(v, np.float64) for v in places)
        exact = log_ratio(z, gradient, new, new_gradient, gamma64, e64)
        before, after = (np.asarray(v, np.float64) for v in losses)
        if kernel == "adjusted":
            gaps = 2 * np.abs(gamma64 * (before - after) - exact - ratio.astype(np.float64))
            gaps = gaps[ratio > -20]  # a ratio below is a rejection, rounded or not
        else:
            gaps = np.abs(exact - r.astype(np.float64))
        largest = max(largest, float(gaps[np.isfinite(gaps)].max(initial=0.0)))
    return largest


def check_kernel(kernel: str, batch: int | None, n: int) -> int:
    """The batch size of a kernel (0 where it takes all points).

    Raises:
        MfresnetError: an unknown kernel, or a batch that does not fit.
    """
    if kernel not in KERNELS:
        raise MfresnetError(f"kernel = {kernel!r} is not allowed: give one of {', '.join(KERNELS)}.")
    if (kernel == "minibatch") != (batch is not None):
        raise MfresnetError(f"batch = {batch} does not fit the kernel {kernel!r}: minibatch takes one, others none.")
    if batch is not None and not 1 <= batch <= n:
        raise MfresnetError(f"batch = {batch} is not allowed: give a number between 1 and the {n} points.")
    return batch or 0
