"""The path certificate of a network that the rule langevin trained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..bounds.certificate import Certificate
from ..bounds.path import path_certificate
from ..flow import LangevinMemory, LangevinRule, TrainState, misclassified, predict
from ..flow.langevin import Chains, rounding
from ..flow.potential import PredictorPotential, labels
from ..train.job import Job, initial_scales
from ..train.langevin import predictor_of
from .snapshots import about_data, certified, guessing_error


def path_of(job: Job, state: TrainState, delta: float) -> Certificate:
    """The certificate of the trained network itself, one chain, on all points that did not fix the map of the inputs.

    The chain may have been trained on others as well: only its start has to be free of the certified points.
    """
    rule, memory = job.trainer.rule, state.rule
    assert isinstance(rule, LangevinRule) and isinstance(memory, LangevinMemory)
    points = certified(job)
    wrong = np.asarray(misclassified(np.asarray(predict(state.model, points.x)), np.asarray(points.y)))
    certificate = path_certificate(
        [int(wrong.sum())], [memory.c], len(wrong), delta, certifies="chain", settings=job.config.certify.settings,
        rounding=_rounding(job, state, rule, memory), times=[int(memory.step)], more=about_data(job),
        guessing=guessing_error(job),
    )  # fmt: skip
    details = {"gamma": float(rule.gammas[-1]), "acceptance": float(memory.accepted) / max(1, int(memory.step))}
    return replace(certificate, details=certificate.details | details)


def _rounding(job: Job, state: TrainState, rule: LangevinRule, memory: LangevinMemory) -> float:
    """Largest error of c by the arithmetic of the acceptance (`mfresnet.flow.langevin.rounding`)."""
    f = predictor_of(job.config, state.model)
    prior = f.prior(initial_scales(job.config))
    flat = jax.tree.map(jnp.divide, f.particles(), prior.std)
    z = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(flat)])[None]
    gradient = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(_moved(f, memory.gradient))])[None]
    y = job.train.y[:, 0] if job.train.y.shape[1] == 1 else jnp.argmax(job.train.y, axis=1)
    n = len(job.train.x)
    data = (job.train.x, jnp.asarray(labels(y, n, (n, job.train.y.shape[1]), None)))
    none = jnp.zeros((0, 1), jnp.float32)
    chains = Chains(z, memory.loss[None], gradient, jnp.zeros(1), none, none, none, none)
    potential = PredictorPotential(f, prior, jnp.asarray(1.0, jnp.float32))
    eta = rounding(potential, chains, data, rule.gammas[-1], rule.steps[-1], jax.random.key(job.config.seed))
    return 2 * eta * int(memory.step)


def _moved(f: Any, tree: Any) -> dict[str, Any]:
    return {name: getattr(tree, name) for name in f.particles()}
