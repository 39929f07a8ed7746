"""The kernel comparator: the kernel machine of the Gram matrix at the start."""

from __future__ import annotations

import jax
import numpy as np

from ..bounds import Certificate, Hypothesis, kernel_certificate
from ..bounds.certificate import build
from ..errors import MfresnetError
from ..kernels.gram import gram
from .problem import Problem

POINTS = 512  # most points of the kernel comparator
STREAM = 31  # name of the stream of random numbers
RIDGES = (1e-4, 1e-2, 1.0, 100.0)  # added to the diagonal of the kernel; stated here, so a union over them suffices


def kernel_rows(problem: Problem) -> np.ndarray:
    """At most `POINTS` of the rows that the bounds are on, drawn by the seed (a table has an order)."""
    rows = problem.data.rows
    key = jax.random.fold_in(jax.random.key(problem.seed), STREAM)
    return np.sort(rows[np.asarray(jax.random.permutation(key, len(rows)))[:POINTS]])


def certify_kernel(problem: Problem) -> Certificate:
    """The kernel comparator: G at the start, with the best of a stated list of ridges on its diagonal.

    A ridge makes another kernel of it, k(x, x') + ridge 1{x = x'}, regular however close two points are; its
    interpolant is ridge regression away from the training points.
    """
    data, spec = problem.data, problem.spec
    rows = kernel_rows(problem)
    if data.y.shape[1] != 1:
        raise MfresnetError("the kernel bound is for two classes with one output: use the PAC-Bayes certificate.")
    x, y = data.x[rows], data.y[rows, 0]
    total = gram(problem.start, x, hold="total").total
    candidates: list[tuple[Certificate, float]] = []
    reasons, tried = [], len(RIDGES) * spec.settings  # the kernel has alpha, beta and the start in it
    for ridge in RIDGES:
        try:
            one = kernel_certificate(total + ridge * np.eye(len(x)), y, spec.delta / tried)
        except MfresnetError as error:
            reasons.append(error)
        else:
            candidates.append((one, ridge))
    if not candidates:
        raise reasons[-1]
    best, ridge = min(candidates, key=lambda item: item[0].value)
    hypotheses = (
        *best.hypotheses,
        Hypothesis("new points differ from all training points", "assumed", note=f"its ridge is {ridge:g}"),
        *data.hypotheses,
    )
    details = best.details | {"ridge": ridge, "ridges": len(RIDGES), "grid": tried}
    return build("kernel", best.terms, spec.delta, hypotheses, best.certifies, guessing=data.guessing, details=details)
