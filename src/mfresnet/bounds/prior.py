"""Data-dependent priors: log-densities along a recorded flow, for the KL between two times or two runs.

Theory, section 8(b). The prior is the law tau_s of a flow that saw only part A of the data; the bound is taken on the
rest. The posterior's probes need log tau_s at *their* places, which the flow of the prior gives when each probe is
pulled back along it to time 0.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ..flow import Batch, Ensemble, Hessians, LogRatio, OneToOne, Options, Probes, field
from ..flow.rules import euler_gain
from ..model import AbstractResNet

Carry: TypeAlias = tuple[Probes, LogRatio, OneToOne, Array]


class PulledBack(NamedTuple):
    """Probes traced back along a flow.

    Args:
        ensemble: the probes, where they come from (``start``), and the change of log-density on the way: exactly what
            the flow's own ensemble holds, so that `diagnostics.divergence.log_density_ratios` gives log(tau_s/tau_0).
        residual: largest distance between a probe and the image of its recovered preimage, over all steps; 0 for an
            exact inverse. Large where the step is no contraction: then no inverse was found, and nothing is certified.
    """

    ensemble: Ensemble
    residual: Float[Array, ""]


def stack(models: list[AbstractResNet]) -> AbstractResNet:
    """The history `pull_back` reads: the models *before* each Euler step, with a leading axis of steps."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)


@eqx.filter_jit
def pull_back(
    history: AbstractResNet,
    data: Batch,
    probes: Probes,
    *,
    h: float | Array,
    trained: AbstractResNet,
    options: Options | None = None,
    rounds: int = 200,
) -> PulledBack:
    """Trace probes back along the Euler flow theta <- theta + h v(theta) that ``history`` records.

    Each step is inverted by the fixed-point iteration theta = theta' - h v(theta), a contraction while h times the
    Lipschitz constant of v is below 1. With its log-determinant

        log tau_s(omega) = log tau_0(start) + log_ratio,      log(dQ/dP) of a particle = R_posterior - R_prior.

    Where a step of the prior is not one-to-one there are other preimages, each of which adds to the density of the
    prior: the log(dQ/dP) computed is then too large, which no bound that grows with it suffers from.

    Args:
        history: see `stack`.
        data: the points the prior was trained on (full batch).
        probes: particles of the posterior, in the shape of the prior's probes.
        h, trained, options: of the prior's training.
        rounds: most fixed-point iterations of each step; it stops where they no longer move the probes.
    """
    options = options or Options()
    arrays, static = eqx.partition(history, eqx.is_array)

    def back(carry: Carry, one: AbstractResNet) -> tuple[Carry, None]:
        here, gain, one_to_one, worst = carry
        model = eqx.combine(one, static)

        def refine(state: tuple[Probes, Array, Array]) -> tuple[Probes, Array, Array]:
            guess, _, count = state
            velocity = field(model, trained, data, options, guess, "none").probes
            better = jax.tree.map(lambda place, v: place - h * v, here, velocity)
            return better, largest_distance(better, guess), count + 1

        def going(state: tuple[Probes, Array, Array]) -> Array:
            return (state[1] > settled) & (state[2] < rounds)

        before, _, _ = jax.lax.while_loop(going, refine, (here, jnp.full((), jnp.inf, dtype), jnp.zeros((), int)))
        now = field(model, trained, data, options, before, "hessian")
        velocity, seen = now.at_probes(Hessians)
        image = jax.tree.map(lambda b, v: b + h * v, before, velocity)
        step, upright = euler_gain(seen, h)
        worst = jnp.maximum(worst, largest_distance(image, here))
        one_to_one = jax.tree.map(jnp.logical_and, one_to_one, upright)
        return (before, jax.tree.map(jnp.add, gain, step), one_to_one, worst), None

    dtype = probes.encoder.dtype
    settled = 64 * jnp.finfo(dtype).eps
    zeros = LogRatio(
        jnp.zeros(probes.encoder.batch, dtype),
        None if probes.head is None else jnp.zeros(probes.head.batch, dtype),
    )
    begin = (probes, zeros, OneToOne.of(zeros), jnp.zeros((), dtype))
    (start, gain, one_to_one, worst), _ = jax.lax.scan(back, begin, arrays, reverse=True)
    return PulledBack(Ensemble(probes, start, gain, one_to_one), worst)


def largest_distance(a: Probes, b: Probes) -> Array:
    """Largest difference of an entry."""
    return jnp.max(jnp.stack(jax.tree.leaves(jax.tree.map(lambda x, y: jnp.max(jnp.abs(x - y)), a, b))))
