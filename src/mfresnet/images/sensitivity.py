"""What the blocks of a trained image network do: removed, swapped, on their own, and in the Gram matrix.

All functions take one seed of a state (`select_seed`) in evaluation mode; a block is named by (stage, index in its
family).
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..flow.losses import is_misclassified
from ..kernels import empirical_gram
from ..stats import explained_share
from .family import Plan
from .training import ImageState, ImageTrainer


def select_seed(state: ImageState, index: int) -> ImageState:
    """One seed of a state."""
    return jax.tree.map(lambda leaf: leaf[index], state)


def block_places(trainer: ImageTrainer) -> list[tuple[int, int]]:
    """(stage, place in the sweep) of every block of a family."""
    return [(stage, j) for stage, place in enumerate(trainer.architecture.places) for j in range(place.count)]


@eqx.filter_jit
def predict(network: Any, statistics: Any, plans: tuple[Plan, ...], x: Array) -> Array:
    """Logits in evaluation; one program for all plans of all rules."""
    return network(x, statistics, plans, False)[0]


def _vary(trainer: ImageTrainer, state: ImageState, x: Array, variants: list[tuple[Any, Any]]) -> np.ndarray:
    """Logits, shape (variants, n, classes), of (factors, orders) for each family: steps times factors, places read in
    other orders."""
    x, logits = trainer.normalise(x), []
    own = trainer.evaluation_plans(state.weights.coordinates, state.orders)
    for factors, orders in variants:
        plans = []
        for plan, keep, move in zip(own, factors, orders, strict=True):
            blocks = np.arange(len(plan.steps)) if plan.order is None else np.asarray(plan.order)
            mix = jnp.zeros_like(plan.steps) if plan.mix is None else plan.mix
            plans.append(Plan(plan.steps * keep, jnp.asarray(blocks[move], jnp.int32), mix))
        logits.append(np.asarray(predict(state.weights.network, state.statistics, tuple(plans), x)))
    return np.stack(logits)


def _keep_all(trainer: ImageTrainer) -> tuple[list[np.ndarray], list[np.ndarray]]:
    counts = [place.count for place in trainer.architecture.places]
    return [np.ones(n, np.float32) for n in counts], [np.arange(n) for n in counts]


def _errors(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.mean(is_misclassified(logits, y), axis=-1)


def removal(trainer: ImageTrainer, state: ImageState, x: Array, y: np.ndarray) -> dict[tuple[int, int], float]:
    """Error with one block left out (step 0) less the error of the whole network, for each (stage, place).

    Veit et al. 2016: in a residual network that is an ensemble of paths, no single block matters much.
    """
    variants = [_keep_all(trainer)]
    for stage, j in (blocks := block_places(trainer)):
        factors, orders = _keep_all(trainer)
        factors[stage][j] = 0
        variants.append((factors, orders))
    whole, *errors = _errors(_vary(trainer, state, x, variants), y)
    return {block: float(error - whole) for block, error in zip(blocks, errors, strict=True)}


def swaps(trainer: ImageTrainer, state: ImageState, x: Array, y: np.ndarray) -> dict[tuple[int, int], float]:
    """Error with the blocks at two neighbouring places swapped less that of the network, by (stage, first place)."""
    variants, pairs = [_keep_all(trainer)], []
    for stage, j in block_places(trainer):
        factors, orders = _keep_all(trainer)
        if j + 1 < len(orders[stage]):
            orders[stage][[j, j + 1]] = orders[stage][[j + 1, j]]
            variants.append((factors, orders))
            pairs.append((stage, j))
    whole, *errors = _errors(_vary(trainer, state, x, variants), y)
    return {pair: float(error - whole) for pair, error in zip(pairs, errors, strict=True)}


def first_order_share(trainer: ImageTrainer, state: ImageState, x: Array) -> float:
    """How much of f - f_0 is explained by paths through a single block of a family.

        1 - |f - f_0 - sum_i (f_i - f_0)|^2 / |f - f_0|^2

    f_0 leaves out every block of every family, f_i all but block i; the blocks that change the shape stay. 1 means an
    ensemble of shallow networks; NaN where there is no family.
    """
    ones, orders = _keep_all(trainer)
    none = [0 * factor for factor in ones]
    variants = [(ones, orders), (none, orders)]
    for stage, j in block_places(trainer):
        alone = [factor.copy() for factor in none]
        alone[stage][j] = 1
        variants.append((alone, orders))
    f, shallow, *single = _vary(trainer, state, x, variants).astype(np.float64)
    gap = f - shallow
    return explained_share(gap, sum((one - shallow for one in single), np.zeros_like(gap)))


def gram_shares(
    trainer: ImageTrainer, state: ImageState, x: Array, *, dtype: Any = np.float32
) -> dict[tuple[int, int] | str, float]:
    """Share of each block in the trace of the Gram matrix J J^T of the logits at x (`empirical_gram`).

    Blocks of a family by (stage, index of the block, not its place); "rest" is stem, the blocks that change the
    shape, and readout. Shares sum to 1. Batch normalisation is in evaluation mode. Keep x to some tens of images.
    """
    arrays, static = eqx.partition(state.weights.network, eqx.is_array)
    places = trainer.architecture.places
    names = {f"stage{stage}_block{i}": (stage, i) for stage, i in block_places(trainer)}
    blocks = {
        name: jax.tree.map(lambda leaf, i=i: leaf[i], arrays.stages[stage].family) for name, (stage, i) in names.items()
    }
    plans = trainer.evaluation_plans(state.weights.coordinates, state.orders)

    def logits(params: dict[str, Any], x: Array) -> Array:
        families: list[Any] = []
        for stage, place in enumerate(places):
            members = [params[f"stage{stage}_block{i}"] for i in range(place.count)]
            families.append(jax.tree.map(lambda *leaves: jnp.stack(leaves), *members) if members else None)
        whole = eqx.combine(_with_families(params["rest"], families), static)
        return whole(x, state.statistics, plans, False)[0]

    groups = {name: name for name in [*blocks, "rest"]}
    images = np.asarray(trainer.normalise(x).astype(jnp.float32))
    matrices = empirical_gram(
        logits, blocks | {"rest": _with_families(arrays, [None] * len(places))}, images, groups=groups, dtype=dtype
    )
    traces = {name: float(np.trace(matrix)) for name, matrix in matrices.items()}
    total = sum(traces.values())
    return {names.get(name, name): value / total for name, value in traces.items()}


def _with_families(network: Any, families: list[Any]) -> Any:
    """A network with these families in place of its own."""
    return eqx.tree_at(
        lambda network: [stage.family for stage in network.stages], network, families, is_leaf=lambda leaf: leaf is None
    )
