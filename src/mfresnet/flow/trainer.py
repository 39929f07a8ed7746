"""Training as a pure function: many steps in one compiled program."""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from ..model import AbstractResNet, InitialScales
from .field import Batch, Field, Options, Probes, field
from .layout import Layout
from .losses import Loss, error, loss_of
from .rules import Rule
from .state import Ensemble, TrainState


class Trainer(eqx.Module):
    """A rule, what it trains and how the field is taken: all that stays fixed during training.

    Args:
        rule: one step of training.
        trained: tree of booleans over the model (`mfresnet.model.trainable`).
        options: loss, recomputation and precision of the field.
        batch_size: points of a mini-batch, or None for all.
        layout: how points and particles lie on many devices, or None. Mini-batches are divided where their size can be.

    >>> import jax, numpy as np
    >>> from mfresnet.flow import Batch, flow
    >>> from mfresnet.model import AbstractResNet, trainable
    >>> from mfresnet import LayeredResNet
    >>> model = LayeredResNet.create(jax.random.key(0), inputs=2)
    >>> data = Batch(np.ones((4, 2), "f4"), np.ones((4, 1), "f4"), np.ones(4, "f4"))
    >>> trainer = Trainer(flow("euler", 0.1), trainable(model))
    >>> state, losses = trainer.advance(trainer.begin(model, jax.random.key(1), 4), data, jax.random.key(2), 5, 5)
    >>> bool(losses[-1] < losses[0])
    True
    """

    rule: Rule
    trained: AbstractResNet
    options: Options = Options()
    batch_size: int | None = eqx.field(static=True, default=None)
    layout: Layout | None = eqx.field(static=True, default=None)

    def begin(
        self,
        model: AbstractResNet,
        key: Array,
        n: int,
        *,
        probes: tuple[int, int] = (0, 0),
        initial: InitialScales | None = None,
    ) -> TrainState:
        """The state before the first step, with ``probes`` = (each layer, head) if the rule carries them."""
        ensemble = None
        if self.rule.carries_probes and max(probes) > 0:
            ensemble = Ensemble.create(key, model, encoder=probes[0], head=probes[1], initial=initial)
        return TrainState(
            model=model,
            ensemble=ensemble,
            rule=self.rule.begin(eqx.filter(model, self.trained)),
            step=jnp.asarray(0, jnp.int32),
            time=jnp.asarray(0.0, model.dtype),
            order=None if self.batch_size is None else jnp.arange(n, dtype=jnp.int32),
        )

    @partial(eqx.filter_jit, donate="none")
    def advance(
        self, state: TrainState, data: Batch, key: Array, count: int | Array, most: int
    ) -> tuple[TrainState, Float[Array, " most"]]:
        """``count`` <= ``most`` steps; only ``most`` is part of the compiled program.

        Returns:
            The new state, and the loss of the batch at each step (NaN past ``count``).
        """
        arrays, static = eqx.partition(state, eqx.is_array)

        def body(i: Array, carry: tuple) -> tuple:
            arrays, losses = carry
            state, loss = self.step(eqx.combine(arrays, static), data, key)
            if self.layout is not None:
                state = self.layout.held(state)
            return eqx.filter(state, eqx.is_array), losses.at[i].set(loss)

        losses = jnp.full(most, jnp.nan, data.y.dtype)
        arrays, losses = jax.lax.fori_loop(0, jnp.asarray(count, jnp.int32), body, (arrays, losses))
        return eqx.combine(arrays, static), losses

    def step(self, state: TrainState, data: Batch, key: Array) -> tuple[TrainState, Float[Array, ""]]:
        """One step, and the loss before it."""
        batch, order = self.batch(state, data, key)
        model, ensemble, rule_state, loss, passed = self.rule.step(
            state.model,
            state.ensemble,
            state.rule,
            lambda model, probes, curvature: self.field(model, batch, probes, curvature),
        )
        time = state.time + passed.astype(state.time.dtype)
        return TrainState(model, ensemble, rule_state, state.step + 1, time, order), loss

    def field(self, model: AbstractResNet, batch: Batch, probes: Probes | None, curvature: str) -> Field:
        """The field of a batch, each device taking its points where they are divided."""

        def of(batch: Batch) -> Field:
            return field(model, self.trained, batch, self.options, probes, curvature)

        return of(batch) if self.layout is None or not self._is_divided else self.layout.average(of, batch)

    @property
    def _is_divided(self) -> bool:
        """Whether the points of a step are divided among the devices."""
        return self.layout is not None and (self.batch_size is None or self.batch_size % self.layout.shares == 0)

    def batch(self, state: TrainState, data: Batch, key: Array) -> tuple[Batch, Int[Array, " n"] | None]:
        """The points of this step: every epoch visits whole batches in an order of its own."""
        if state.order is None or self.batch_size is None:
            return data, state.order
        n = state.order.shape[0]
        epoch, place = jnp.divmod(state.step, n // self.batch_size)
        order = jax.lax.cond(
            place == 0,
            lambda: jax.random.permutation(jax.random.fold_in(key, epoch), n).astype(jnp.int32),
            lambda: state.order,
        )
        chosen = jax.lax.dynamic_slice_in_dim(order, place * self.batch_size, self.batch_size)
        batch = jax.tree.map(lambda leaf: leaf[chosen], data)
        if self.layout is not None and self._is_divided:
            batch = jax.lax.with_sharding_constraint(batch, self.layout.points)
        return batch, order


@eqx.filter_jit
def predict(model: AbstractResNet, x: Float[Array, "n inputs"], block: int = 4096) -> Float[Array, "n outputs"]:
    """f(x_i) in blocks of points, so that the memory does not grow with n."""
    n = x.shape[0]
    if n <= block:
        return model(x)
    padded = jnp.pad(x, ((0, -n % block), (0, 0))).reshape(-1, block, x.shape[1])
    return jax.lax.map(model, padded).reshape(-1, model.read(model.embed(x[:1])).shape[-1])[:n]


@eqx.filter_jit
def evaluate(
    model: AbstractResNet, data: Batch, loss: str | Loss, task: str
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(loss, error) on a data set; see `mfresnet.flow.losses`."""
    f = predict(model, data.x)
    return loss_of(loss)(f, data.y, data.weights), error(f, data.y, data.weights, task)


def batch_of(x: np.ndarray, y: np.ndarray, dtype: str = "float32", weights: np.ndarray | None = None) -> Batch:
    """NumPy arrays as a batch in training precision, weights 1 by default."""
    weights = np.ones(len(x)) if weights is None else weights
    return Batch(*(jnp.asarray(v, dtype) for v in (x, y, weights)))
