"""The certificate of the mean error over all sub-networks of the trained laws."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np

from ..bounds import Certificate, GibbsPoint, draws, errors_by_heads, gibbs_certificate, pool, probes_needed
from ..flow import Batch
from .draws import FEW
from .problem import Problem

STREAM = 29  # name of the stream of random numbers
MOST = 256  # draws without common probes that are computed at most


def certify_gibbs(problem: Problem) -> Certificate:
    """The certificate of the mean over Q, at the time and N' of the drawn one and the best k'.

    All grid points are paid for, so the drawn certificate may choose the time and N'. The train error of Q has a
    confidence limit of its own, from draws that share no probe: how many there are, head_probes // k' and probes //
    (those needed for N'), decides how sharp it is.
    """
    data, spec, grid = problem.data, problem.spec, problem.spec.grid
    snapshot, residuals = problem.best.snapshot, problem.best.point.residuals
    probes = snapshot.ensemble.probes
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
    key = jax.random.fold_in(jax.random.key(problem.seed), STREAM)

    def measure(heads: int, points: Batch) -> np.ndarray:
        """Errors of the disjoint draws."""
        count = rounds[heads]
        chosen = draws(
            jax.random.fold_in(key, heads), count, **sizes, residuals=residuals, heads=heads,
            most_residuals=max(grid.residuals), most_heads=max(grid.heads), most_draws=most, disjoint=True,
        )  # fmt: skip
        errors = []
        for first in range(0, count, FEW):
            rows = np.arange(first, first + FEW) % count
            block = jax.tree.map(lambda leaf, rows=rows: leaf[rows], chosen)
            columns = [heads] * len(grid.heads)  # the shape of the other certificate's program
            errors.append(errors_by_heads(block, probes, snapshot.model, points.x, points.y, columns)[:, 0])
        return np.concatenate(errors)[:count]

    points = [
        GibbsPoint(heads, residuals, measure(heads, data.points), snapshot.head, snapshot.encoder, time=snapshot.time)
        for heads in rounds
    ]
    certificate = gibbs_certificate(
        points,
        len(data.points.x),
        spec.delta,
        priors=spec.sizes,
        tried=spec.size,
        density=snapshot.density,
        guessing=data.guessing,
    )
    best = int(certificate.details["heads"] or 0)
    extra: dict[str, float | int | str | None] = {"step": snapshot.step, "disjoint_draws": rounds[best]}
    if data.test is not None:
        extra["test_error_of_draws"] = float(measure(best, data.test).mean())
    certificate = replace(certificate, details=certificate.details | extra)
    return certificate.with_hypotheses(*data.hypotheses, guessing=data.guessing)
