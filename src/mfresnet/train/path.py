"""The path certificate of a network that the rule langevin trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..bounds import Certificate, held_out_certificate
from ..bounds.path import Which, path_bound, path_certificate
from ..certify import Certificates
from ..certify.data import Data
from ..certify.path_certificate import BACKWARD, acceptance_warning
from ..config import Config
from ..data import Dataset
from ..errors import MfresnetError
from ..flow import Batch, LangevinMemory, LangevinRule, TrainState, is_misclassified, predict
from ..flow.langevin import Chains, rounding
from ..model import AbstractResNet
from .job import Job
from .langevin import points_of, potential_of, predictor_of


def path_certificates(
    job: Job, state: TrainState, *, settings: int | None = None, delta: float | None = None
) -> Certificates:
    """What a network that the rule langevin trained is certified for: `path_of`, and by the test points.

    Args:
        settings, delta: instead of the configuration's.

    Raises:
        MfresnetError: fewer settings than the configuration's.
    """
    config = job.config.certify
    check_tried(job.config, settings)
    settings = config.settings if settings is None else settings
    delta = config.delta if delta is None else delta
    certificates = {"path": path_of(job, state, settings, delta)}
    if job.config.train.chains > 1:
        certificates |= {
            "path_mean": path_of(job, state, settings, delta, "mean"),
            "path_vote": path_of(job, state, settings, delta, "vote"),
        }
    certificates["held_out"] = held_out_of(job, state, delta)
    return Certificates(certificates)


def held_out_of(job: Job, state: TrainState, delta: float) -> Certificate:
    """The exact binomial bound from the test points, of the network as trained by any rule."""
    errors, test = int(count_mistakes(state, job.split.test)[0]), job.split.test
    return held_out_certificate(
        errors, len(test.x), delta, guessing=data_of(job).guessing, certifies="the network as trained"
    )


def path_of(job: Job, state: TrainState, settings: int, delta: float, certifies: Which = "chain") -> Certificate:
    """The certificate of the trained network itself, or of all chains, on the points that did not fix the inputs' map.

    The chain may have been trained on others as well: only its start has to be free of the certified points.
    """
    rule, memory, data = job.trainer.rule, state.rule, data_of(job)
    assert isinstance(rule, LangevinRule) and isinstance(memory, LangevinMemory)
    n = len(data.points.x)
    every = certifies != "chain"
    prices = memory.prices if every else memory.prices[:1]
    certificate = path_certificate(
        count_mistakes(state, data.points, every)[None], prices[None], n, delta, certifies=certifies, settings=settings,
        rounding=_rounding(job, state, rule, memory), kernel=None if rule.kernel == "adjusted" else BACKWARD,
        times=[int(memory.step)], more=data.hypotheses, guessing=data.guessing,
    )  # fmt: skip
    details = {
        "gamma": float(rule.gammas[int(memory.step) - 1]),
        "acceptance": float(memory.accepted) / max(1, int(memory.step)),
    }
    return replace(certificate, details=certificate.details | details)


def bound_so_far(job: Job, state: TrainState) -> float:
    """The certificate of the network as it is now, had the chain been fixed in advance to end here."""
    data, config, memory = data_of(job), job.config.certify, state.rule
    assert isinstance(memory, LangevinMemory)
    return path_bound(
        count_mistakes(state, data.points), [memory.c], len(data.rows), config.delta, paid=config.settings
    )


def check_tried(config: Config, settings: int | None) -> None:
    """Refuse to pay for fewer settings than a run tried.

    Raises:
        MfresnetError: fewer.
    """
    tried = config.certify.settings
    if settings is not None and settings < tried:
        raise MfresnetError(
            f"settings = {settings} is fewer than the {tried} that this run tried on its points, all of which the "
            f"union bound pays for: give {tried} or more."
        )


def data_of(job: Job) -> Data:
    """The points of a job."""
    train, test = job.split.train, job.split.test
    return Data(train.x, train.y, test.x, test.y, job.split.fitted_on, str(job.train.x.dtype))


def count_mistakes(state: TrainState, points: Batch | Dataset, all_chains: bool = False) -> np.ndarray:
    """Mistakes of the trained network, or of the network of each chain, shape (m,)."""
    y = np.asarray(points.y)
    networks = networks_of(state) if all_chains else [state.model]
    return np.array(
        [np.sum(is_misclassified(np.asarray(predict(model, jnp.asarray(points.x))), y)) for model in networks], float
    )


def networks_of(state: TrainState) -> Iterator[AbstractResNet]:
    """The network of each chain, the trained one first."""
    yield state.model
    others = state.rule.others
    if others is None:
        return
    for k in range(len(others.memory.step)):
        yield eqx.combine(jax.tree.map(lambda leaf, k=k: leaf[k], others.params), state.model)


def acceptance_of(config: Config, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence where the chain of the recorded rows hardly moved, or by needlessly small steps, else none."""
    last = rows[-1]
    half = min(rows, key=lambda row: abs(row["step"] - last["step"] / 2))
    if config.train.kernel != "adjusted" or half["step"] == last["step"]:
        return []
    before, after = (row["chain.acceptance"] * row["step"] for row in (half, last))
    late = (after - before) / (last["step"] - half["step"])
    lower = "raise train.steps, or lower train.gamma"
    return acceptance_warning(last["chain.acceptance"], late, lower, "raise train.leaps")


def describe_chains(job: Job, state: TrainState) -> dict[str, list[float]]:
    """c and the errors of each of several chains."""
    split = job.split
    errors = {"train.error": split.train, "test.error": split.test}
    return {"c": state.rule.prices.tolist()} | {
        name: (count_mistakes(state, points, True) / len(points.x)).tolist() for name, points in errors.items()
    }


def _rounding(job: Job, state: TrainState, rule: LangevinRule, memory: LangevinMemory) -> float:
    """Largest error of c by the arithmetic of the acceptance (`mfresnet.flow.langevin.rounding`)."""
    f = predictor_of(job.config, state.model)
    prior = f.prior(job.initial)
    flat = jax.tree.map(jnp.divide, f.particles(), prior.std)
    z = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(flat)])[None]
    gradient = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(_select_moved(f, memory.gradient))])[None]
    data = jax.tree.map(lambda leaf: leaf[: job.config.train.batch_size], points_of(job.train))
    none = jnp.zeros((0, 1), jnp.float32)
    chains = Chains(z, memory.loss[None], gradient, jnp.zeros(1), none, none, none, none)
    potential = potential_of(f, prior, job.loss)
    last = max(0, int(memory.step) - 1)
    key = jax.random.key(job.config.seed)
    each = rounding(
        potential, chains, data, rule.gammas[last], rule.steps[last], key, kernel=rule.kernel, leaps=rule.leaps
    )
    return each * int(memory.step)


def _select_moved(f: Any, tree: Any) -> dict[str, Any]:
    return {name: getattr(tree, name) for name in f.particles()}
