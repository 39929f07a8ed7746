"""Does the best learning rate of a model of one's own carry over in depth or width, with `mfresnet.scaling` or without?

`coordinate_check` is the quicker look: how features, and what a few steps change in them, grow with the size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from .. import scaling
from ..errors import MfresnetError, calling
from ..scaling import Growth

FLAT = 0.25  # largest slope in log-log of a quantity that does not depend on the size


@dataclass(frozen=True)
class Task:
    """A model at its start, and what it is trained on.

    Args:
        params: any tree of floating-point arrays, drawn by fan-in.
        loss: loss(params) on the training data.
        features: features(params), the residual stream at the end, for a few points.
        groups: of `mfresnet.scaling.label`.
    """

    params: Any
    loss: Callable[[Any], Array]
    features: Callable[[Any], Array]
    groups: Mapping[str, str]


Factory = Callable[[int, int, int], Task]  # (depth, width, seed)


@dataclass(frozen=True)
class Coordinates:
    """Features against the size, see `coordinate_check`.

    Args:
        sizes: depths or widths.
        features: root mean square of the features at the start, for each size.
        updates: of their change after the steps.
        slopes: of both in log-log.
        stable: whether both slopes are below `FLAT` in absolute value.
    """

    sizes: tuple[int, ...]
    features: np.ndarray
    updates: np.ndarray
    slopes: tuple[float, float]
    stable: bool


@dataclass(frozen=True)
class TransferGrid:
    """Losses over sizes and rates, see `transfer`.

    Args:
        sizes, rates: of the grid.
        losses: geometric mean over seeds of the last loss, shape (sizes, rates); infinite where one diverged.
        best: index of the best rate of each size.
        steps_moved: grid steps between the largest and the smallest best rate.
    """

    sizes: tuple[int, ...]
    rates: tuple[float, ...]
    losses: np.ndarray
    best: tuple[int, ...]

    @property
    def steps_moved(self) -> int:
        return max(self.best) - min(self.best)

    @property
    def at_edge(self) -> bool:
        """Whether a best rate lies at an end of the grid, so that how far it moves is not known."""
        return any(place in (0, len(self.rates) - 1) for place in self.best)


def coordinate_check(
    factory: Factory,
    sizes: Sequence[int],
    rate: float,
    *,
    axis: str = "depth",
    other: int = 32,
    steps: int = 4,
    optimiser: str = "adam",
    scaled: bool = True,
    seed: int = 0,
) -> Coordinates:
    """How features at the start and their change after ``steps`` grow with depth (or width), and whether they do.

    Args:
        factory: (depth, width, seed) -> `Task`.
        sizes: values of the axis, the first being that at which ``rate`` is meant.
        axis: "depth" or "width"; ``other`` is the value of the other one.
        scaled: with the rules of `mfresnet.scaling`; without, the model as it is, at one rate.

    Raises:
        MfresnetError: a factory that ignores the size, or makes features that are not finite.
    """
    measured = [
        coordinates_of(task, growth, rate, steps=steps, optimiser=optimiser)
        for task, growth in _tasks(factory, sizes, axis, other, seed, scaled)
    ]
    features, updates = [pair[0] for pair in measured], [pair[1] for pair in measured]
    if not (np.isfinite(features).all() and np.isfinite(updates).all() and min(features + updates) > 0):
        raise MfresnetError(f"features or their updates are not finite, or 0, at rate {rate:g}: lower or raise it.")
    slopes = slope(sizes, features), slope(sizes, updates)
    stable = all(abs(one) < FLAT for one in slopes)
    return Coordinates(tuple(sizes), np.array(features), np.array(updates), slopes, stable)


def coordinates_of(
    task: Task, growth: Growth, rate: float, *, steps: int = 4, optimiser: str = "adam"
) -> tuple[float, float]:
    """Root mean square of the features at the start, and of their change after the steps."""
    labels = scaling.label(task.params, task.groups)
    start = scaling.initialise(task.params, labels, growth)
    end, _ = _train(task, start, labels, growth, optimiser, steps, jnp.asarray(rate))
    before, after = (np.asarray(task.features(one), np.float64) for one in (start, end))
    return float(np.sqrt(np.mean(before**2))), float(np.sqrt(np.mean((after - before) ** 2)))


def slope(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Of log values against log sizes, by least squares.

    >>> round(slope((2, 4, 8), (1.0, 2.0, 4.0)), 9)
    1.0
    """
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def transfer(
    factory: Factory,
    sizes: Sequence[int],
    rates: Sequence[float],
    *,
    axis: str = "depth",
    other: int = 32,
    steps: int = 100,
    optimiser: str = "adam",
    scaled: bool = True,
    seeds: int = 1,
) -> TransferGrid:
    """The best learning rate of each size: all rates of a size are trained as one program.

    Args:
        factory, sizes, axis, other, optimiser, scaled: as in `coordinate_check`.
        rates: in rising order.
        steps: of the optimiser, on all data.
        seeds: repetitions, which the factory sees as its seed.

    Raises:
        MfresnetError: a factory that ignores the size, or a size at which every rate diverges.
    """
    rates = tuple(sorted(rates))
    if len(rates) < 2 or rates[0] <= 0:
        raise MfresnetError(f"rates = {list(rates)} is no grid: give at least two learning rates > 0.")
    if steps < 1 or seeds < 1:
        raise MfresnetError(f"steps = {steps}, seeds = {seeds}: give values >= 1.")
    logs = np.zeros((len(sizes), len(rates)))
    for seed in range(seeds):
        for place, (task, growth) in enumerate(_tasks(factory, sizes, axis, other, seed, scaled)):
            losses = losses_of(task, growth, rates, steps=steps, optimiser=optimiser)
            logs[place] += np.log(np.maximum(losses, 1e-30)) / seeds
    for size, row in zip(sizes, logs, strict=True):
        if not np.isfinite(row).any():
            raise MfresnetError(f"no rate lowers the loss at {axis} {size}: give lower rates.")
    return TransferGrid(tuple(sizes), rates, np.exp(logs), tuple(int(np.argmin(row)) for row in logs))


