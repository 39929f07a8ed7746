"""The PAC-Bayes certificate with a prior that is trained on one part of the points (theory, section 8(b)).

The training points are split by the run's seed into a part A and the rest. The prior is the law that the same network
reaches at the end of an Euler flow on A alone; the bound is on the rest. Two posteriors are tried: the law of the run,
which saw all points, and the prior itself (KL = 0: the rest is then spent on the certificate alone).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..assembly import Job, initial_scales
from ..bounds import DrawnPoint, drawn_certificate, pac_bayes_bound, pull_back
from ..bounds.certificate import Certificate
from ..bounds.certificate import build as with_terms
from ..bounds.checks import checked_points
from ..bounds.prior import stack
from ..diagnostics.divergence import log_density_ratios
from ..diagnostics.precision import cast, double_precision
from ..errors import MfresnetError
from ..flow import Batch, Trainer, TrainState, flow
from .moments import Draws, Moment, density_error_of

SPLIT = 23  # name of the stream of random numbers
SETTLED = 1e-7  # largest distance between a probe and the image of its preimage that counts as an inverse


@dataclass(frozen=True)
class LearnedPrior:
    """A prior trained on part of the points.

    Args:
        state: network and probes at its end, in the run's precision.
        rest: the points it did not see, on which the bound is.
        history: the networks before each Euler step, stacked, in float64.
        part: the points it saw, in float64.
        h: length of an Euler step.
        trainer: what was trained and how.
    """

    state: TrainState
    rest: Batch
    history: Any
    part: Batch
    h: float
    trainer: Trainer

    @classmethod
    def train(cls, job: Job) -> LearnedPrior:
        """Train the prior of a job.

        Raises:
            MfresnetError: fewer than 8 points on either side, mini-batches, or a flow that leaves the finite numbers.
        """
        config, n = job.config, len(job.split.train.x)
        seen = int(config.certify.prior_share * n)
        checked_points(n - seen)
        checked_points(seen)
        order = np.asarray(jax.random.permutation(jax.random.fold_in(job.key, SPLIT), n))
        part, rest = (jax.tree.map(lambda leaf, rows=rows: leaf[rows], job.train) for rows in np.split(order, [seen]))
        steps = config.certify.prior_steps
        h = config.train.time * job.unit / steps
        with double_precision():
            begin, part64 = cast((job.state, part), np.float64)
            trainer = Trainer(flow("euler", h), job.trainer.trained, replace(job.trainer.options, compute=None))
            state = trainer.begin(begin.model, job.key, seen)
            state = TrainState(state.model, begin.ensemble, state.rule, state.step, state.time, state.order)
            models = []
            for _ in range(steps):
                models.append(jax.tree.map(np.asarray, state.model))
                state, losses = trainer.advance(state, part64, job.key, 1, 1)
            if not np.isfinite(np.asarray(losses)).all():
                raise MfresnetError(
                    f"the prior's flow left the finite numbers in {steps} Euler steps: raise certify.prior_steps."
                )
            history = stack(models)
        return cls(state, rest, history, part64, h, trainer)

    def ratios(self, job: Job, state: TrainState) -> tuple[np.ndarray | None, np.ndarray]:
        """log(tau/prior) at the probes of a state's head and encoder: R of the state minus R of the prior there.

        Raises:
            MfresnetError: the prior's flow could not be inverted.
        """
        scales, ensemble = initial_scales(job.config), state.ensemble
        assert ensemble is not None
        with double_precision():
            probes = cast(ensemble.probes, np.float64)
            back = pull_back(
                self.history, self.part, probes, h=self.h, trained=self.trainer.trained, options=self.trainer.options
            )
            if not float(back.residual) < SETTLED:
                raise MfresnetError(
                    f"the prior's flow could not be inverted (residual {float(back.residual):.2g}): raise "
                    "certify.prior_steps."
                )
        found = []
        for part in ("head", "encoder"):
            if getattr(ensemble.probes, part) is None:
                found.append(None)
                continue
            mine, theirs = (
                log_density_ratios(*(getattr(v, part) for v in (e.probes, e.start, e.log_ratio)), getattr(scales, part))
                for e in (ensemble, back.ensemble)
            )
            found.append(mine - theirs)
        return found[0], found[1]


def learned_prior_of(job: Job, last: Moment, pick: Draws, delta: float, chance: float) -> Certificate:
    """The certificate with a trained prior, minimised over sizes and the two posteriors.

    Args:
        last: the run's last recorded time.
        pick: the draws.
    """
    config = job.config
    if config.train.batch_size is not None:
        raise MfresnetError("a trained prior needs the flow of all points: leave train.batch_size out.")
    prior = LearnedPrior.train(job)
    n, grid = len(prior.rest.x), pick.grid
    size = 2 * len(grid.heads) * len(grid.residuals) * grid.settings
    layers = np.shape(last.encoder)
    still = last.at(
        jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), prior.state, _like(prior.state, job)),
        None if last.head is None else np.zeros(np.shape(last.head)),
        np.zeros(layers),
    )
    moved = last.at(last.state, *prior.ratios(job, last.state))
    best: tuple[float, Any, Any, Any] | None = None
    for name, moment in (
        (f"the prior itself (trained on {len(prior.part.x)} points)", still),
        ("the law trained on all points", moved),
    ):
        for residuals in grid.residuals:
            errors, ratios = pick.measured(moment, residuals, prior.rest)
            values = pac_bayes_bound(np.minimum(errors.mean(axis=0), 1.0), ratios.mean(axis=0), n, delta, size)
            place = int(np.argmin(values))
            point = DrawnPoint(
                grid.heads[place], residuals, errors[:, place], ratios[:, place], moment.time, setting=name
            )
            if best is None or values[place] < best[0]:
                best = (float(values[place]), point, moment, place)
    assert best is not None
    _, point, moment, place = best
    found = drawn_certificate(
        [point],
        n,
        delta,
        grid_size=size,
        prior=f"the law trained on {len(prior.part.x)} other training points",
        exact_density=config.train.solver == "euler" or moment is still,
        density_error=None if moment is still else density_error_of(config),
        chance=chance,
    )
    beside, _ = pick.measured(moment, point.residuals, job.test)
    details = found.details | {"posterior": point.setting, "test_error_of_draws": float(beside[:, place].mean())}
    certifies = f"{found.certifies}, from {point.setting}"
    return with_terms(
        "pac_bayes_learned", found.terms, delta, found.hypotheses, certifies, chance=chance, details=details
    )


def _like(state: TrainState, job: Job) -> TrainState:
    """A state of the structure of ``state`` with the types of the job's own."""
    return TrainState(job.state.model, job.state.ensemble, state.rule, state.step, job.state.time, state.order)
