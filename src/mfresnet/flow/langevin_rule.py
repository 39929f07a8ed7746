"""Annealed Langevin chains as a rule of training (`mfresnet.flow.langevin` has the formulas)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from ..model import AbstractResNet
from .langevin import Kernel, decide, propose
from .rules import FieldOf, Moved, Rule

START = 2**31 - 1  # number of the draw of a chain's start, no step's number


class LangevinMemory(eqx.Module):
    """What one chain carries from step to step.

    Args:
        step: steps made.
        gradient: of the loss, in the standard coordinates of the start, None for what does not move.
        loss: at the present place.
        price: c so far and what rounding took from it; their sum in float64 is c to twice the precision.
        accepted: sum of the acceptance probabilities.
        others: the chains beside that of the trained network, or None.
    """

    step: Int[Array, ""]
    gradient: Any
    loss: Float[Array, ""]
    price: Float[Array, 2]
    accepted: Float[Array, ""]
    others: OtherChains | None = None

    @property
    def c(self) -> float:
        """log dQ/dP of the path so far; NaN where the start had no finite loss."""
        return float(self.prices[0])

    @property
    def prices(self) -> np.ndarray:
        """c of every chain, that of the trained network first; shape (m,), float64."""
        own = [np.asarray(self.price, np.float64)]
        if self.others is not None:
            own += list(np.asarray(self.others.memory.price, np.float64))
        return np.stack(own).sum(axis=1)


class OtherChains(eqx.Module):
    """Chains that run beside that of the trained network.

    Args:
        params: what moves, None elsewhere; a leading axis of chains.
        memory: of each chain, with the same axis.
    """

    params: Any
    memory: LangevinMemory


class LangevinRule(Rule):
    """pCNL: every adjusted step is reversible for its own temperature.

    Args:
        gammas, steps: the schedule, shape (T,).
        std: standard deviations of the start, in the shape of what moves; its means are 0.
        key: raw data of the key of all proposals.
        others: such data of the further chains, shape (m - 1, ...).
        leaps: steps of the scheme per proposal.
        kernel: "adjusted", "unadjusted" or "minibatch" (on the points that the trainer draws for the step).
    """

    gammas: Float[Array, " T"]
    steps: Float[Array, " T"]
    std: Any
    key: Array
    others: Array | None = None
    leaps: int = eqx.field(static=True, default=1)
    kernel: Kernel = eqx.field(static=True, default="adjusted")
    carries_probes: ClassVar[bool] = False

    def begin(self, moved: AbstractResNet) -> LangevinMemory:
        def blank() -> LangevinMemory:
            dtype = self.gammas.dtype
            zero = jnp.zeros((), dtype)
            return LangevinMemory(
                jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, moved), zero, jnp.zeros(2, dtype), zero
            )

        def draw(key: Array) -> OtherChains:
            noise = _normal(jax.random.fold_in(jax.random.wrap_key_data(key), START), moved)
            return OtherChains(jax.tree.map(jnp.multiply, self.std, noise), blank())

        others = None if self.others is None else jax.vmap(draw)(self.others)
        return replace(blank(), others=others)

    def step(self, model, ensemble, memory, fieldof) -> Moved:
        moving = jax.tree.map(lambda g: g is not None, memory.gradient, is_leaf=lambda g: g is None)
        params, still = eqx.partition(model, moving)
        # of all chains: a condition on one number stays a condition where they are vectorised
        place = memory.step

        def one(params: Any, memory: LangevinMemory, key: Array) -> tuple[Any, LangevinMemory, Array]:
            return self._step(params, still, memory, place, key, fieldof)

        new, after, loss = one(params, replace(memory, others=None), self.key)
        if memory.others is not None and self.others is not None:
            moved, kept, _ = jax.vmap(one)(memory.others.params, memory.others.memory, self.others)
            after = replace(after, others=OtherChains(moved, kept))
        return eqx.combine(new, still), ensemble, after, loss, self.steps[place]

    def _step(
        self, params: Any, still: Any, memory: LangevinMemory, place: Array, key_data: Array, fieldof: FieldOf
    ) -> tuple[Any, LangevinMemory, Array]:
        """One step of one chain: what moved, its memory, the loss before."""
        gamma, e = self.gammas[place], self.steps[place]

        def look(params: Any) -> tuple[Array, Any]:
            at = eqx.combine(params, still)
            now = fieldof(at, None, "none")
            gradient = jax.tree.map(lambda g: -g, now.model)
            for part in at.parts():  # velocities are gradients per mass
                scaled = jax.tree.map(lambda g, mass=part.mass: g / mass, getattr(gradient, part.name))
                gradient = eqx.tree_at(
                    lambda m, name=part.name: getattr(m, name), gradient, scaled, is_leaf=lambda leaf: leaf is None
                )
            return now.loss, jax.tree.map(jnp.multiply, self.std, gradient)

        def params_at(z: Any) -> Any:
            return jax.tree.map(jnp.multiply, self.std, z)

        if self.kernel == "minibatch":
            loss, gradient = look(params)  # on the points of this step
        else:
            loss, gradient = jax.lax.cond(place == 0, lambda: look(params), lambda: (memory.loss, memory.gradient))
        k_noise, k_accept = jax.random.split(jax.random.fold_in(jax.random.wrap_key_data(key_data), place))
        z = jax.tree.map(jnp.divide, params, self.std)
        new, new_loss, new_gradient, r = propose(
            lambda z: look(params_at(z)), z, _normal(k_noise, z), gradient, gamma, e, self.leaps
        )
        if self.kernel == "adjusted":
            uniform = jax.random.uniform(k_accept, (), loss.dtype)
            accept, chance = decide(gamma * (loss - new_loss) - r, uniform)
            # NaN where the start has no finite loss: such a chain errs everywhere
            gain = jnp.where(accept, gamma * (loss - new_loss), 0.0 * loss)
        else:
            accept, chance, gain = jnp.bool_(True), jnp.ones_like(loss), r

        def choose(a: Any, b: Any) -> Any:
            return jax.tree.map(lambda a, b: jnp.where(accept, a, b), a, b)

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
        return choose(params_at(new), params), after, loss


def _normal(key: Array, tree: Any) -> Any:
    """Independent standard normal numbers in the places of a tree, one key for each leaf."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    drawn = [
        jax.random.normal(k, (leaf.size,), leaf.dtype).reshape(leaf.shape) for k, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, drawn)
