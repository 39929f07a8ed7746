"""The PAC-Bayes certificate with a prior that is trained on one part of the points (theory, section 8(b)).

The training points are split by the run's seed into a part A and the rest. The prior is the law that the same network
reaches at the end of an Euler flow on A alone; the bound is on the rest. Four posteriors are tried: the prior itself
(KL = 0: the rest is then spent on the certificate alone), the prior moved on by few steps on all points, and the law of
the run, which saw all points from the start.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..bounds import Density, DrawnPoint, drawn_certificate, pac_bayes_bound, pull_back
from ..bounds.certificate import Certificate
from ..bounds.certificate import build as with_terms
from ..bounds.checks import check_points
from ..bounds.prior import stack
from ..errors import MfresnetError
from ..flow import Batch, Trainer, TrainState, flow
from ..kernels.precision import cast, double_precision
from ..train.job import Job, initial_scales
from .snapshots import Draws, Grid, Moment, moment_of, ratios_at

SPLIT = 23  # name of the stream of random numbers
MOVED = (2, 8)  # further Euler steps on all points, from the prior; stated here, so a union over them suffices
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
        if job.config.train.batch_size is not None:
            raise MfresnetError("a trained prior needs the flow of all points: leave train.batch_size out.")
        config, n = job.config, len(job.split.train.x)
        seen = int(config.certify.prior_share * n)
        check_points(n - seen)
        check_points(seen)
        order = np.asarray(jax.random.permutation(jax.random.fold_in(job.key, SPLIT), n))
        fitted = job.split.fitted_on
        if fitted is not None and len(fitted) < n:  # what fixed the map of the inputs belongs to the prior
            if len(fitted) > seen:
                raise MfresnetError(
                    f"{len(fitted)} points fixed the map of the inputs and the prior is trained on {seen}: raise "
                    "certify.prior_share, or lower data.map_share below it."
                )
            order = np.concatenate([fitted, order[~np.isin(order, fitted)]])
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

    def moved(self, job: Job) -> list[TrainState]:
        """The prior moved on by `MOVED` steps on all points, in float64."""
        found, state, done = [], self.state, 0
        with double_precision():
            data = cast(job.train, np.float64)
            for count in MOVED:
                state, _ = self.trainer.advance(state, data, job.key, count - done, max(MOVED))
                found.append(state)
                done = count
        return found

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
            mine, theirs = (ratios_at(one, part, scales) for one in (ensemble, back.ensemble))
            found.append(mine - theirs)
        return found[0], found[1]

    def still(self, like: Moment, job: Job) -> Moment:
        """The prior itself as posterior: all log-density ratios are 0."""
        return like.at(
            single(self.state, job),
            None if like.head is None else np.zeros(np.shape(like.head)),
            np.zeros(np.shape(like.encoder)),
        )


def single(state: TrainState, job: Job) -> TrainState:
    """A state in the precision of the run."""
    return jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), state, _like(state, job))


@dataclass(frozen=True)
class _Found:
    """One posterior at its best sizes: its bound on the rest, and what it is made of."""

    value: float
    point: DrawnPoint
    moment: Moment
    place: int


def learned_prior_of(job: Job, last: Moment, pick: Draws, delta: float, guessing: float) -> Certificate:
    """The certificate with a trained prior, minimised over sizes and posteriors.

    Args:
        last: the run's last recorded time.
        pick: the draws.
    """
    prior = LearnedPrior.train(job)
    posteriors = {f"the prior itself (trained on {len(prior.part.x)} points)": prior.still(last, job)}
    refused = None
    try:
        for count, state in zip(MOVED, prior.moved(job), strict=True):
            name = f"the prior moved by {count} steps on all points"
            posteriors[name] = last.at(single(state, job), *prior.ratios(job, state))
        posteriors["the law trained on all points"] = last.at(last.state, *prior.ratios(job, last.state))
    except MfresnetError as error:  # the bound for the prior itself needs no inverse of its flow
        refused = str(error)
    still, *others = (_best(name, moment, prior, pick, delta) for name, moment in posteriors.items())
    elsewhere = min(others, key=lambda one: one.value, default=None)
    best = min((still, *others), key=lambda one: one.value)
    if best is still:
        density = Density("same")
    else:  # only the run's own law may be that of another solver
        solver = job.config.train.solver if best.moment.state is last.state else "euler"
        density = best.moment.density(solver, job.config.train.tolerance)
    found = drawn_certificate(
        [best.point],
        len(prior.rest.x),
        delta,
        grid_size=_size(pick),
        prior=f"the law trained on {len(prior.part.x)} other training points",
        density=density,
        guessing=guessing,
    )

    def on_test(one: _Found) -> float:
        errors, _ = pick.measured(one.moment, one.point.residuals, job.test)
        return float(errors[:, one.place].mean())

    details = found.details | {"posterior": best.point.setting, "test_error_of_draws": on_test(best)}
    if elsewhere is not None:
        details |= {  # a bound of its own: the grid pays for all posteriors
            "moved.value": elsewhere.value,
            "moved.posterior": elsewhere.point.setting,
            "moved.kl": float(np.mean(elsewhere.point.log_ratios)),
            "moved.test_error_of_draws": on_test(elsewhere),
        }
    if refused is not None:
        details["moved.refused"] = refused
    certifies = f"{found.certifies}, from {best.point.setting}"
    return with_terms(
        "pac_bayes_learned", found.terms, delta, found.hypotheses, certifies, guessing=guessing, details=details
    )


def prior_value(job: Job, delta: float) -> float:
    """The bound for the prior itself as posterior, which needs no run: what tuning compares settings by."""
    prior, begin = LearnedPrior.train(job), moment_of(job, job.state)
    pick = Draws.of(job, Grid.of(job.config, job.state.model.encoder.w.shape[0]))
    return _best("", prior.still(begin, job), prior, pick, delta).value


def _size(pick: Draws) -> int:
    """Posteriors x k' x N' x last laws."""
    return (2 + len(MOVED)) * len(pick.grid.heads) * len(pick.grid.residuals) * pick.grid.ends


def _best(name: str, moment: Moment, prior: LearnedPrior, pick: Draws, delta: float) -> _Found:
    """The best sizes of one posterior."""
    found = []
    for residuals in pick.grid.residuals:
        errors, ratios = pick.measured(moment, residuals, prior.rest)
        rates = np.minimum(errors.mean(axis=0), 1.0)
        values = pac_bayes_bound(rates, ratios.mean(axis=0), len(prior.rest.x), delta, _size(pick))
        place = int(np.argmin(values))
        point = DrawnPoint(
            pick.grid.heads[place], residuals, errors[:, place], ratios[:, place], moment.time, setting=name
        )
        found.append(_Found(float(values[place]), point, moment, place))
    return min(found, key=lambda one: one.value)


def _like(state: TrainState, job: Job) -> TrainState:
    """A state of the structure of ``state`` with the types of the job's own."""
    return TrainState(job.state.model, job.state.ensemble, state.rule, state.step, job.state.time, state.order)
