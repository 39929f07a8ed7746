"""Held-out bounds: of the trained network by test points, and of a prior by the training points that it did not see."""

from __future__ import annotations

import jax
import numpy as np

from ..bounds import Certificate, held_out_certificate
from ..errors import MfresnetError
from ..flow import Batch
from .drawn import count_errors
from .problem import Problem
from .snapshots import Snapshot

STREAM = 37  # name of the stream of random numbers


def certify_held_out(problem: Problem) -> Certificate:
    """The exact binomial limit from the test points, of the network at the last recorded time."""
    data, spec = problem.data, problem.spec
    if data.test is None:
        raise MfresnetError("there are no test points: give x_test and y_test.")
    errors = count_errors(problem.last.model, data.test)
    return held_out_certificate(
        errors,
        len(data.test.x),
        spec.delta,
        compared=spec.compared,
        guessing=data.guessing,
        certifies="the network as trained",
    )


def certify_held_out_part(problem: Problem) -> Certificate:
    """The exact binomial limit of the laws trained on a part of the training points, from the other points.

    Each held-out point is given to one of the drawn sub-networks of that law, picked afresh at random. They were drawn
    without a look at these points, so the number of errors is binomial; each size (k', N') and each setting is a
    predictor that is compared.
    """
    prior, data, spec, like = problem.learned_prior, problem.data, problem.spec, problem.last
    still = prior.as_posterior(like)
    compared = spec.sizes
    errors, heads, residuals, place = min(_counts(problem, still, prior.rest))
    details: dict[str, float | int | str | None] = {
        "heads": heads,
        "residuals": residuals,
        "draws": problem.draws.count,
        "trained_on": len(prior.part.x),
        "step": like.step,
    }
    if data.test is not None:
        test_errors, _ = problem.draws.measure(still, residuals, data.test)
        details["test_error_of_draws"] = float(test_errors[:, place].mean())
    certificate = held_out_certificate(
        errors,
        len(prior.rest.x),
        spec.delta,
        compared=compared,
        guessing=data.guessing,
        certifies=f"one of {problem.draws.count} sub-networks drawn from the law trained on {len(prior.part.x)} "
        "training points, picked at random for each point",
        name="held_out_part",
        details=details,
    )
    return certificate.with_hypotheses(*data.hypotheses, guessing=data.guessing)


def _counts(problem: Problem, snapshot: Snapshot, points: Batch) -> list[tuple[int, int, int, int]]:
    """(errors, k', N', place of k') of every size, with one network drawn afresh for each point."""
    draws, n = problem.draws, len(points.x)
    key = jax.random.fold_in(jax.random.key(problem.seed), STREAM)
    picks = np.asarray(jax.random.randint(key, (n,), 0, draws.count))
    counts = []
    for residuals in draws.grid.residuals:
        wrong = draws.mistakes(snapshot, residuals, points)
        for place, heads in enumerate(draws.grid.heads):
            counts.append((int(wrong[picks, place, np.arange(n)].sum()), heads, residuals, place))
    return counts
