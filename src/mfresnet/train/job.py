"""From a configuration and data to everything a run needs: model, trainer, first state, batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax import Array

from ..bounds.checks import check_points
from ..config import Config
from ..data import Split, load
from ..errors import MfresnetError
from ..flow import Batch, Loss, OptaxRule, Options, Rule, Trainer, TrainState, batch_of
from ..model import AbstractResNet, InitialScales, scaling, trainable
from .defaults import map_share, resolve_config, resolved
from .langevin import LANGEVIN, langevin_rule
from .memory import check_memory, recomputes
from .objects import Objects
from .schedule import kept_steps
from .start import create_model, initial_scales, keys, model_arguments, model_shapes, probe_counts

BATCHES = 3  # number of the stream of a chain's mini-batches


@dataclass(frozen=True)
class Job:
    """A run ready to start: the resolved configuration, data on the device, and the first state."""

    config: Config
    split: Split
    trainer: Trainer
    state: TrainState
    train: Batch
    test: Batch
    key: Array
    unit: float  # length of one unit of training time
    loss: str | Loss  # whose values are recorded
    initial: InitialScales  # of the starting laws
    steps: int  # of the whole run
    every: int  # steps between two rows of metrics
    kept: tuple[int, ...]  # steps whose states are kept, in order: the first is 0

    @property
    def rate(self) -> float:
        """Learning rate of an optimiser; a flow has none."""
        return resolved(self.config.train.learning_rate)


@contextmanager
def precision(config: Config) -> Iterator[None]:
    """64-bit numbers inside, where the configuration asks for them."""
    with jax.enable_x64(config.train.precision == "float64"):
        yield


def load_split(config: Config) -> Split:
    """The data of a configuration."""
    return load(config.data, config.seed, map_share=map_share(config))


def build_rule(config: Config, unit: float, objects: Objects | None = None) -> Rule:
    """The rule of a resolved configuration; ``unit`` is the length of one unit of training time."""
    t = config.train
    if t.rule == LANGEVIN:
        raise MfresnetError("train.rule langevin needs the data for its schedule: train it alone, with mfresnet.fit.")
    rule = (objects or Objects()).rule_in(config, unit)
    if rule.adaptive and t.batch_size is not None:
        raise MfresnetError(
            f"train.batch_size = {t.batch_size} goes with fixed steps only: the solver {t.solver!r} needs the field "
            "of all points, so set --train.solver heun or euler."
        )
    return rule


def build_trainer(
    config: Config, model: AbstractResNet, n: int, rule: Rule | None = None, objects: Objects | None = None
) -> tuple[Trainer, float]:
    """The trainer of a resolved configuration, and the length of one unit of training time.

    Args:
        rule: instead of the one that `build_rule` makes.
        objects: in place of names.
    """
    t = config.train
    _check_fit(config, n)
    unit = scaling.time_unit(t.time_unit, n, float(model.beta))
    options = Options(
        loss=lowered_loss(config, objects),
        recompute=recomputes(config, model.state, t.batch_size or n),
        compute="bfloat16" if t.precision == "bfloat16" else None,
        rates=(t.encoder_rate, t.head_rate),
    )
    trained = moving(config, model)
    rule = rule or build_rule(config, unit, objects)
    if isinstance(rule, OptaxRule):
        check_rule(t.rule, rule, eqx.filter(model, trained))
    return Trainer(rule, trained, options, t.batch_size), unit


def _check_fit(config: Config, n: int) -> None:
    """Refuse a batch larger than the data, and what freezes nothing or everything."""
    m, t = config.model, config.train
    if t.batch_size is not None and t.batch_size > n:
        raise MfresnetError(
            f"train.batch_size = {t.batch_size} is larger than the {n} training points: give a value <= {n}."
        )
    if m.head is False and t.freeze == "head":
        raise MfresnetError("train.freeze = 'head' has no effect: this network has no head (model.head false).")
    if m.head is False and t.freeze == "encoder" and m.embedding != "trained":
        raise MfresnetError("train.freeze = 'encoder' leaves nothing to train: this network has no head.")


def lowered_loss(config: Config, objects: Objects | None = None) -> str | Loss:
    """What training lowers, and what is recorded."""
    if config.train.rule == LANGEVIN and config.train.potential == "bounded":
        return "sigmoid"
    return (objects and objects.loss) or config.train.loss


def moving(config: Config, model: AbstractResNet) -> AbstractResNet:
    """Tree of booleans: what training moves."""
    trained = trainable(model, freeze=config.train.freeze, embedding=config.model.embedding == "trained")
    if config.train.rule == LANGEVIN and config.model.kind == "continuous":
        trained = eqx.tree_at(attrgetter("t"), trained, False)  # places have no Gaussian start
    return trained


def check_rule(name: str, rule: OptaxRule, moved: AbstractResNet) -> None:
    """Refuse an Optax optimiser that wants more than gradients, such as a line search."""
    try:
        jax.eval_shape(lambda moved: rule.transformation.update(moved, rule.begin(moved), moved), moved)
    except TypeError as error:  # a missing argument, such as the loss; any other mistake shows itself
        raise MfresnetError(
            f"train.rule = {name!r} needs more than gradients: choose another, such as optax:adamw."
        ) from error


def check_settings(config: Config, n: int, inputs: int, outputs: int) -> None:
    """Refuse settings of a resolved configuration that `assemble` would refuse, without computing anything.

    Memory is not looked at: a predicted cost names it. Call it in the run's precision.

    Raises:
        MfresnetError: naming the setting.
    """
    model = model_shapes(config, inputs, outputs)
    if config.train.rule == LANGEVIN:  # the rule itself needs the data
        check_points(n)
        _check_fit(config, n)
    else:
        build_trainer(config, model, n)


# Compiled whole, and once for all runs that differ only in the seed: drawn one array at a time, the start would cost
# seconds of small compilations.
_create_model = eqx.filter_jit(create_model)


@eqx.filter_jit
def _begin(
    trainer: Trainer, model: AbstractResNet, key: Array, n: int, probes: tuple[int, int], initial: InitialScales
) -> TrainState:
    return trainer.begin(model, key, n, probes=probes, initial=initial)


def assemble(config: Config, split: Split, objects: Objects | None = None) -> Job:
    """Everything of a run, from the configuration and its data. Call it in the run's precision.

    Args:
        objects: in place of names in the section ``train``.

    Raises:
        MfresnetError: settings that contradict each other or the data, or do not fit into memory.
    """
    train, test = split.train, split.test
    objects = objects or Objects()
    config = resolve_config(config, split, objects)
    (n, inputs), outputs = train.x.shape, train.y.shape[1]
    check_memory(config, inputs, outputs, n)
    dtype = "float64" if config.train.precision == "float64" else "float32"
    k_model, k_probes, k_batches = keys(config.seed)
    model = _create_model(k_model, *model_arguments(config, inputs, outputs))
    rule, data, initial = None, batch_of(train.x, train.y, dtype), initial_scales(config)
    if config.train.rule == LANGEVIN:
        moved = eqx.filter(model, moving(config, model))
        loss = lowered_loss(config, objects)
        rule = langevin_rule(config, model, moved, data, initial, k_batches, loss)
        k_batches = jax.random.fold_in(k_batches, BATCHES)  # the chain's own numbers come from the key as it was
    trainer, unit = build_trainer(config, model, n, rule, objects)
    state = _begin(trainer, model, k_probes, n, probe_counts(config), initial)
    steps, every = resolved(config.train.steps), resolved(config.record.metrics_every)
    return Job(
        config=config,
        split=split,
        trainer=trainer,
        state=state,
        train=data,
        test=batch_of(test.x, test.y, dtype),
        key=k_batches,
        unit=unit,
        loss=trainer.options.loss,
        initial=initial,
        steps=steps,
        every=every,
        kept=kept_steps(config),
    )


def data_facts(split: Split) -> dict[str, Any]:
    """What ``config.json`` says of the data."""
    train = split.train
    content = hashlib.sha256(b"".join(array.tobytes() for array in data_arrays(split).values()))
    return {
        "name": train.name,
        "n": len(train.x),
        "n_test": len(split.test.x),
        "inputs": train.x.shape[1],
        "outputs": train.y.shape[1],
        "task": train.task,
        "classes": [str(c) for c in train.classes],
        "transform": split.transform.describe(),
        "map": {"encoding": split.encoding and split.encoding.to_dict(), "transform": split.transform.to_dict()},
        "notes": list(split.notes),
        "sha256": content.hexdigest(),
    }


def data_arrays(split: Split) -> dict[str, np.ndarray]:
    """What ``arrays/data.safetensors`` holds."""
    return {
        "x_train": split.train.x,
        "y_train": split.train.y,
        "x_test": split.test.x,
        "y_test": split.test.y,
    }
