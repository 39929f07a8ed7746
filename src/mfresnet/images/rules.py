"""Block rules: in which order and with which step the blocks of a family are swept, and what of it is trained.

plain               h = 1
mean-field          each block has a trained depth coordinate; sorted by it, the gaps are the steps ([L20])
shuffled            a random order at each training step (ablation of mean-field)
stochastic-depth    a block is left out with a probability that grows with depth (Huang et al. 2016)
linear-multistep    u_{j+1} = (1 - k_j) u_j + k_j u_{j-1} + F(u_j) with trained k_j ([L18])
scaled              h = alpha/L

A rule is one small object; `images.family.sweep` does the rest.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from ..errors import MfresnetError, unknown_name
from .family import Place, Plan

Coordinates = dict[str, Float[Array, " blocks"]]
Order = Int[Array, " blocks"]


class Rule(eqx.Module):
    """What a rule is asked for; the defaults are those of the plain network.

    Coordinates are the trained numbers of each block, by name; they get the learning rate times ``rate`` and never
    weight decay. ``moves`` says whether blocks leave their places.
    """

    moves: ClassVar[bool] = False
    rate: float = eqx.field(static=True, default=1.0, kw_only=True)

    def begin(self, place: Place) -> Coordinates:
        """The coordinates at the start."""
        return {}

    def arrange(self, coordinates: Coordinates, order: Order, step: Any, key: Array) -> Order:
        """The order of the blocks in training step ``step``, given the one before."""
        return order

    def settled(self, coordinates: Coordinates, order: Order) -> Order:
        """The order of the blocks in evaluation."""
        return order

    def plan(self, coordinates: Coordinates, order: Order, place: Place, key: Array | None = None) -> Plan:
        """The plan of one sweep; with a key the training step's, without the one of evaluation."""
        return Plan(jnp.ones(place.count))

    def settle(self, coordinates: Coordinates, velocity: Coordinates, place: Place) -> tuple[Coordinates, Coordinates]:
        """Coordinates and their momentum after a step, brought back where they belong."""
        return coordinates, velocity


class Plain(Rule):
    """The residual network as it is: u + F(u)."""


class MeanField(Rule):
    """Mean-field training: a depth coordinate t_i in [0, 1] of each block, trained along with it ([L20]; theory, 10).

        X_{j+1} = X_j + scale N (t_(j+1) - t_(j)) F(X_j; theta_(j)),      t_(0) <= .. <= t_(N-1), t_(N) := 1

    The rule holds s = N t, the coordinate in units of the plain network's spacing. Then s = 0, 1, .., N - 1 makes every
    step exactly 1 in floating point, so a network at the start equals the plain one to the bit. A gradient with respect
    to t is N times the one with respect to s: a rate of lr_t for s means lr_t / N^2 for t.

    A coordinate that leaves [0, 1] is reflected at the end, and its momentum changes sign. A block at t = 1 has step 0.

    Whether blocks swap depends on lr_t and on the number of steps. Measured on 2,000 CIFAR-10 images (DIR: Parquet
    files), 310 steps, two seeds, with ``mfresnet image DIR --data.n 2000 --data.n-test 1000 --model resnet26
    --model.width 4 --blocks mean-field --blocks.lr-t LR_T --epochs 5 --train.batch-size 32 --train.schedule constant
    --seeds 2``; plain has test errors of 72.5 and 67.1 %, differences on matched seeds are in points with their 95 %
    interval:

        lr_t    swaps of a seed    largest |s_i - i| at an epoch's end    error less plain's
        0.1            0                         0.11                     +2.1 [ -8.8, 12.9]
        1              0                         0.49                     +0.5 [-22.4, 23.4]
        10            24                         3.61                     +4.8 [ -2.8, 12.4]

    So at the default of 1 blocks move by half a spacing and do not swap in so short a training, at 10 they do. No
    difference in error is shown at any, and none is excluded: a larger default has no evidence yet.

    Args:
        rate: lr_t, the learning rate of s over that of the weights.
        cadence: training steps between sorts; in between, two blocks that have crossed give a negative step.
        scale: factor of every step.
    """

    moves: ClassVar[bool] = True
    cadence: int = eqx.field(static=True, default=1)
    scale: float = eqx.field(static=True, default=1.0)

    def begin(self, place: Place) -> Coordinates:
        """Equally spaced: the plain network."""
        return {"s": jnp.arange(place.count, dtype=jnp.result_type(float))}

    def arrange(self, coordinates: Coordinates, order: Order, step: Any, key: Array) -> Order:
        """Sorted by depth, in every step that is a multiple of the cadence."""
        sorted_now = self.settled(coordinates, order)
        return sorted_now if self.cadence == 1 else jnp.where(step % self.cadence == 0, sorted_now, order)

    def settled(self, coordinates: Coordinates, order: Order) -> Order:
        """Sorted by depth; blocks at the same depth keep their index order."""
        return jnp.argsort(coordinates["s"], stable=True).astype(order.dtype)

    def plan(self, coordinates: Coordinates, order: Order, place: Place, key: Array | None = None) -> Plan:
        """The gaps between neighbours are the steps."""
        depth = coordinates["s"][order]
        ends = jnp.append(depth[1:], jnp.asarray(place.count, depth.dtype))
        return Plan(self.scale * (ends - depth), order)

    def settle(self, coordinates: Coordinates, velocity: Coordinates, place: Place) -> tuple[Coordinates, Coordinates]:
        """Reflection into [0, N], as often as it takes."""
        s, n = coordinates["s"], place.count
        turn = jnp.mod(s, 2 * n)  # [0, 2N): the way up, then the way down
        down = turn > n
        return {"s": jnp.where(down, 2 * n - turn, turn)}, {"s": jnp.where(down, -velocity["s"], velocity["s"])}


