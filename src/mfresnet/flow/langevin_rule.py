"""The adjusted annealed Langevin chain as a rule of training (`mfresnet.flow.langevin` has the formulas)."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from ..model import AbstractResNet
from .langevin import log_ratio, proposal
from .rules import Moved, Rule


class LangevinMemory(eqx.Module):
    """What one chain carries from step to step.

    Args:
        step: steps made.
        gradient: of the loss, in the standard coordinates of the start, None for what does not move.
        loss: at the present place.
        price: c so far and what rounding took from it; their sum in float64 is c to twice the precision.
        accepted: sum of the acceptance probabilities.
    """

    step: Int[Array, ""]
    gradient: Any
    loss: Float[Array, ""]
    price: Float[Array, 2]
    accepted: Float[Array, ""]

    @property
    def c(self) -> float:
        """log dQ/dP of the path so far; NaN where the start had no finite loss."""
        return float(np.asarray(self.price, np.float64).sum())


class LangevinRule(Rule):
    """pCNL, adjusted: every step is reversible for its own temperature.

    Args:
        gammas, steps: the schedule, shape (T,).
        std: standard deviations of the start, in the shape of what moves; its means are 0.
        key: raw data of the key of all proposals.
    """

    gammas: Float[Array, " T"]
    steps: Float[Array, " T"]
    std: Any
    key: Array
    carries_probes: ClassVar[bool] = False

    def begin(self, moved: AbstractResNet) -> LangevinMemory:
        dtype = self.gammas.dtype
        zero = jnp.zeros((), dtype)
        return LangevinMemory(
            jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, moved), zero, jnp.zeros(2, dtype), zero
        )

    def step(self, model, ensemble, memory, fieldof) -> Moved:
        gamma, e = self.gammas[memory.step], self.steps[memory.step]

        def look(at: AbstractResNet) -> tuple[Array, Any]:
            now = fieldof(at, None, "none")
            gradient = jax.tree.map(lambda g: -g, now.model)
            for part in at.parts():  # velocities are gradients per mass
                scaled = jax.tree.map(lambda g, mass=part.mass: g / mass, getattr(gradient, part.name))
                gradient = eqx.tree_at(
                    lambda m, name=part.name: getattr(m, name), gradient, scaled, is_leaf=lambda leaf: leaf is None
                )
            return now.loss, jax.tree.map(jnp.multiply, self.std, gradient)

        moving = jax.tree.map(lambda g: g is not None, memory.gradient, is_leaf=lambda g: g is None)
        params, still = eqx.partition(model, moving)
        loss, gradient = jax.lax.cond(
            memory.step == 0, lambda: look(model), lambda: (memory.loss, memory.gradient)
        )  # fmt: skip
        key = jax.random.fold_in(jax.random.wrap_key_data(self.key), memory.step)
        k_noise, k_accept = jax.random.split(key)
        z = jax.tree.map(jnp.divide, params, self.std)
        leaves, structure = jax.tree.flatten(z)
        noise = jax.tree.unflatten(
            structure,
            [
                jax.random.normal(k, (leaf.size,), leaf.dtype).reshape(leaf.shape)
                for k, leaf in zip(jax.random.split(k_noise, len(leaves)), leaves, strict=True)
            ],
        )
        new = jax.tree.map(lambda z, g, xi: proposal(z, g, gamma, e, xi), z, gradient, noise)
        there = eqx.combine(jax.tree.map(jnp.multiply, self.std, new), still)
        new_loss, new_gradient = look(there)
        parts = jax.tree.map(
            lambda z, g, to, there: log_ratio(z.ravel(), g.ravel(), to.ravel(), there.ravel(), gamma, e),
            z,
            gradient,
            new,
            new_gradient,
        )
        ratio = gamma * (loss - new_loss) - sum(jax.tree.leaves(parts))
        accept = jnp.log(jax.random.uniform(k_accept, (), ratio.dtype)) < ratio
        chance = jnp.where(jnp.isnan(ratio), 0.0, jnp.exp(jnp.minimum(ratio, 0.0)))

        def choose(a: Any, b: Any) -> Any:
            return jax.tree.map(lambda a, b: jnp.where(accept, a, b), a, b)

        # NaN where the start has no finite loss: such a chain errs everywhere
        gain = jnp.where(accept, gamma * (loss - new_loss), 0.0 * loss)
        total = memory.price[0] + gain
        back = total - memory.price[0]
        lost = (memory.price[0] - (total - back)) + (gain - back)  # two-sum
        after = LangevinMemory(
            memory.step + 1,
            choose(new_gradient, gradient),
            jnp.where(accept, new_loss, loss),
            jnp.stack([total, memory.price[1] + lost]),
            memory.accepted + chance,
        )
        return choose(there, model), ensemble, after, loss, e
