"""From checked arrays to a trained network and back to plain arrays: what both estimators share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..config import Config, build
from ..data.transform import Transform
from ..errors import DivergedError
from ..flow import Batch, Ensemble, Options, Rule, Trainer, TrainState, batch_of, evaluate, predict
from ..kernels.precision import double_precision
from ..model import AbstractResNet, LayeredResNet, Particles, activation, scaling, trainable
from ..train.defaults import resolved
from ..train.job import build_rule
from ..train.langevin import LANGEVIN
from ..train.start import build_model
from .rows import Rows, fill_rows, weighted_moments

FLOW = "gradient-flow"
RATES = {FLOW: 0.5, "sgd": 0.5, "momentum": 0.05, "adam": 0.02}
STEPS, LANGEVIN_STEPS = 600, 4000  # at most, where max_iter is None
CHUNK = 50  # steps between two looks at the loss
BLOCKS = (64, 1024)  # rows of one prediction


@lru_cache(maxsize=64)
def _optimiser(name: str, rate: float, unit: float) -> Rule:
    """An Optax transformation is part of the compiled program by identity: the same settings give the same object."""
    return build_rule(Config.model_validate({"train": {"rule": name, "learning_rate": rate}}), unit)


@dataclass(frozen=True)
class Settings:
    """A validated configuration and how long training may take.

    Args:
        config: model and rule, as a run would read them.
        batch_size: rows of a mini-batch.
        steps: optimiser or flow steps at most.
        tol, patience: stop after ``patience`` looks without an improvement by ``tol`` (relative, of the loss).
        probes: (each layer, head) for the flow.
        verbose: print the loss at each look.
    """

    config: Config
    batch_size: int
    steps: int
    tol: float
    patience: int
    probes: tuple[int, int]
    verbose: bool


def settings_of(params: dict[str, Any], loss: str) -> Settings:
    """The settings of an estimator's parameters.

    Raises:
        MfresnetError: a value out of range, with its name in the configuration (``model.depth``).
    """
    names = ("depth", "width", "head_width", "alpha", "beta", "activation")
    rule, steps = params["rule"], params["max_iter"]
    rate = params["learning_rate"]
    train: dict[str, Any] = {"rule": rule, "loss": loss, "steps": steps, "batch_size": params["batch_size"]}
    if rule == FLOW:
        train |= {"solver": "euler", "probes": params["probes"], "head_probes": params["head_probes"]}
    # checked as the optimisers' rate, also where it is the flow's step
    train["learning_rate"] = RATES.get(rule, 0.01) if rate is None else rate
    config = build({"model": {name: params[name] for name in names}, "train": train})
    smooth = activation(config.model.activation).second is not None
    return Settings(
        config=config,
        batch_size=config.train.batch_size or 2**31,
        steps=config.train.steps or (LANGEVIN_STEPS if rule == LANGEVIN else STEPS),
        tol=float(params["tol"]),
        patience=int(params["n_iter_no_change"]),
        probes=(config.train.probes, config.train.head_probes) if rule == FLOW and smooth else (0, 0),
        verbose=bool(params["verbose"]),
    )


def rule_of(config: Config) -> Rule:
    """The rule; rates of the flow, of sgd and of momentum are steps of training time in units of 1/beta^2."""
    train, unit = config.train, scaling.time_unit("1/beta2", 1, resolved(config.model.beta))
    rate = train.learning_rate
    assert rate is not None, "settings_of fills it in"
    if train.rule == FLOW:
        step = {"rule": FLOW, "solver": "euler", "time": rate, "steps": 1}
        return build_rule(Config.model_validate({"train": step}), unit)
    return _optimiser(train.rule, rate, unit)


def start(settings: Settings, seed: int, inputs: int, outputs: int) -> AbstractResNet:
    """The network before training."""
    return build_model(settings.config, jax.random.key(seed), inputs, outputs)


def trainer_of(settings: Settings, model: AbstractResNet, n: int) -> Trainer:
    """The trainer for ``n`` rows, a power of two; mini-batches only where there are more rows than one holds."""
    size = settings.batch_size if settings.batch_size < n else None
    return Trainer(rule_of(settings.config), trainable(model), Options(loss=settings.config.train.loss), size)


@dataclass
class Trained:
    """What training leaves behind, on the device."""

    model: AbstractResNet
    memory: Any
    ensemble: Ensemble | None
    losses: list[float]
    steps: int
    stopped: bool


def train(
    settings: Settings,
    model: AbstractResNet,
    rows: Rows,
    seed: int,
    *,
    held_out: Rows | None = None,
    task: str = "regression",
    memory: list[np.ndarray] | None = None,
    done: int = 0,
    steps: int | None = None,
) -> Trained:
    """Train for ``steps`` (default: the settings'), or until the loss stops to fall.

    Args:
        rows: merged rows, inputs on the sphere.
        held_out: rows whose error decides when to stop and which network to keep.
        memory, done: what the optimiser remembers and the steps made before, to continue.

    Raises:
        DivergedError: the loss is no finite number.
    """
    full = fill_rows(rows)
    n, most = len(full.x), settings.steps if steps is None else steps
    trainer = trainer_of(settings, model, n)
    state = trainer.begin(model, jax.random.key(seed + 1), n, probes=(0, 0) if done else settings.probes)
    if memory is not None:
        leaves = [jnp.asarray(leaf) for leaf in memory]
        state = eqx.tree_at(lambda s: s.rule, state, jax.tree.unflatten(jax.tree.structure(state.rule), leaves))
    batch, check = _batch(full), None if held_out is None else _batch(fill_rows(held_out))
    key = jax.random.key(seed + 2)
    losses: list[float] = []
    best, kept, waited, taken, stopped = np.inf, state, 0, 0, False
    while taken < most:
        count = min(CHUNK, most - taken)
        state, values = trainer.advance(state, batch, jax.random.fold_in(key, done + taken), count, CHUNK)
        taken += count
        losses.append(float(np.mean(np.asarray(values)[:count])))
        if not np.isfinite(losses[-1]):
            rate = settings.config.train.learning_rate
            raise DivergedError(
                f"the training loss is not finite after {done + taken} steps: lower learning_rate (it is {rate:g}), "
                "alpha or beta."
            )
        score = losses[-1] if check is None else _score(state, check, settings.config.train.loss, task)
        if settings.verbose:
            print(f"step {done + taken}: loss {losses[-1]:.6g}" + ("" if check is None else f", held out {score:.6g}"))
        better = score < best - settings.tol * abs(best if np.isfinite(best) else 0.0)
        waited = 0 if better else waited + 1
        if score < best:
            best, kept = score, state
        if waited >= settings.patience:
            stopped = True
            break
    last: TrainState = state if check is None else kept
    return Trained(last.model, last.rule, last.ensemble, losses, taken, stopped)


def _batch(rows: Rows) -> Batch:
    # weights of mean 1: their size matters to nothing but rounding
    return batch_of(rows.x, rows.y, "float32", rows.weights / rows.weights.mean())


def _score(state: TrainState, check: Batch, loss: str, task: str) -> float:
    """Error on the held-out rows; ties between equal shares of mistakes go to the smaller loss."""
    value, error = (float(v) for v in evaluate(state.model, check, loss, task))
    return error + 1e-3 * value


def arrays_of(model: AbstractResNet) -> dict[str, np.ndarray]:
    """The particles as plain arrays."""
    parts = {"encoder": model.encoder, "head": model.head}
    return {
        f"{name}_{leaf}": np.asarray(getattr(part, leaf)) for name, part in parts.items() for leaf in ["out", "w", "b"]
    }


def model_of(arrays: dict[str, np.ndarray], params: dict[str, Any], dtype: str = "float32") -> AbstractResNet:
    """The network with these particles; call inside `double_precision` for float64."""
    encoder, head = (
        Particles(*(jnp.asarray(arrays[f"{name}_{leaf}"], dtype) for leaf in ("out", "w", "b")))
        for name in ("encoder", "head")
    )
    return LayeredResNet(
        encoder=encoder,
        head=head,
        embedding=None,
        alpha=jnp.asarray(params["alpha"], dtype),
        beta=jnp.asarray(params["beta"], dtype),
        sigma=activation(params["activation"]),
        depth=len(arrays["encoder_w"]),
    )


def outputs_of(arrays: dict[str, np.ndarray], params: dict[str, Any], x: np.ndarray) -> np.ndarray:
    """f(x_i) in float64, so that a row's prediction does not depend on the rows beside it; shape (n, C).

    >>> import jax
    >>> from mfresnet import LayeredResNet
    >>> model = LayeredResNet.create(jax.random.key(0), inputs=2, depth=3)
    >>> params = {"alpha": 1.0, "beta": 1.0, "activation": "tanh"}
    >>> outputs_of(arrays_of(model), params, np.ones((5, 2))).shape
    (5, 1)
    """
    n = len(x)
    length = BLOCKS[0] if n <= BLOCKS[0] else BLOCKS[1]
    outputs = []
    with double_precision():
        model = model_of(arrays, params, "float64")
        for begin in range(0, n, length):
            part = x[begin : begin + length]
            padded = np.pad(part, ((0, length - len(part)), (0, 0)))
            outputs.append(np.asarray(predict(model, jnp.asarray(padded, "float64")))[: len(part)])
    return np.concatenate(outputs)


def sphere_lift(x: np.ndarray, weights: np.ndarray, standardize: bool) -> Transform:
    """x -> (s, 1)/|(s, 1)| with s = (x - mean)/scale column by column (or s = x): lengths are kept in the angle.

    The scale is the standard deviation, or a quarter of the range where that is larger: a column that is constant
    but for a few rows would otherwise outweigh all others in these rows (measured on digits: 0.3 points).

    >>> sphere_lift(np.array([[0.0], [2.0]]), np.ones(2), True).apply(np.array([[1.0]])).tolist()
    [[0.0, 1.0]]
    """
    if not standardize:
        return Transform("lift", x.shape[1])
    mean, std = weighted_moments(x, weights)
    return Transform("lift", x.shape[1], mean, np.maximum(std, x.max(axis=0) / 4 - x.min(axis=0) / 4))
