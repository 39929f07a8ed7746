"""Divergence: naming its likely cause, with what to change."""

from __future__ import annotations

import numpy as np

from ..diagnostics.record import draw_rows
from ..flow import TrainState, decay_rate
from .job import Job

SAMPLE = 1024  # points that lambda_max is taken on


def stable_step(job: Job, state: TrainState) -> float | None:
    """2 n / (beta^2 lambda_max(G)), in units of training time, at the start or the last good state, whichever is less.

    A plain step of the flow is stable below it (docs/theory.md, section 3). None where the Gram matrix is not finite.
    """
    trained, rates = job.trainer.trained, job.trainer.options.rates
    x = job.train.x[draw_rows(len(job.train.x), SAMPLE, job.config.seed)]
    decay_rates = [float(decay_rate(s.model, trained, x, rates)) for s in (job.state, state)]
    finite = [rate for rate in decay_rates if 0 < rate < np.inf]
    return 2 / (max(finite) * job.unit) if finite else None


def likely_cause(job: Job, state: TrainState, loss: float) -> str:
    """Why this run diverged, as far as can be told from its last good state and its loss, and what to change."""
    config, model = job.config.train, job.config.model
    if not np.isfinite(loss):
        return (
            f"the loss is not finite before the first step; lower model.alpha ({model.alpha:g}), "
            f"model.beta ({model.beta:g}) or the scales in model.initial, or set --train.precision float64."
        )
    if job.trainer.rule.adaptive:
        return (
            f"the {config.solver} solver (tolerance {config.tolerance:g}) could not follow the flow; lower model.alpha "
            f"({model.alpha:g}) or model.beta ({model.beta:g}), or set --train.precision float64."
        )
    if config.rule not in ("gradient-flow", "sgd", "momentum"):
        return f"the steps are too long; lower --train.learning-rate (now {job.rate:g})."
    flowing = config.rule == "gradient-flow"
    step, limit = config.time / job.steps if flowing else job.rate, stable_step(job, state)
    better = 0.5 * min(step, limit or step)
    cure = f"set --train.learning-rate {better:.2g} or lower."
    if flowing:
        cure = f"set --train.steps {int(config.time / better) + 1} or --train.solver stabilised."
    if limit is None or step <= limit:
        return f"a step of {step:.3g} (in units of {config.time_unit}) is too long for this network; {cure}"
    return (
        f"a step of {step:.3g} is longer than the stable 2n/(beta^2 lambda_max(G)) = {limit:.3g} "
        f"(both in units of {config.time_unit}); {cure}"
    )
