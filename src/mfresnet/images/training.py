"""One block rule's part of a training step (`images.program` trains several rules and seeds as one program).

Every random number of step k of a seed is a function of (seed, k) alone. So a training continues from any step to the
bit, and two rules with the same seed start from the same weights and see the same minibatches, augmented alike.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float

from ..errors import MfresnetError
from ..flow.layout import POINTS
from .augmentation import augment, normalise
from .family import Plan
from .optimiser import Descent
from .orders import count_places, kendall
from .resnet import Architecture, ImageResNet
from .rules import Rule


class Weights(eqx.Module):
    """What is trained: the network, and the coordinates of each family's blocks."""

    network: ImageResNet
    coordinates: tuple[dict[str, Array], ...]


class Tally(eqx.Module):
    """Sums over the steps of an epoch; of each family: swaps of neighbours and steps spent at each place."""

    steps: Float[Array, ""]
    loss: Float[Array, ""]
    wrong: Float[Array, ""]
    swaps: tuple[Array, ...]
    occupancy: tuple[Array, ...]


class ImageState(eqx.Module):
    """Where training stands; every array has a leading axis of seeds."""

    seed: Array
    step: Array
    weights: Weights
    optimiser: Any  # of Optax: momentum, learning rates and what else it keeps
    statistics: Any
    orders: tuple[Array, ...]
    tally: Tally


