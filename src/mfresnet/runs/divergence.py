"""Divergence: noticing it, and naming the likely cause with what to change."""

from __future__ import annotations

import numpy as np

from ..flow import TrainState, decay_rate
from .assemble import Job

EXPLODED = 1e4  # times the larger of the first loss and 1
SAMPLE = 1024  # points that lambda_max is taken on


def first_bad_step(losses: np.ndarray, start: float) -> int | None:
    """Index of the first loss that is not finite or has exploded.

    >>> first_bad_step(np.array([1.0, np.nan]), start=1.0)
    1
    """
    with np.errstate(invalid="ignore"):
        bad = ~np.isfinite(losses) | (losses > EXPLODED * max(start, 1.0))
    return int(np.argmax(bad)) if bad.any() else None


def likely_cause(job: Job, state: TrainState) -> str:
    """Why this run diverged, as far as can be told from its last good state, and what to change.

    A plain step of the flow is stable below 2 n / (beta^2 lambda_max(G)) (theory, section 3).
    """
    config = job.config.train
    if config.rule == "gradient-flow" and config.solver == "adaptive":
        return (
            f"the adaptive solver (tolerance {config.tolerance:g}) could not follow the flow; lower model.alpha "
            f"({job.config.model.alpha:g}) or model.beta ({job.config.model.beta:g}), or set --train.precision float64."
        )
    if config.rule not in ("gradient-flow", "sgd", "momentum"):
        return f"the steps are too long; lower --train.learning-rate (now {config.learning_rate:g})."
    rate = float(decay_rate(state.model, job.trainer.trained, job.train.x[:SAMPLE], job.trainer.options.rates))
    limit = 2 / (rate * job.unit)
    if config.rule == "gradient-flow":
        step = config.time / config.steps
        cure = f"set --train.steps {int(config.time / (0.5 * limit)) + 1} or --train.solver adaptive."
    else:
        step = config.learning_rate
        cure = f"set --train.learning-rate {0.5 * limit:.2g} or lower."
    verdict = "beyond" if step > limit else "near or below"
    return (
        f"a step of {step:.3g} {config.time_unit} is {verdict} the stable 2n/(beta^2 lambda_max(G)) = {limit:.3g} "
        f"of the last good state; {cure}"
    )
