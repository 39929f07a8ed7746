"""The configuration with everything filled in that depends on the data or on another value."""

from __future__ import annotations

from typing import TypeVar

from ..config import Config
from ..data import Split
from ..errors import MfresnetError
from ..flow import solver_of
from ..model import activation
from ..model.own import TWO_LAYER, particle
from ..model.smoothness import check_smooth
from . import langevin
from .langevin import LANGEVIN, check_langevin
from .objects import Objects

ALPHA, BETA = 10.0, 20.0
RATES = {"sgd": 0.5, "momentum": 0.05}
Value = TypeVar("Value")


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
    state = m.state_dimension(inputs)
    kinds = [(m.particle, state)] + ([(m.head_particle, outputs)] if m.head else [])
    own = [(particle(name, state, made), made) for name, made in kinds if name != TWO_LAYER]
    smooth = all(kind.smooth for kind, _ in own) and (
        len(own) == len(kinds) or activation(m.activation).second is not None
    )
    if smooth and config.train.probes + config.train.head_probes > 0:
        for kind, size in own:
            kind.check(state, size)
            check_smooth(kind, state, size)
    return smooth
