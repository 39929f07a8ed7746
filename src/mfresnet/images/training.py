"""Training image networks by stochastic gradient descent: several seeds as one vmapped program.

The whole data set stays on the device as bytes. A step reads its minibatch by index from the epoch's permutation,
augments and normalises it there, and moves weights, coordinates of the block rule, and running statistics. Every
random number of step k of a seed is a function of (seed, k) alone, so a run that stops anywhere goes on to the bit,
and two rules with the same seed start from the same weights and see the same minibatches, augmented alike.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, Int, UInt8

from ..errors import MfresnetError
from .augment import augment, normalise
from .orders import kendall, visit
from .resnet import Architecture, ImageResNet
from .rules import Rule
from .schedules import schedule


class ImageData(eqx.Module):
    """Images as bytes and their labels, on the device."""

    x: UInt8[Array, "n height width channels"]
    y: Int[Array, " n"]

    def __len__(self) -> int:
        return self.y.shape[0]


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
    velocity: Weights
    statistics: Any
    orders: tuple[Array, ...]
    tally: Tally


def _number(value: Any) -> Array:
    return jnp.asarray(value, jnp.result_type(float))


class ImageTrainer(eqx.Module):
    """How an image network is trained.

    Momentum v <- mu v + g + decay w, w <- w - rate(step) v, with the gradient g of the mean cross-entropy of a
    minibatch (labels smoothed: (1 - s) on the class, s/C on all), clipped to a global norm where asked. Coordinates
    move by the rule's own multiple of the rate, without decay. The last, incomplete minibatch of an epoch is left out.

    Args:
        architecture, classes, norm: the network.
        rule: the block rule.
        mean, std: of the pixels in [0, 1], for each channel, of the training set.
        n, batch, epochs: training images, minibatch, length of training.
        augmented: random crops of the image padded by 4, and flips.
        dtype: number format of activations; parameters, momentum and statistics stay as they are.
        mesh: devices over which each minibatch is divided (axis "batch"); weights are kept on every one of them.
    """

    mean: Array
    std: Array
    architecture: Architecture = eqx.field(static=True)
    rule: Rule
    n: int = eqx.field(static=True)
    classes: int = eqx.field(static=True)
    channels: int = eqx.field(static=True, default=3)
    norm: str = eqx.field(static=True, default="batch")
    batch: int = eqx.field(static=True, default=128)
    epochs: int = eqx.field(static=True, default=160)
    rate: Array = eqx.field(converter=_number, default=0.1)  # data of the compiled program, as the next two are
    schedule: str = eqx.field(static=True, default="step")
    warmup: int = eqx.field(static=True, default=0)
    momentum: Array = eqx.field(converter=_number, default=0.9)
    decay: Array = eqx.field(converter=_number, default=1e-4)
    smoothing: float = eqx.field(static=True, default=0.0)
    clip: float | None = eqx.field(static=True, default=None)
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

    @eqx.filter_jit
    def begin(self, seeds: Any) -> ImageState:
        """The states of these seeds before the first step."""
        return jax.vmap(self._begin)(jnp.asarray(seeds, jnp.uint32))

    def _begin(self, seed: Array) -> ImageState:
        key = jax.random.fold_in(jax.random.key(seed), 0)
        network = ImageResNet.create(
            key, self.architecture, inputs=self.channels, classes=self.classes, norm_name=self.norm
        )
        places = self.architecture.places
        weights = Weights(network, tuple(self.rule.begin(place) for place in places))
        return ImageState(
            seed=seed,
            step=jnp.zeros((), jnp.int32),
            weights=weights,
            velocity=jax.tree.map(jnp.zeros_like, weights),
            statistics=network.start(),
            orders=tuple(jnp.arange(place.count, dtype=jnp.int32) for place in places),
            tally=Tally(
                *(jnp.zeros(()) for _ in range(3)),
                swaps=tuple(jnp.zeros((), jnp.int32) for _ in places),
                occupancy=tuple(jnp.zeros((place.count, place.count)) for place in places),
            ),
        )

    def advance(self, state: ImageState, data: ImageData, count: int) -> ImageState:
        """``count`` steps further, within one epoch; the given state is used up.

        The count is data of the compiled program: any count runs the same one.
        """
        return _advance((self, data, jnp.asarray(count, jnp.int32)), state)

    def step(self, state: ImageState, rows: Array, data: ImageData) -> ImageState:
        """One step of one seed on the minibatch of these rows."""
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(state.seed), 2), state.step)
        k_augment, k_arrange, k_plan = jax.random.split(key, 3)
        x, y = data.x[rows], data.y[rows]
        if self.mesh is not None:
            divided = NamedSharding(self.mesh, PartitionSpec("batch"))
            x, y = jax.lax.with_sharding_constraint((x, y), divided)
        x = self.prepared(x)
        x = augment(k_augment, x) if self.augmented else x  # after normalising: the padding is the mean pixel
        places = self.architecture.places
        orders = tuple(
            self.rule.arrange(coordinates, order, state.step, jax.random.fold_in(k_arrange, index))
            for index, (coordinates, order) in enumerate(zip(state.weights.coordinates, state.orders, strict=True))
        )

        def loss(weights: Weights) -> tuple[Array, Any]:
            plans = tuple(
                self.rule.plan(*given, jax.random.fold_in(k_plan, index))
                for index, given in enumerate(zip(weights.coordinates, orders, places, strict=True))
            )
            logits, statistics = weights.network(x, state.statistics, plans, True)
            wrong = jnp.sum(jnp.argmax(logits, -1) != y, dtype=jnp.float32)
            return jnp.mean(cross_entropy(logits, y, self.smoothing)), (statistics, wrong)

        (value, (statistics, wrong)), gradient = eqx.filter_value_and_grad(loss, has_aux=True)(state.weights)
        weights, velocity = self.moved(state.weights, state.velocity, gradient, state.step)
        return ImageState(
            seed=state.seed,
            step=state.step + 1,
            weights=weights,
            velocity=velocity,
            statistics=statistics,
            orders=orders,
            tally=self._tallied(state, value, wrong, orders),
        )

    def prepared(self, x: Array) -> Array:
        """Bytes as the network takes them."""
        return normalise(x, self.mean, self.std, jnp.dtype(self.dtype))

    def moved(self, weights: Weights, velocity: Weights, gradient: Weights, step: Array) -> tuple[Weights, Weights]:
        """Weights and momentum one step further."""
        if self.clip is not None:
            factor = jnp.minimum(1.0, self.clip / jnp.maximum(optax.tree.norm(gradient), 1e-12))
            gradient = jax.tree.map(lambda g: g * factor, gradient)
        rate = schedule(self.schedule, self.rate, self.steps, self.warmup * self.per_epoch)(step)
        network = jax.tree.map(
            lambda v, g, w: self.momentum * v + g + self.decay * w, velocity.network, gradient.network, weights.network
        )
        own = jax.tree.map(lambda v, g: self.momentum * v + g, velocity.coordinates, gradient.coordinates)
        settled = [
            self.rule.settle(
                {name: value - self.rule.rate * rate * speed[name] for name, value in old.items()}, speed, place
            )
            for old, speed, place in zip(weights.coordinates, own, self.architecture.places, strict=True)
        ]
        after = Weights(
            jax.tree.map(lambda w, v: w - rate * v, weights.network, network), tuple(pair[0] for pair in settled)
        )
        return after, Weights(network, tuple(pair[1] for pair in settled))

    def _tallied(self, state: ImageState, value: Array, wrong: Array, orders: tuple[Array, ...]) -> Tally:
        """The sums of the epoch; its first step begins them anew."""
        first = state.step % self.per_epoch == 0
        old = jax.tree.map(lambda total: jnp.where(first, jnp.zeros_like(total), total), state.tally)
        occupancy, swaps = old.occupancy, old.swaps
        if self.rule.moves:
            occupancy = tuple(visit(seen, order) for seen, order in zip(occupancy, orders, strict=True))
            swaps = tuple(
                total + kendall(before, after) for total, before, after in zip(swaps, state.orders, orders, strict=True)
            )
        return Tally(old.steps + 1, old.loss + value, old.wrong + wrong, swaps, occupancy)

    def plans(self, weights: Weights, orders: tuple[Array, ...]) -> tuple[Any, ...]:
        """The plans of evaluation, of one seed."""
        return tuple(
            self.rule.plan(coordinates, self.rule.settled(coordinates, order), place)
            for coordinates, order, place in zip(weights.coordinates, orders, self.architecture.places, strict=True)
        )

    def logits(self, state: ImageState, x: Array) -> Array:
        """Logits of images as bytes in evaluation, of one seed (a state without the axis of seeds)."""
        plans = self.plans(state.weights, state.orders)
        return state.weights.network(self.prepared(x), state.statistics, plans, False)[0]

    @eqx.filter_jit
    def evaluate(self, state: ImageState, data: ImageData, batch: int = 500) -> tuple[Array, Array]:
        """Mean cross-entropy (without smoothing) and share of wrong classes in evaluation, each of shape (seeds,)."""
        n = len(data)
        batch = min(batch, n)
        rows = jnp.arange(-(-n // batch) * batch).reshape(-1, batch)

        def of_seed(state: ImageState) -> tuple[Array, Array]:
            def add(total: tuple[Array, Array], rows: Array) -> tuple[tuple[Array, Array], None]:
                real, rows = rows < n, jnp.minimum(rows, n - 1)
                x, y = data.x[rows], data.y[rows]
                logits = self.logits(state, x)
                loss = jnp.sum(jnp.where(real, cross_entropy(logits, y), 0))
                wrong = jnp.sum(real & (jnp.argmax(logits, -1) != y))
                return (total[0] + loss, total[1] + wrong), None

            (loss, wrong), _ = jax.lax.scan(add, (jnp.zeros(()), jnp.zeros((), jnp.int32)), rows)
            return loss / n, wrong / n

        return jax.vmap(of_seed)(state)


@eqx.filter_jit(donate="all-except-first")
def _advance(given: tuple[ImageTrainer, ImageData, Array], state: ImageState) -> ImageState:
    trainer, data, count = given
    epoch = state.step[0] // trainer.per_epoch

    def shuffle(seed: Array) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), epoch)
        return jax.random.permutation(key, trainer.n)

    order = jax.vmap(shuffle)(state.seed)

    def body(_: Array, state: ImageState) -> ImageState:
        place = state.step[0] % trainer.per_epoch
        rows = jax.lax.dynamic_slice_in_dim(order, place * trainer.batch, trainer.batch, axis=1)
        return jax.vmap(trainer.step, (0, 0, None))(state, rows, data)

    return jax.lax.fori_loop(0, count, body, state)


def cross_entropy(logits: Array, y: Array, smoothing: float = 0.0) -> Array:
    """-sum_c q_c log softmax(logits)_c, q = 1 - s on the class plus s/C on all.

    >>> cross_entropy(jnp.zeros((1, 2)), jnp.array([0]), 0.1).round(4)
    Array([0.6931], dtype=float32)
    """
    logs = jax.nn.log_softmax(logits)
    right = jnp.take_along_axis(logs, y[:, None], -1)[:, 0]
    return -(1 - smoothing) * right - smoothing * jnp.mean(logs, -1) if smoothing else -right


def on_device(x: np.ndarray, y: np.ndarray) -> ImageData:
    """A set on the device."""
    return ImageData(jnp.asarray(x, jnp.uint8), jnp.asarray(y, jnp.int32))
