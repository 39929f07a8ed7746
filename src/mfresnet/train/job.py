"""From a configuration and data to everything a run needs: model, trainer, first state, batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np
from jax import Array

from ..config import Config
from ..data import Split, load
from ..errors import MfresnetError
from ..flow import Batch, Loss, OptaxRule, Options, Rule, Trainer, TrainState, batch_of, solver_of
from ..model import AbstractResNet, ContinuousResNet, InitialScales, LayeredResNet, activation, scaling, trainable
from ..model.own import TWO_LAYER, particle
from ..model.smoothness import check_smooth
from . import langevin
from .langevin import LANGEVIN, check_langevin, langevin_rule
from .memory import check_memory, recomputes
from .objects import Objects
from .schedule import snapshot_steps

ALPHA, BETA = 10.0, 20.0
RATES = {"sgd": 0.5, "momentum": 0.05}
BATCHES = 3  # number of the stream of a chain's mini-batches

Value = TypeVar("Value")
Kind = type[LayeredResNet] | type[ContinuousResNet]


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


def map_share(config: Config) -> float:
    """Share of the training rows that fix the map of the inputs, where the section ``data`` names none."""
    return langevin.MAP_SHARE if config.train.rule == LANGEVIN else 1.0


def fill_defaults(config: Config, n: int, n_test: int, inputs: int) -> Config:
    """The configuration with every default that depends on another value filled in, but ``data.map_share``.

    Args:
        n, n_test, inputs: number of training points, test points and dimensions.
    """
    train, record, alpha, beta = config.train, config.record, config.model.alpha, config.model.beta
    flowing = train.rule == "gradient-flow"
    if (steps := train.steps) is None:  # a solver that is an object comes with its steps
        steps = solver_of(train.solver).steps if flowing else langevin.STEPS if train.rule == LANGEVIN else 1000
    if alpha is None:
        alpha = langevin.default_alpha(inputs) if train.rule == LANGEVIN else ALPHA
    if beta is None:
        beta = langevin.BETA if train.rule == LANGEVIN else BETA
    rate = train.learning_rate or (None if flowing else RATES.get(train.rule, 0.01))
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"n": n, "n_test": n_test}),
            "model": config.model.model_copy(update={"alpha": alpha, "beta": beta}),
            "train": train.model_copy(update={"steps": steps, "learning_rate": rate}),
            "record": record.model_copy(
                update={"metrics_every": min(record.metrics_every or max(1, steps // 100), steps)}
            ),
        }
    )


def resolved(value: Value | None) -> Value:
    """A setting without a fixed default, of a configuration in which `fill_defaults` has filled it in."""
    assert value is not None, "`fill_defaults` fills in every setting that a run reads"
    return value


def build_model(config: Config, key: Array, inputs: int, outputs: int) -> AbstractResNet:
    """The network at its start."""
    return create_model(key, *model_arguments(config, inputs, outputs))


def create_model(key: Array, kind: Kind, arguments: Mapping[str, Any]) -> AbstractResNet:
    """The network at its start, from what `model_arguments` says."""
    return kind.create(key, **arguments)


def model_arguments(config: Config, inputs: int, outputs: int) -> tuple[Kind, dict[str, Any]]:
    """The kind of network, and the arguments of its ``create`` beside the key."""
    m = config.model
    if m.embedding == "none" and m.embedding_dimension is not None:
        raise MfresnetError(
            f"model.embedding_dimension = {m.embedding_dimension} has no effect without an embedding: "
            "set model.embedding fixed or trained."
        )
    check_particles(config)
    state = inputs if m.embedding == "none" else (m.embedding_dimension or inputs)
    common: dict[str, Any] = {
        "inputs": inputs,
        "outputs": outputs,
        "head_width": m.head_width,
        "alpha": resolved(m.alpha),
        "beta": resolved(m.beta),
        "sigma": activation(m.activation),
        "particle": None if m.particle == TWO_LAYER else particle(m.particle, state, state),
        "head_particle": None if m.head_particle == TWO_LAYER else particle(m.head_particle, state, outputs),
        "bias": m.bias,
        "head": m.head,
        "embedding": None if m.embedding == "none" else (m.embedding_dimension or inputs),
        "initial": initial_scales(config),
        "dtype": "float64" if config.train.precision == "float64" else "float32",
    }
    if m.kind == "continuous":
        layered = {"shared": False, "scheme": "euler", "antithetic": False}
        layered |= {"particle": TWO_LAYER, "head_particle": TWO_LAYER}
        del common["particle"], common["head_particle"]
        for name, plain in layered.items():
            if getattr(m, name) != plain:
                raise MfresnetError(
                    f"model.{name} = {getattr(m, name)!r} has no meaning for a continuous model, whose particles lie "
                    "on one depth axis: leave it out, or set model.kind layered."
                )
        return ContinuousResNet, common | {"particles": m.depth * m.width}
    layers = {"depth": m.depth, "width": m.width, "shared": m.shared, "scheme": m.scheme, "antithetic": m.antithetic}
    return LayeredResNet, common | layers


def check_particles(config: Config) -> None:
    """Refuse settings of the two-layer particles where they have no meaning, because particles are of another kind.

    Raises:
        MfresnetError: naming the setting.
    """
    m = config.model
    scales = {"particle": ("u", "w", "b"), "head_particle": ("a", "head_w", "head_b")}
    for name, own in scales.items():
        kind = getattr(m, name)
        if kind == TWO_LAYER:
            continue
        if m.antithetic:
            raise MfresnetError(
                f"model.antithetic is for two-layer particles, not for {name} = {kind!r}: leave it out."
            )
        for scale in own:
            if getattr(m.initial, scale) != 1.0:
                raise MfresnetError(
                    f"model.initial.{scale} belongs to two-layer particles: give model.{name} = {kind!r} its standard "
                    "deviations in its Particle."
                )
    if not m.head and m.head_particle != TWO_LAYER:
        raise MfresnetError(f"model.head_particle = {m.head_particle!r} has no effect without a head: leave it out.")


def initial_scales(config: Config) -> InitialScales:
    """Standard deviations of the starting laws."""
    return InitialScales(**config.model.initial.model_dump())


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
    if t.batch_size is not None and t.batch_size > n:
        raise MfresnetError(
            f"train.batch_size = {t.batch_size} is larger than the {n} training points: give a value <= {n}."
        )
    if config.model.head is False and t.freeze == "head":
        raise MfresnetError("train.freeze = 'head' has no effect: this network has no head (model.head false).")
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
        kept=tuple(sorted(snapshot_steps(steps, every, config.record.snapshots))),
    )


def resolve_config(config: Config, split: Split, objects: Objects | None = None) -> Config:
    """The configuration with all that depends on the data or on another value filled in.

    Args:
        objects: in place of names in the section ``train``.

    Raises:
        MfresnetError: an unknown name, a loss that does not fit the target, or settings that do not fit the rule.
    """
    objects = objects or Objects()
    config = objects.name_in(config)
    objects.check(config)  # an unknown name is an error before anything is allocated
    if config.train.loss == "logistic" and split.train.task == "regression":
        raise MfresnetError("train.loss = 'logistic' needs classes, but the target is numeric: use squared.")
    (n, inputs), n_test = split.train.x.shape, len(split.test.x)
    config = fill_defaults(config, n, n_test, inputs)
    if config.train.rule == LANGEVIN:
        check_langevin(config, split.train.task)
    elif config.train.chains > 1:
        raise MfresnetError(
            f"train.chains = {config.train.chains} does not go with train.rule {config.train.rule}: set --train.rule "
            "langevin, or leave it out."
        )
    m = config.model
    no_ratio = m.kind == "continuous" or m.initial.law != "gaussian" or not _smooth(config, split)
    if config.train.rule == "gradient-flow" and no_ratio:
        # the flow itself needs neither layers, nor a Gaussian start, nor a second derivative: carry no probes
        config = config.model_copy(update={"train": config.train.model_copy(update={"probes": 0, "head_probes": 0})})
    return config


def _smooth(config: Config, split: Split) -> bool:
    """Whether the particles have second derivatives."""
    m, (inputs, outputs) = config.model, (split.train.x.shape[1], split.train.y.shape[1])
    state = inputs if m.embedding == "none" else (m.embedding_dimension or inputs)
    kinds = [(m.particle, state)] + ([(m.head_particle, outputs)] if m.head else [])
    own = [(particle(name, state, made), made) for name, made in kinds if name != TWO_LAYER]
    smooth = all(kind.smooth for kind, _ in own) and (
        len(own) == len(kinds) or activation(m.activation).second is not None
    )
    if smooth and config.train.probes + config.train.head_probes > 0:
        for kind, size in own:
            check_smooth(kind, state, size)
    return smooth


def keys(seed: int | Array) -> tuple[Array, Array, Array]:
    """The streams of a seed: of the start, of the probes, of the batches."""
    k_model, k_probes, k_batches = jax.random.split(jax.random.key(seed), 3)
    return k_model, k_probes, k_batches


def probe_counts(config: Config) -> tuple[int, int]:
    """Probe particles of each layer, and of the head."""
    return config.train.probes, config.train.head_probes


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