class Shuffled(Rule):
    """A fresh random order in every training step; in evaluation the order of the start. Nothing is trained."""

    moves: ClassVar[bool] = True

    def arrange(self, coordinates: Coordinates, order: Order, step: Any, key: Array) -> Order:
        """A uniform permutation."""
        return jax.random.permutation(key, len(order)).astype(order.dtype)

    def settled(self, coordinates: Coordinates, order: Order) -> Order:
        """0, 1, .., N - 1."""
        return jnp.arange(len(order), dtype=order.dtype)

    def plan(self, coordinates: Coordinates, order: Order, place: Place, key: Array | None = None) -> Plan:
        """Steps of 1 in the order given."""
        return Plan(jnp.ones(place.count), order)


class StochasticDepth(Rule):
    """Block l of L survives a training step with p_l = 1 - (l/L)(1 - p_L); evaluation takes the step p_l.

    Args:
        survival: p_L, of the last block. The blocks that change the shape always survive.
    """

    survival: float = eqx.field(static=True, default=0.5)

    def plan(self, coordinates: Coordinates, order: Order, place: Place, key: Array | None = None) -> Plan:
        """0 or 1 in training, the probability in evaluation."""
        number = jnp.arange(place.first, place.first + place.count)
        survives = 1 - number / place.total * (1 - self.survival)
        steps = survives if key is None else jax.random.bernoulli(key, survives)
        return Plan(steps.astype(jnp.result_type(float)))


class LinearMultistep(Rule):
    """A linear two-step method with one trained k_j per block ([L18]; theory, 11); k starts at 0, the plain network.

    The first block of a family has no predecessor of its shape: its step is plain and its k without effect.
    """

    def begin(self, place: Place) -> Coordinates:
        """k = 0."""
        return {"k": jnp.zeros(place.count)}

    def plan(self, coordinates: Coordinates, order: Order, place: Place, key: Array | None = None) -> Plan:
        """Steps of 1, mixed with the state before."""
        return Plan(jnp.ones(place.count), mix=coordinates["k"])


class Scaled(Rule):
    """Residual branches times alpha/L, L the blocks of the whole network."""

    alpha: float = eqx.field(static=True, default=1.0)

    def plan(self, coordinates: Coordinates, order: Order, place: Place, key: Array | None = None) -> Plan:
        """Equal steps alpha/L."""
        return Plan(jnp.full(place.count, self.alpha / place.total, jnp.result_type(float)))


RULES: dict[str, type[Rule]] = {
    "plain": Plain,
    "mean-field": MeanField,
    "shuffled": Shuffled,
    "stochastic-depth": StochasticDepth,
    "linear-multistep": LinearMultistep,
    "scaled": Scaled,
}


def make_rule(name: str, **options: Any) -> Rule:
    """A rule by name; options are those of its class, such as ``rate``, ``cadence`` or ``survival``.

    Raises:
        MfresnetError: nobody knows the name or an option.

    >>> make_rule("scaled", alpha=2.0).plan({}, jnp.arange(2), Place(first=2, count=2, total=4)).steps
    Array([0.5, 0.5], dtype=float32)
    """
    if name not in RULES:
        raise unknown_name("block rule", name, RULES)
    try:
        return RULES[name](**options)
    except TypeError as error:
        raise MfresnetError(f"block rule {name!r} has no option among {', '.join(options)}: {error}.") from error