def losses_of(task: Task, growth: Growth, rates: Sequence[float], *, steps: int, optimiser: str = "adam") -> np.ndarray:
    """The last training loss at each rate, as one program; infinite where it is not below that of the start."""
    labels = scaling.label(task.params, task.groups)
    start = scaling.initialise(task.params, labels, growth)
    train = partial(_train, task, start, labels, growth, optimiser, steps)
    losses = np.asarray(jax.jit(jax.vmap(lambda rate: train(rate)[1]))(jnp.asarray(rates)), np.float64)
    return np.where(np.isfinite(losses) & (losses < float(task.loss(start))), losses, np.inf)


def check_task(task: Task, name: str = "the factory") -> Task:
    """Refuse what cannot be trained: no `Task`, no tree of floating-point arrays, a loss that is no finite number,
    functions that fail, features that are no array.

    Raises:
        MfresnetError: see above.
    """
    if not isinstance(task, Task):
        raise MfresnetError(f"{name} made a {type(task).__name__}: return an mfresnet.experiments.own_transfer.Task.")
    if not jax.tree.leaves(task.params):
        raise MfresnetError(f"the parameters of {name} are an empty tree: give at least one array.")
    scaling.label(task.params, task.groups)
    with calling(f"the loss of {name}"):
        loss = jax.eval_shape(task.loss, task.params)
    with calling(f"features of {name}"):
        features = jax.eval_shape(task.features, task.params)
    if not jnp.issubdtype(getattr(features, "dtype", object), jnp.floating):
        raise MfresnetError(f"features of {name} are a {type(features).__name__}: return one floating-point array.")
    if getattr(loss, "shape", None) != () or not jnp.issubdtype(loss.dtype, jnp.floating):
        raise MfresnetError(f"the loss of {name} has shape {getattr(loss, 'shape', None)}: return one number.")
    if not bool(jnp.isfinite(task.loss(task.params))):
        raise MfresnetError(f"the loss of {name} is NaN or infinite at its start: check parameters and data.")
    with calling(f"the derivative of the loss of {name}", "write it with differentiable functions of jax.numpy"):
        slopes = jax.tree.leaves(jax.grad(task.loss)(task.params))
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in slopes):
        raise MfresnetError(
            f"the gradient of the loss of {name} is NaN or infinite at its start: avoid roots and quotients at 0, see "
            "jax.numpy.where."
        )
    return task


def task_of(factory: Factory, depth: int, width: int, seed: int, name: str = "the factory") -> Task:
    """What a factory makes of (depth, width, seed), see `check_task`."""
    with calling(f"{name}, called with ({depth}, {width}, {seed}),"):
        task = factory(depth, width, seed)
    return check_task(task, name)


def _tasks(
    factory: Factory, sizes: Sequence[int], axis: str, other: int, seed: int, scaled: bool
) -> list[tuple[Task, Growth]]:
    if axis not in ("depth", "width"):
        raise MfresnetError(f"axis = {axis!r} is not allowed: give depth or width.")
    if len(set(sizes)) < 2 or min(sizes) < 1:
        raise MfresnetError(f"{axis} has the values {list(sizes)}: give at least two different ones, from 1.")
    tasks = [
        task_of(factory, size, other, seed) if axis == "depth" else task_of(factory, other, size, seed)
        for size in sizes
    ]
    counts = [sum(leaf.size for leaf in jax.tree.leaves(task.params)) for task in tasks]
    if len(set(counts)) < len(set(sizes)):
        raise MfresnetError(
            f"the factory makes models of {counts} parameters at {axis} {list(sizes)}: it ignores its {axis}."
        )
    return [
        (task, Growth(**{axis: size / sizes[0]}) if scaled else Growth())
        for task, size in zip(tasks, sizes, strict=True)
    ]


def _train(
    task: Task, start: Any, labels: Any, growth: Growth, optimiser: str, steps: int, rate: Array
) -> tuple[Any, Array]:
    """Parameters after the steps, and the loss there."""
    make = {"adam": scaling.adam, "sgd": scaling.sgd}.get(optimiser)
    if make is None:
        raise MfresnetError(f"optimiser = {optimiser!r} is not allowed: give one of {', '.join(scaling.OPTIMISERS)}.")
    transformation = make(rate, labels, growth)

    def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
        params, memory = carry
        updates, memory = transformation.update(jax.grad(task.loss)(params), memory, params)
        return (optax.apply_updates(params, updates), memory), None

    (end, _), _ = jax.lax.scan(step, (start, transformation.init(start)), None, length=steps)
    return end, task.loss(end)
