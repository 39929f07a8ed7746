"""The PAC-Bayes certificate with a prior that is trained on one part of the points (data-dependent priors).

The training points are split by the run's seed into a part A and the rest. The prior is the law that the same network
reaches at the end of an Euler flow on A alone; the bound is on the rest. Three posteriors are tried: the prior moved on
by few steps on all points (two numbers of steps), and the law of the run, which saw all points from the start. The
prior itself as posterior is a held-out predictor, with a sharper bound: `held_out.certify_held_out_part`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..bounds import Certificate, drawn_certificate, pull_back
from ..bounds.certificate import build
from ..bounds.checks import check_points
from ..bounds.prior import stack
from ..errors import MfresnetError
from ..flow import Batch, Trainer, TrainState, flow
from ..kernels.precision import cast, double_precision
from .draws import Choice
from .problem import PriorTraining, Problem
from .snapshots import Snapshot, ratios_to_start

STREAM = 23  # name of the stream of random numbers
MOVED = (2, 8)  # further Euler steps on all points, from the prior; stated here, so a union over them suffices
LARGEST_RESIDUAL = 1e-7  # largest distance between a probe and the image of its preimage that counts as an inverse


@dataclass(frozen=True)
class LearnedPrior:
    """A prior trained on part of the points.

    Args:
        state: network and probes at its end, in the run's precision.
        rest: the points it did not see, on which the bound is.
        history: the networks before each Euler step, stacked, in float64.
        part: the points it saw, in float64.
        trainer: what was trained and how.
        problem: what it was trained for.
        recipe: how it was trained.
    """

    state: TrainState
    rest: Batch
    history: Any
    part: Batch
    trainer: Trainer
    problem: Problem
    recipe: PriorTraining

    @classmethod
    def train(cls, problem: Problem) -> LearnedPrior:
        """Train the prior of a problem.

        Raises:
            MfresnetError: no recipe, fewer than 8 points on either side, mini-batches, or a flow that leaves the
                finite numbers.
        """
        recipe, data = problem.prior, problem.data
        if recipe is None:
            raise MfresnetError("no prior is trained: set certify.prior_share > 0.")
        if recipe.trainer.batch_size is not None:
            raise MfresnetError("a trained prior needs the flow of all points: leave train.batch_size out.")
        n = len(data.x)
        seen = int(recipe.share * n)
        check_points(n - seen)
        check_points(seen)
        order = np.asarray(jax.random.permutation(jax.random.fold_in(recipe.key, STREAM), n))
        fitted = data.fitted_on
        if fitted is not None and len(fitted) < n:  # what fixed the map of the inputs belongs to the prior
            if len(fitted) > seen:
                raise MfresnetError(
                    f"{len(fitted)} points fixed the map of the inputs and the prior is trained on {seen}: raise "
                    "certify.prior_share, or lower data.map_share below it."
                )
            order = np.concatenate([fitted, order[~np.isin(order, fitted)]])
        part, rest = (jax.tree.map(lambda leaf, rows=rows: leaf[rows], data.train) for rows in np.split(order, [seen]))
        with double_precision():
            begin, part64 = cast((recipe.start, part), np.float64)
            options = replace(recipe.trainer.options, compute=None)
            trainer = Trainer(flow("euler", recipe.h), recipe.trainer.trained, options)
            state = trainer.begin(begin.model, recipe.key, seen)
            state = TrainState(state.model, begin.ensemble, state.rule, state.step, state.time, state.order)
            models, losses = [], np.zeros(1)
            for _ in range(recipe.steps):
                models.append(jax.tree.map(np.asarray, state.model))
                state, losses = trainer.advance(state, part64, recipe.key, 1, 1)
            if not np.isfinite(np.asarray(losses)).all():
                raise MfresnetError(
                    f"the prior's flow left the finite numbers in {recipe.steps} Euler steps: raise "
                    "certify.prior_steps."
                )
            history = stack(models)
        return cls(state, rest, history, part64, trainer, problem, recipe)

    def move(self) -> list[TrainState]:
        """The prior moved on by `MOVED` steps on all points, in float64."""
        states, state, done = [], self.state, 0
        with double_precision():
            data = cast(self.problem.data.train, np.float64)
            for count in MOVED:
                state, _ = self.trainer.advance(state, data, self.recipe.key, count - done, max(MOVED))
                states.append(state)
                done = count
        return states

    def ratios(self, state: TrainState | Snapshot) -> tuple[np.ndarray | None, np.ndarray]:
        """log(tau/prior) at the probes of the head and of the encoder: R of the state minus R of the prior there.

        Raises:
            MfresnetError: the prior's flow could not be inverted.
        """
        scales, ensemble = self.problem.scales, state.ensemble
        assert ensemble is not None
        with double_precision():
            probes = cast(ensemble.probes, np.float64)
            back = pull_back(
                self.history,
                self.part,
                probes,
                h=self.recipe.h,
                trained=self.trainer.trained,
                options=self.trainer.options,
            )
            if not float(back.residual) < LARGEST_RESIDUAL:
                raise MfresnetError(
                    f"the prior's flow could not be inverted (residual {float(back.residual):.2g}): raise "
                    "certify.prior_steps."
                )
        (head, encoder), (head_back, encoder_back) = (ratios_to_start(one, scales) for one in (ensemble, back.ensemble))
        return None if head is None or head_back is None else head - head_back, encoder - encoder_back

    def as_posterior(self, like: Snapshot) -> Snapshot:
        """The prior itself as posterior: all log-density ratios are 0."""
        head = None if like.head is None else np.zeros(np.shape(like.head))
        return self.snapshot(self.state, like, head, np.zeros(np.shape(like.encoder)))

    def snapshot(self, state: TrainState, like: Snapshot, head: np.ndarray | None, encoder: np.ndarray) -> Snapshot:
        """A state in the precision of the run, as a snapshot at the time of ``like``."""
        start = self.recipe.start
        model, ensemble = jax.tree.map(
            lambda new, old: jnp.asarray(new, old.dtype),
            (state.model, state.ensemble),
            (start.model, start.ensemble),
        )
        return like.with_laws(model, ensemble, head, encoder)


def certify_learned_prior(problem: Problem) -> Certificate:
    """The certificate with a trained prior, minimised over sizes and posteriors.

    Raises:
        MfresnetError: there is no such prior (`LearnedPrior.train`), or its flow could not be inverted.
    """
    prior, data, spec, last = problem.learned_prior, problem.data, problem.spec, problem.last
    posteriors = {}
    for count, state in zip(MOVED, prior.move(), strict=True):
        name = f"the prior moved by {count} steps on all points"
        posteriors[name] = prior.snapshot(state, last, *prior.ratios(state))
    head, encoder = prior.ratios(last)
    posteriors["the law trained on all points"] = replace(last, head=head, encoder=encoder)
    paid = len(posteriors) * spec.last_sizes
    choices = [
        problem.draws.choose(snapshot, prior.rest, spec.delta, paid, setting=name, thorough=True)
        for name, snapshot in posteriors.items()
    ]
    best: Choice = min(choices, key=lambda one: one.value)
    certificate = drawn_certificate(
        [best.point],
        len(prior.rest.x),
        spec.delta,
        grid_size=paid,
        prior=f"the law trained on {len(prior.part.x)} other training points",
        density=best.snapshot.density,
        guessing=data.guessing,
    )
    details = certificate.details | {"posterior": best.point.setting}
    if data.test is not None:
        errors, _ = problem.draws.measure(best.snapshot, best.point.residuals, data.test)
        details["test_error_of_draws"] = float(errors[:, best.place].mean())
    return build(
        "pac_bayes_learned",
        certificate.terms,
        spec.delta,
        (*certificate.hypotheses, *data.hypotheses),
        f"{certificate.certifies}, from {best.point.setting}",
        guessing=data.guessing,
        details=details,
    )
