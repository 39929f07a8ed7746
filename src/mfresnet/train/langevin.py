"""The rule langevin of a configuration: its checks, and its schedule from pilot chains on the same points."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from ..bounds.checks import check_points
from ..certify.path_pilot import find_schedule
from ..config import Config
from ..errors import MfresnetError
from ..flow import Batch, LangevinRule, Loss
from ..flow.losses import loss_of
from ..flow.potential import GaussianPrior, PredictorPotential, labels
from ..flow.predictor import NetworkPredictor
from ..model import AbstractResNet, InitialScales

LANGEVIN = "langevin"
STEPS = 8000
BETA = 120.0  # only the sharpness of the surrogate: the sharper, the less the chain pays for margins
PILOT_SHARE, PILOT_LEAST, PILOTS = 4, 400, 2  # two pilot chains of a quarter of the steps, or so many
MAP_SHARE = 0.05  # of the training points, which the certificate leaves out, where the map of the inputs reads data


def default_alpha(inputs: int) -> float:
    """Scale of the residual branch, 40/d: on inputs of many dimensions the prior asks for smoother maps.

    >>> default_alpha(4)
    10.0
    """
    return 40.0 / inputs


def check_langevin(config: Config, task: str) -> None:
    """Refuse what the chain's start, moves or certificate do not allow.

    Raises:
        MfresnetError: naming the setting and its remedy.
    """
    model, train = config.model, config.train
    if task == "regression":
        raise MfresnetError("train.rule langevin trains on mistakes of classes, and this target is numeric: use data "
                            "with classes, or mfresnet.certify.path with a bounded loss.")  # fmt: skip
    wrong = {
        "model.antithetic": (model.antithetic, False, "the start must be independent draws"),
        "model.initial.law": (model.initial.law, "gaussian", "the density ratio is that to a Gaussian start"),
        "model.embedding": (
            model.embedding if model.embedding == "trained" else "fixed",
            "fixed",
            "no prior covers it",
        ),
        "train.freeze": (train.freeze if train.freeze == "head" else "none", "none", "freeze none or the encoder"),
        "train.batch_size": (
            None if train.kernel == "minibatch" else train.batch_size,
            None,
            "only train.kernel minibatch takes one",
        ),
        "train.loss": (
            "squared" if train.potential == "loss" else train.loss,
            "squared",
            "it lowers mean sigmoid(-y f) unless train.potential is loss",
        ),
        "train.encoder_rate": (train.encoder_rate, 1.0, "the schedule gives the step"),
        "train.head_rate": (train.head_rate, 1.0, "the schedule gives the step"),
        "train.precision": (train.precision, "float32", "chains run in float32, c is summed in twice its precision"),
    }
    for name, (value, allowed, why) in wrong.items():
        if value != allowed:
            raise MfresnetError(f"{name} = {value!r} does not go with train.rule langevin ({why}): leave it out.")
    if train.kernel == "minibatch" and train.batch_size is None:
        raise MfresnetError("train.kernel minibatch needs the points of a step: set train.batch_size.")
    stds = [name for name, value in config.model.initial.model_dump().items() if value == 0]
    if stds:
        raise MfresnetError(f"model.initial.{stds[0]} = 0 does not go with train.rule langevin: a prior has "
                            "positive standard deviations.")  # fmt: skip


def predictor_of(config: Config, model: AbstractResNet) -> NetworkPredictor:
    """The network as predictor; a frozen encoder stays where it is."""
    return NetworkPredictor(model, head_only=config.train.freeze == "encoder")


def potential_of(f: NetworkPredictor, prior: GaussianPrior, loss: str | Loss) -> PredictorPotential:
    """What the chain lowers, as a function of the standard coordinates."""
    return PredictorPotential(f, prior, jnp.asarray(1.0, jnp.float32), _pointwise(loss))


@lru_cache(maxsize=16)  # a potential is part of the compiled program by the identity of its surrogate
def _pointwise(loss: str | Loss) -> Any:
    """A loss of the trainer for each point, as `PredictorPotential` reads it."""
    if loss in ("sigmoid", "squared"):
        return loss
    mean = loss_of(loss)

    def surrogate(f: Array, y: Array) -> Array:
        f, y = (f[:, None], y[:, None]) if f.ndim == 1 else (f, jax.nn.one_hot(y, f.shape[1], dtype=f.dtype))
        return jax.vmap(lambda f, y: mean(f[None], y[None], jnp.ones(1, f.dtype)))(f, y)

    return surrogate


def points_of(data: Batch) -> tuple[Array, Array]:
    """The points as a potential reads them."""
    classes = data.y[:, 0] if data.y.shape[1] == 1 else jnp.argmax(data.y, axis=1)
    return data.x, jnp.asarray(labels(classes, len(data.x), data.y.shape, None))


def langevin_rule(
    config: Config,
    model: AbstractResNet,
    moved: Any,
    data: Batch,
    initial: InitialScales,
    key: Array,
    loss: str | Loss = "sigmoid",
) -> LangevinRule:
    """The rule with a schedule of ``config.train.steps`` steps, found by pilot chains on the training points.

    Args:
        moved: what the rule moves, None elsewhere.
        loss: what the chain lowers.
    """
    f = predictor_of(config, model)
    prior = f.prior(initial)
    n = check_points(len(data.x))
    k_pilot, k_chain = jax.random.split(key)
    train = config.train
    steps = train.steps or 1
    pilot = find_schedule(
        potential_of(f, prior, loss), points_of(data), prior.size, n, k_pilot, length=max(steps, 2),
        pilot_length=max(PILOT_LEAST, steps // PILOT_SHARE), chains=PILOTS, delta=config.certify.delta,
        kernel=train.kernel, batch=min(train.batch_size or 0, n), leaps=train.leaps, final=train.gamma,
    )  # fmt: skip
    std = jax.tree.map(lambda _: None, moved)
    for name, part in prior.std.items():
        std = eqx.tree_at(lambda m, name=name: getattr(m, name), std, part, is_leaf=lambda leaf: leaf is None)
    others = None
    if train.chains > 1:  # the key of the first chain does not depend on their number
        others = jax.random.key_data(jax.random.split(jax.random.fold_in(key, 2), train.chains - 1))
    return LangevinRule(
        jnp.asarray(pilot.schedule.gammas), jnp.asarray(pilot.schedule.steps), std, jax.random.key_data(k_chain),
        others, train.leaps, train.kernel,
    )  # fmt: skip