class ImageTrainer(eqx.Module):
    """How an image network is trained.

    The loss is the mean cross-entropy of a minibatch with smoothed labels (1 - s on the class, plus s/C on all). The
    last, incomplete minibatch of an epoch is left out.

    Args:
        mean, std: of the pixels in [0, 1], for each channel, of the training set.
        architecture, classes, channels, norm: the network.
        rule: the block rule.
        descent: the optimiser.
        n, batch, epochs: training images, images of a minibatch, passes over the training images.
        smoothing: s.
        augmented: random crops of the image padded by 4, and flips.
        dtype: number format of activations; parameters, optimiser and statistics keep theirs.
        mesh: devices over which each minibatch is divided (axis "points"); every device holds the weights.
    """

    mean: Array
    std: Array
    architecture: Architecture = eqx.field(static=True)
    rule: Rule
    n: int = eqx.field(static=True)
    classes: int = eqx.field(static=True)
    descent: Descent = eqx.field(default_factory=Descent)  # its rate and decay are data of the compiled program
    channels: int = eqx.field(static=True, default=3)
    norm: str = eqx.field(static=True, default="batch")
    batch: int = eqx.field(static=True, default=128)
    epochs: int = eqx.field(static=True, default=160)
    smoothing: float = eqx.field(static=True, default=0.0)
    augmented: bool = eqx.field(static=True, default=True)
    dtype: str = eqx.field(static=True, default="float32")
    mesh: Mesh | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        if self.batch > self.n:
            raise MfresnetError(
                f"train.batch_size = {self.batch} is larger than the {self.n} training images: "
                f"give a value <= {self.n}."
            )
        if self.mesh is not None and self.batch % self.mesh.size:
            raise MfresnetError(
                f"train.batch_size = {self.batch} cannot be divided over {self.mesh.size} devices: "
                f"give a multiple of {self.mesh.size}, or fewer devices."
            )

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return self.n // self.batch

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.per_epoch * self.epochs

    @property
    def transformation(self) -> optax.GradientTransformationExtraArgs:
        """The Optax transformation of ``{"network": .., "coordinates": ..}``."""
        return self.descent.transformation(self.rule.rate, self.per_epoch, self.epochs)

    def init(self, seeds: Any) -> ImageState:
        """The states of these seeds before the first step."""
        seeds = jnp.asarray(seeds, jnp.uint32)
        count, places = len(seeds), self.architecture.places

        def each(leaf: Array) -> Array:
            return jnp.tile(leaf, (count, *[1] * leaf.ndim))

        network, statistics = _networks(seeds, self.architecture, self.channels, self.classes, self.norm)
        weights = Weights(network, jax.tree.map(each, tuple(self.rule.init(place) for place in places)))
        tally = Tally(
            *(jnp.zeros(()) for _ in range(3)),
            swaps=tuple(jnp.zeros((), jnp.int32) for _ in places),
            occupancy=tuple(jnp.zeros((place.count, place.count)) for place in places),
        )
        return ImageState(
            seed=seeds,
            step=jnp.zeros(count, jnp.int32),
            weights=weights,
            optimiser=jax.vmap(self.transformation.init)(_groups(weights)),
            statistics=statistics,
            orders=jax.tree.map(each, tuple(jnp.arange(place.count, dtype=jnp.int32) for place in places)),
            tally=jax.tree.map(each, tally),
        )

    def keys(self, seed: Array, step: Array) -> Array:
        """Three keys of a step of a seed: of the views, of the order, of the plan. The same under every rule."""
        return jax.random.split(jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 2), step), 3)

    def augment_views(self, key: Array, x: Array) -> Array:
        """The images of a minibatch as the network takes them in training."""
        if self.mesh is not None:
            x = jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, PartitionSpec(POINTS)))
        x = self.normalise(x)
        return augment(key, x) if self.augmented else x  # after normalising: the padding is the mean pixel

    def arrange(self, state: ImageState, key: Array) -> tuple[Array, ...]:
        """The order of each family in the next step."""
        return tuple(
            self.rule.arrange(coordinates, order, state.step, jax.random.fold_in(key, index))
            for index, (coordinates, order) in enumerate(zip(state.weights.coordinates, state.orders, strict=True))
        )

    def training_plans(self, coordinates: Any, orders: tuple[Array, ...], key: Array) -> tuple[Plan, ...]:
        """The plans of a training step."""
        places = self.architecture.places
        return tuple(
            self.rule.plan(*given, jax.random.fold_in(key, index))
            for index, given in enumerate(zip(coordinates, orders, places, strict=True))
        )

    def update(
        self,
        state: ImageState,
        orders: tuple[Array, ...],
        gradient: Weights,
        statistics: Any,
        loss: Array,
        wrong: Array,
    ) -> ImageState:
        """The state after a step that had this gradient."""
        weights, optimiser = self.descend(state.weights, state.optimiser, gradient)
        return ImageState(
            seed=state.seed,
            step=state.step + 1,
            weights=weights,
            optimiser=optimiser,
            statistics=statistics,
            orders=orders,
            tally=self._add_to_tally(state, loss, wrong, orders),
        )

    def normalise(self, x: Array) -> Array:
        """Bytes as the network takes them."""
        return normalise(x, self.mean, self.std, jnp.dtype(self.dtype))

    def descend(self, weights: Weights, optimiser: Any, gradient: Weights) -> tuple[Weights, Any]:
        """Weights and the optimiser's state one step further."""
        updates, optimiser = self.transformation.update(_groups(gradient), optimiser, _groups(weights))
        after: Any = optax.apply_updates(_groups(weights), updates)
        return Weights(**after), optimiser

    def _add_to_tally(self, state: ImageState, value: Array, wrong: Array, orders: tuple[Array, ...]) -> Tally:
        """The sums of the epoch; its first step begins them anew."""
        first = state.step % self.per_epoch == 0
        old = jax.tree.map(lambda total: jnp.where(first, jnp.zeros_like(total), total), state.tally)
        occupancy, swaps = old.occupancy, old.swaps
        if self.rule.reorders:
            occupancy = tuple(count_places(seen, order) for seen, order in zip(occupancy, orders, strict=True))
            swaps = tuple(
                total + kendall(before, after) for total, before, after in zip(swaps, state.orders, orders, strict=True)
            )
        return Tally(old.steps + 1, old.loss + value, old.wrong + wrong, swaps, occupancy)

    def evaluation_plans(self, coordinates: Any, orders: tuple[Array, ...]) -> tuple[Plan, ...]:
        """The plans of evaluation, of one seed."""
        return tuple(
            self.rule.plan(own, self.rule.evaluation_order(own, order), place)
            for own, order, place in zip(coordinates, orders, self.architecture.places, strict=True)
        )


def _groups(weights: Weights) -> dict[str, Any]:
    """The parameter groups of the optimiser."""
    return {"network": weights.network, "coordinates": weights.coordinates}


@eqx.filter_jit
def _networks(
    seeds: Array, architecture: Architecture, channels: int, classes: int, norm: str
) -> tuple[ImageResNet, Any]:
    """The network and the statistics of each seed at the start."""

    def of_seed(seed: Array) -> tuple[ImageResNet, Any]:
        key = jax.random.fold_in(jax.random.key(seed), 0)
        network = ImageResNet.create(key, architecture, inputs=channels, classes=classes, norm_name=norm)
        return network, network.start()

    return jax.vmap(of_seed)(seeds)


def cross_entropy(logits: Array, y: Array, smoothing: float = 0.0) -> Array:
    """-sum_c q_c log softmax(logits)_c, q = 1 - s on the class plus s/C on all.

    >>> cross_entropy(jnp.zeros((1, 2)), jnp.array([0]), 0.1).round(4)
    Array([0.6931], dtype=float32)
    """
    logs = jax.nn.log_softmax(logits)
    right = jnp.take_along_axis(logs, y[:, None], -1)[:, 0]
    return -(1 - smoothing) * right - smoothing * jnp.mean(logs, -1) if smoothing else -right
