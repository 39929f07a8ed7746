"""PAC-Bayes certificates of a run with the Gaussian start as prior: of networks drawn, and of the mean over Q."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from ..bounds import (
    DrawnPoint,
    GibbsPoint,
    drawn_certificate,
    draws,
    errors_by_heads,
    gibbs_certificate,
    pac_bayes_bound,
    pool,
    probes_needed,
)
from ..bounds.certificate import Certificate
from ..flow import Batch, evaluate
from ..train.job import Job
from .snapshots import FEW, Draws, Grid, Moment, about_data, certified, guessing_error, train_task

APART = 29  # name of the stream of random numbers
MOST = 256  # draws without common probes that are computed at most


def pac_bayes_of(job: Job, moments: Sequence[Moment], delta: float) -> tuple[Certificate, dict[str, Any]]:
    """The certificate of drawn sub-networks, minimised over sizes and recorded times, and what the report shows.

    The certificate speaks of ``certify.draws`` networks. Which sizes are best at each time is searched with the first
    few of them: the bound holds for all grid points at once, so any search may choose among them.
    """
    config, train = job.config, certified(job)
    grid = Grid.of(config, job.state.model.encoder.w.shape[0])
    n = len(train.x)
    pick = Draws.of(job, grid)
    rows: list[dict[str, Any]] = []
    best: list[tuple[float, DrawnPoint, Moment]] = []
    for moment in moments:
        _, residuals, place = pick.best(moment, train, delta)
        errors, ratios = pick.measured(moment, residuals, train)
        point = DrawnPoint(grid.heads[place], residuals, errors[:, place], ratios[:, place], moment.time)
        rate, kl = float(np.mean(point.errors)), float(np.mean(point.log_ratios))
        value = float(pac_bayes_bound(min(1.0, rate), kl, n, delta, grid.size))
        best.append((value, point, moment))
        rows.append(
            {
                "step": moment.step,
                "time": moment.time,
                "value": value,
                "heads": point.heads,
                "residuals": residuals,
                "drawn.train.error": rate,
                "kl": kl,
                **{
                    f"{part}.error": float(evaluate(moment.state.model, data, config.train.loss, train_task(job))[1])
                    for part, data in (("train", job.train), ("test", job.test))
                },
            }
        )
    value, point, moment = min(best, key=lambda item: item[0])
    certificate = drawn_certificate(
        [point],
        n,
        delta,
        grid_size=grid.size,
        density=moment.density(config.train.solver, config.train.tolerance),
        guessing=guessing_error(job),
    )
    beside, _ = pick.measured(moment, point.residuals, job.test)
    place = grid.heads.index(point.heads)
    extra = {"step": moment.step, "test_error_of_draws": float(beside[:, place].mean())}
    extra["grid_of"] = f"{len(grid.steps)} times x {len(grid.heads)} k' x {len(grid.residuals)} N' x {grid.settings}"
    certificate = replace(certificate, details=certificate.details | extra)
    certificate = certificate.with_hypotheses(*about_data(job), guessing=guessing_error(job))
    return certificate, {"over_time": rows, "density_check": moment.normalisation_error}


def gibbs_of(job: Job, moments: Sequence[Moment], drawn: Certificate, delta: float) -> Certificate:
    """The certificate of the mean over Q, at the time and N' of the drawn one and the best k'.

    The train error of Q has a confidence limit of its own, from draws that share no probe: how many there are,
    head_probes // k' and probes // (those needed for N'), decides how sharp it is.

    Args:
        drawn: the certificate of drawn networks, whose time and N' are taken: all grid points are paid for.
    """
    config, train = job.config, certified(job)
    grid = Grid.of(config, job.state.model.encoder.w.shape[0])
    moment = next(one for one in moments if one.step == drawn.details["step"])
    residuals, probes = int(drawn.details["residuals"] or 0), moment.ensemble.probes
    sizes = pool(probes)
    rounds = {
        k: min(
            MOST,
            sizes["probes"] // probes_needed(residuals, sizes["layers"]),
            sizes["head_probes"] // k if k else MOST,
        )
        for k in grid.heads
    }
    # as many draws in every program, so that one is compiled
    most = -(-max(rounds.values()) // FEW) * FEW
    key = jax.random.fold_in(jax.random.key(config.seed), APART)

    def measured(heads: int, data: Batch) -> np.ndarray:
        """Errors of the disjoint draws (and of repetitions that fill up the last block)."""
        count = rounds[heads]
        chosen = draws(
            jax.random.fold_in(key, heads), count, **sizes, residuals=residuals, heads=heads,
            most_residuals=max(grid.residuals), most_heads=max(grid.heads), most_draws=most, disjoint=True,
        )  # fmt: skip
        found = []
        for first in range(0, count, FEW):
            rows = np.arange(first, first + FEW) % count
            block = jax.tree.map(lambda leaf, rows=rows: leaf[rows], chosen)
            columns = [heads] * len(grid.heads)  # the shape of the other certificate's program
            found.append(errors_by_heads(block, probes, moment.state.model, data.x, data.y, columns)[:, 0])
        return np.concatenate(found)

    points = [
        GibbsPoint(heads, residuals, measured(heads, train)[:count], moment.head, moment.encoder, time=moment.time)
        for heads, count in rounds.items()
    ]
    found = gibbs_certificate(
        points,
        len(train.x),
        delta,
        priors=len(grid.heads) * len(grid.residuals) * grid.settings,
        tried=grid.size,
        density=moment.density(config.train.solver, config.train.tolerance),
        guessing=guessing_error(job),
    )
    best = int(found.details["heads"] or 0)
    beside = measured(best, job.test)[: rounds[best]]
    extra = {"step": moment.step, "disjoint_draws": rounds[best], "test_error_of_draws": float(beside.mean())}
    return replace(found, details=found.details | extra).with_hypotheses(*about_data(job), guessing=guessing_error(job))
