"""Block rules: in which order and with which step the blocks of a family are swept, and what of it is trained.

A rule is one small object, which `images.family.sweep` asks for a plan; `images.configuration.BLOCK_RULES` lists the
rules by name. Your own is a subclass of `Rule`, given to `images.fit` or added by an installed package through an
entry point in the group ``mfresnet.block_rules``.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from ..errors import MfresnetError
from ..model.continuous import reflect
from .configuration import BLOCK_RULES, BlockConfig
from .family import Place, Plan

Coordinates = dict[str, Float[Array, " blocks"]]
Order = Int[Array, " blocks"]


class Rule(eqx.Module):
    """What a rule is asked for; the defaults are those of the plain network.

    Coordinates are the trained numbers of each block, by name. They are a parameter group of their own, with ``rate``
    times the learning rate of the weights and without weight decay. ``reorders`` says whether blocks leave their
    places.
    """

    reorders: ClassVar[bool] = False
    rate: float = eqx.field(static=True, default=1.0, kw_only=True)

    @classmethod
    def from_settings(cls, settings: BlockConfig) -> Rule:
        """The rule with the options that a configuration has for it."""
        return cls()

    def init(self, place: Place) -> Coordinates:
        """The coordinates at the start."""
        return {}

    def arrange(self, coordinates: Coordinates, order: Order, step: Any, key: Array) -> Order:
        """The order of the blocks in training step ``step``, given the one before."""
        return order

    def evaluation_order(self, coordinates: Coordinates, order: Order) -> Order:
        """The order of the blocks in evaluation."""
        return order

    def plan(self, coordinates: Coordinates, order: Order, place: Place, key: Array | None = None) -> Plan:
        """The plan of one sweep; with a key the training step's, without the one of evaluation."""
        return Plan(jnp.ones(place.count))

    def observe(self, coordinates: Coordinates, place: Place) -> Coordinates:
        """The coordinates in the units in which they are recorded."""
        return coordinates


class Plain(Rule):
    """The residual network as it is: u + F(u)."""


class MeanField(Rule):
    """Mean-field training: a depth coordinate t_i in [0, 1] of each block, trained along with it.

        X_{j+1} = X_j + scale N (t_(j+1) - t_(j)) F(X_j; theta_(j)),      t_(0) <= .. <= t_(N-1), t_(N) := 1

    The rule holds s = N t, the coordinate in units of the plain network's spacing. Then s = 0, 1, .., N - 1 makes every
    step exactly 1 in floating point, so a network at the start equals the plain one to the bit. A gradient with respect
    to t is N times the one with respect to s: a rate of lr_t for s means lr_t / N^2 for t.

    The trained s moves freely on the line and the network sees its reflection into [0, N], whose slope changes the sign
    of the gradient: that is a coordinate which is reflected at both ends together with its momentum, under every
    optimiser that is odd in the gradient. A block at t = 1 has step 0.

    Source: Lu, Ma, Lu, Lu and Ying, A mean-field analysis of deep ResNet and beyond, 2020, arXiv 2003.05508.

    Whether blocks swap depends on lr_t and on the number of steps. Measured on 2,000 CIFAR-10 images (DIR: Parquet
    files), 310 steps, two seeds, with ``mfresnet image DIR --data.n 2000 --data.n-test 1000 --model resnet26
    --model.width 4 --blocks mean-field --blocks.lr-t LR_T --epochs 5 --train.batch-size 32 --train.schedule constant
    --seeds 2``; plain has test errors of 72.5 and 67.1 %, differences on matched seeds are in points with their 95 %
    interval:

        lr_t    swaps of a seed    largest |s_i - i| at an epoch's end    error less plain's
        0.1            0                         0.11                     +2.1 [ -8.8, 12.9]
        1              0                         0.49                     +0.5 [-22.4, 23.4]
        10            24                         3.61                     +4.8 [ -2.8, 12.4]

    At the default of 1 blocks move by half a spacing and do not swap in so short a training; at 10 they do. No
    difference in error is shown at any rate, and none is excluded: there is no evidence for a larger default yet.

    Args:
        rate: lr_t, the learning rate of s over that of the weights.
        cadence: training steps between sorts; in between, two blocks that have crossed give a negative step.
        scale: factor of every step.
    """

    reorders: ClassVar[bool] = True
    cadence: int = eqx.field(static=True, default=1)
    scale: float = eqx.field(static=True, default=1.0)

    @classmethod
    def from_settings(cls, settings: BlockConfig) -> MeanField:
        """With ``blocks.lr_t``, ``blocks.cadence`` and ``blocks.step_scale``."""
        return cls(rate=settings.lr_t, cadence=settings.cadence, scale=settings.step_scale)

    def init(self, place: Place) -> Coordinates:
        """Equally spaced: the plain network."""
        return {"s": jnp.arange(place.count, dtype=jnp.result_type(float))}

    def arrange(self, coordinates: Coordinates, order: Order, step: Any, key: Array) -> Order:
        """Sorted by depth, in every step that is a multiple of the cadence."""
        sorted_now = self.evaluation_order(coordinates, order)
        return sorted_now if self.cadence == 1 else jnp.where(step % self.cadence == 0, sorted_now, order)

    def evaluation_order(self, coordinates: Coordinates, order: Order) -> Order:
        """Sorted by depth; blocks at the same depth keep their index order."""
        depth = reflect(coordinates["s"], len(order))
        return jnp.argsort(depth, stable=True).astype(order.dtype)

    def plan(self, coordinates: Coordinates, order: Order, place: Place, key: Array | None = None) -> Plan:
        """The gaps between neighbours are the steps."""
        depth = reflect(coordinates["s"], place.count)[order]
        ends = jnp.append(depth[1:], jnp.asarray(place.count, depth.dtype))
        return Plan(self.scale * (ends - depth), order)

    def observe(self, coordinates: Coordinates, place: Place) -> Coordinates:
        """t = s/N."""
        return {"t": reflect(coordinates["s"], place.count) / max(place.count, 1)}


