"""Many trainings as one compiled program.

Trainings of one `Program` are stacked: their arrays (particles, data, learning rate, alpha, beta, step of the flow)
get a leading axis of cells, and one step is `vmap`ped over it. Fewer points than the bucket's are padded with weight 0.
Every cell starts from the same random numbers as the run of the same configuration and makes the same steps; the
numbers agree to rounding, that is, exactly up to the order of sums (the tests hold 1e-10 in float64 after 60 steps).
Chaotic dynamics enlarge that rounding over many steps, as they do between two machines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..config import Config
from ..data import Dataset, Split
from ..flow import Batch, Rule, Trainer, TrainState, evaluate, first_bad_step
from ..model import AbstractResNet, scaling
from ..train.defaults import resolve_config, resolved
from ..train.job import build_rule, build_trainer, precision
from ..train.memory import check_memory
from ..train.start import build_model, initial_scales, keys, model_shapes, probe_counts
from .batching import Program
from .experiment import Pulse

SEGMENT = 100  # steps between two looks at the losses; part of the compiled program


@dataclass(frozen=True)
class Training:
    """One training: a configuration and its data."""

    config: Config
    split: Split

    @classmethod
    def of(cls, config: Config, split: Split) -> Training:
        """The training of a configuration with its defaults filled in.

        Raises:
            MfresnetError: settings that do not fit the data, or do not fit into memory.
        """
        config, (n, inputs) = resolve_config(config, split), split.train.x.shape
        check_memory(config, inputs, split.train.y.shape[1], n)
        return cls(config, split)

    @property
    def program(self) -> Program:
        """What it shares with the trainings it can run with."""
        return Program.of(self.config, self.split)

    @property
    def n(self) -> int:
        """Training points."""
        return len(self.split.train.x)


@dataclass
class Outcome:
    """How one training ended.

    Args:
        status: "completed" or "diverged".
        step: steps made, or the step at which it diverged.
        scores: train.loss, train.error, test.loss, test.error at the end (absent where it diverged).
        start, end: the network before and after.
        seen: what ``look`` returned at each look.
    """

    status: str
    step: int
    scores: dict[str, float]
    start: AbstractResNet
    end: AbstractResNet
    seen: list[Any] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """Status and scores, flat."""
        bad = {"diverged.step": self.step} if self.status == "diverged" else {}
        return {"status": self.status, **bad, **self.scores}


def train_together(
    trainings: Sequence[Training],
    *,
    looks: int = 1,
    look: Callable[[TrainState], Any] | None = None,
    pulse: Pulse = lambda share: None,
) -> list[Outcome]:
    """Train all of them, which share one `Program`, in one compiled program.

    Args:
        looks: how often ``look`` sees the state of each training that has not diverged: at equal distances, and
            at the end.
        look: sees a state and returns what is kept in `Outcome.seen`.
        pulse: told the share of the steps that are done.

    >>> from mfresnet.data import load
    >>> config = Config(data={"n": 8, "n_test": 8}, train={"rule": "adam", "steps": 2})
    >>> together = [Training.of(config.model_copy(update={"seed": s}), load(config.data, s)) for s in (0, 1)]
    >>> [outcome.status for outcome in train_together(together)]
    ['completed', 'completed']
    """
    program = trainings[0].program
    assert all(training.program == program for training in trainings), "one program at a time"
    with precision(program.template):
        return _train(program, trainings, looks, look, pulse)


def _train(
    program: Program,
    trainings: Sequence[Training],
    looks: int,
    look: Callable[[TrainState], Any] | None,
    pulse: Pulse,
) -> list[Outcome]:
    steps = program.template.train.steps or 1
    trainers, states, random = _begin(program, trainings)
    largest = max(training.n for training in trainings)
    train = _pad_sets([training.split.train for training in trainings], largest, _dtype(program.template))
    start = states.model
    bad: list[int | None] = [None] * len(trainings)
    first = np.zeros(len(trainings))
    seen: list[list[Any]] = [[] for _ in trainings]
    ends = sorted({round(steps * (place + 1) / looks) for place in range(looks)})
    done = 0
    while done < steps:
        until = next(end for end in ends if end > done)
        count = min(SEGMENT, until - done)
        states, losses = _advance(trainers, states, train, random, jnp.asarray(count, jnp.int32), SEGMENT)
        losses = np.asarray(losses)[:, :count]
        first = losses[:, 0] if done == 0 else first
        for cell, first_bad in enumerate(first_bad_step(row, begun) for row, begun in zip(losses, first, strict=True)):
            if bad[cell] is None and first_bad is not None:
                bad[cell] = done + first_bad
        if any(step is not None for step in bad):
            trainers, states = _halt(trainers, states, start, np.array([step is not None for step in bad]))
        done += count
        if look is not None and done in ends:
            host = jax.device_get(eqx.filter(states, eqx.is_array))
            for cell in (cell for cell, step in enumerate(bad) if step is None):
                seen[cell].append(look(_cell(host, states, cell)))
        pulse(done / steps)
    starts, ended = (jax.device_get(eqx.filter(model, eqx.is_array)) for model in (start, states.model))
    outcomes = []
    padded = max(largest, *(len(training.split.test.x) for training in trainings))
    for cell, step in enumerate(bad):
        models = _cell(starts, start, cell), _cell(ended, states.model, cell)
        scores = _scores(models[1], trainings[cell], padded) if step is None else {}
        if scores and first_bad_step(np.array([scores["train.loss"]]), first[cell]) is not None:
            step, scores = steps, {}
        status = ("completed", steps) if step is None else ("diverged", step)
        outcomes.append(Outcome(*status, scores, *models, seen[cell]))
    return outcomes


def _begin(program: Program, trainings: Sequence[Training]) -> tuple[Trainer, TrainState, Array]:
    """Trainers, first states and batch keys of all cells, stacked."""
    template, dtype = program.template, _dtype(program.template)
    shapes = model_shapes(template, program.inputs, program.outputs)
    largest = max(training.n for training in trainings)
    common, _ = build_trainer(trainings[0].config, shapes, largest)

    def rule(config: Config, n: int) -> Any:
        beta = resolved(config.model.beta) if config.model.head else 1.0
        return build_rule(config, scaling.time_unit(config.train.time_unit, n, float(np.asarray(beta, dtype))))

    rules = [rule(training.config, training.n) for training in trainings]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rules)
    trainers = eqx.tree_at(lambda trainer: trainer.rule, common, stacked)
    models = [training.config.model for training in trainings]
    # one cell at a time: the random numbers are compiled once, whatever the number of cells and points
    starts = [
        _start(
            program,
            rule,
            common.trained,
            jnp.asarray(training.config.seed),
            jnp.asarray(resolved(m.alpha), dtype),
            jnp.asarray(resolved(m.beta), dtype),
        )
        for training, m, rule in zip(trainings, models, rules, strict=True)
    ]
    states, random = _stack([state for state, _ in starts]), jnp.stack([key for _, key in starts])
    return trainers, states, random


@eqx.filter_jit
def _start(
    program: Program, rule: Rule, trained: AbstractResNet, seed: Array, alpha: Array, beta: Array
) -> tuple[TrainState, Array]:
    """First state and batch key of one cell, from the random numbers of a run of the same configuration."""
    config = program.template
    k_model, k_probes, k_batches = keys(seed)
    model = build_model(config, k_model, program.inputs, program.outputs)
    model = eqx.tree_at(lambda m: m.alpha, model, alpha)
    if model.head is not None:
        model = eqx.tree_at(lambda m: m.beta, model, beta)
    trainer = Trainer(rule, trained, batch_size=config.train.batch_size)
    probes, initial = probe_counts(config), initial_scales(config)
    return trainer.begin(model, k_probes, program.n or 0, probes=probes, initial=initial), k_batches


@eqx.filter_jit
def _advance(
    trainers: Trainer, states: TrainState, data: Batch, random: Array, count: Array, most: int
) -> tuple[TrainState, Array]:
    def one(trainer: Trainer, state: TrainState, data: Batch, key: Array) -> tuple[TrainState, Array]:
        return trainer.advance(state, data, key, count, most)

    return eqx.filter_vmap(one, in_axes=(eqx.if_array(0), eqx.if_array(0), 0, 0))(trainers, states, data, random)


def _scores(model: AbstractResNet, training: Training, padded: int) -> dict[str, float]:
    """Losses and errors of one cell, both parts of the data padded to the same number of points: one program."""
    scores, loss = {}, training.config.train.loss
    for name in ("train", "test"):
        data = _pad_sets([getattr(training.split, name)], padded, _dtype(training.config))
        whole = jax.tree.map(lambda leaf: leaf[0], data)
        values = evaluate(model, whole, loss, training.split.train.task)
        scores |= {f"{name}.{what}": float(value) for what, value in zip(("loss", "error"), values, strict=True)}
    return scores


def _halt(trainers: Trainer, states: TrainState, start: AbstractResNet, bad: np.ndarray) -> tuple[Trainer, TrainState]:
    """Cells that diverged stand still at their start: the others wait for no solver that chases NaN."""

    def where(values: Any, instead: Any) -> Any:
        return jax.tree.map(
            lambda v, w: jnp.where(bad.reshape(-1, *[1] * (v.ndim - 1)), w, v) if eqx.is_array(v) else v,
            values,
            instead,
        )

    rule = where(trainers.rule, jax.tree.map(lambda v: 0 * v if eqx.is_array(v) else v, trainers.rule))
    trainers = eqx.tree_at(lambda trainer: trainer.rule, trainers, rule)
    return trainers, eqx.tree_at(lambda state: state.model, states, where(states.model, start))


def _stack(cells: Sequence[Any]) -> Any:
    """Trees of the same shape as one, their arrays with a leading axis of cells."""
    arrays = [eqx.filter(cell, eqx.is_array) for cell in cells]
    static = eqx.filter(cells[0], eqx.is_array, inverse=True)
    return eqx.combine(jax.tree.map(lambda *leaves: jnp.stack(leaves), *arrays), static)


def _pad_sets(sets: Sequence[Dataset], most: int, dtype: str) -> Batch:
    """Data sets as one batch with a leading axis, each padded with points of weight 0."""

    def pad(rows: np.ndarray) -> np.ndarray:
        return np.pad(rows, [(0, most - len(rows))] + [(0, 0)] * (rows.ndim - 1))

    columns = ([data.x for data in sets], [data.y for data in sets], [np.ones(len(data.x)) for data in sets])
    return Batch(*(jnp.asarray(np.stack([pad(rows) for rows in column]), dtype) for column in columns))


def _dtype(config: Config) -> str:
    return "float64" if config.train.precision == "float64" else "float32"


def _cell(host: Any, whole: Any, cell: int) -> Any:
    """One cell of a stacked tree that was fetched to the host."""
    static = eqx.filter(whole, eqx.is_array, inverse=True)
    return eqx.combine(jax.tree.map(lambda leaf: leaf[cell], host), static)