class Shuffled(Rule):
    """A fresh random order in every training step; in evaluation the order of the start. Nothing is trained."""

    reorders: ClassVar[bool] = True

    def arrange(self, coordinates: Coordinates, order: Order, step: Any, key: Array) -> Order:
        """A uniform permutation."""
        return jax.random.permutation(key, len(order)).astype(order.dtype)

    def evaluation_order(self, coordinates: Coordinates, order: Order) -> Order:
        """0, 1, .., N - 1."""
        return jnp.arange(len(order), dtype=order.dtype)

    def plan(self, coordinates: Coordinates, order: Order, place: Place, key: Array | None = None) -> Plan:
        """Steps of 1 in the order given."""
        return Plan(jnp.ones(place.count), order)


class StochasticDepth(Rule):
    """Block l of L survives a training step with p_l = 1 - (l/L)(1 - p_L); evaluation takes the step p_l.

    Args:
        survival: p_L, of the last block. The blocks that change the shape always survive.

    Source: Huang, Sun, Liu, Sedra and Weinberger, Deep networks with stochastic depth, 2016, arXiv 1603.09382.
    """

    survival: float = eqx.field(static=True, default=0.5)

    @classmethod
    def from_settings(cls, settings: BlockConfig) -> StochasticDepth:
        """With ``blocks.survival``."""
        return cls(survival=settings.survival)

    def plan(self, coordinates: Coordinates, order: Order, place: Place, key: Array | None = None) -> Plan:
        """0 or 1 in training, the probability in evaluation."""
        number = jnp.arange(place.first, place.first + place.count)
        survives = 1 - number / place.total * (1 - self.survival)
        steps = survives if key is None else jax.random.bernoulli(key, survives)
        return Plan(steps.astype(jnp.result_type(float)))


class LinearMultistep(Rule):
    """A linear two-step method with one trained k_j per block; k starts at 0, the plain network.

        u_{j+1} = (1 - k_j) u_j + k_j u_{j-1} + F(u_j)

    The first block of a family has no predecessor of its shape: its step is plain and its k without effect.

    Source: Lu, Zhong, Li and Dong, Beyond finite layer neural networks, 2018, arXiv 1710.10121.
    """

    def init(self, place: Place) -> Coordinates:
        """k = 0."""
        return {"k": jnp.zeros(place.count)}

    def plan(self, coordinates: Coordinates, order: Order, place: Place, key: Array | None = None) -> Plan:
        """Steps of 1, mixed with the state before."""
        return Plan(jnp.ones(place.count), mix=coordinates["k"])


class Scaled(Rule):
    """Residual branches times alpha/L, L the blocks of the whole network."""

    alpha: float = eqx.field(static=True, default=1.0)

    @classmethod
    def from_settings(cls, settings: BlockConfig) -> Scaled:
        """With ``blocks.alpha``."""
        return cls(alpha=settings.alpha)

    def plan(self, coordinates: Coordinates, order: Order, place: Place, key: Array | None = None) -> Plan:
        """Equal steps alpha/L."""
        return Plan(jnp.full(place.count, self.alpha / place.total, jnp.result_type(float)))


def make_rule(name: str, **options: Any) -> Rule:
    """A rule by name; options are those of its class, such as ``rate``, ``cadence`` or ``survival``.

    Raises:
        MfresnetError: an unknown name or option.

    >>> make_rule("scaled", alpha=2.0).plan({}, jnp.arange(2), Place(first=2, count=2, total=4)).steps
    Array([0.5, 0.5], dtype=float32)
    """
    kind = BLOCK_RULES[name]
    try:
        return kind(**options)
    except TypeError as error:
        raise MfresnetError(f"block rule {name!r} has no option among {', '.join(options)}: {error}.") from error
