"""The bounds of a run beside PAC-Bayes: KL ball, Theorem 6's form, the kernel of the start, held-out points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import equinox as eqx
import jax
import numpy as np
from jax import Array

from ..bounds import (
    Hypothesis,
    head_rademacher,
    held_out_certificate,
    kernel_certificate,
    kl_ball_certificate,
    kl_estimate,
    theorem6_certificate,
)
from ..bounds.certificate import Certificate
from ..bounds.certificate import build as with_terms
from ..bounds.supremum import quadrature
from ..errors import MfresnetError
from ..flow import evaluate, predict
from ..kernels.gram import gram
from ..model import AbstractResNet
from ..train.job import Job
from .snapshots import Grid, Moment, about_data, certified, certified_rows, guessing_error, train_task

KERNEL_POINTS = 512  # most points of the kernel comparator
KERNEL = 31  # name of the stream of random numbers
RIDGES = (1e-4, 1e-2, 1.0, 100.0)  # added to the diagonal of the kernel; stated here, so a union over them suffices


def kl_ball_of(job: Job, moment: Moment, delta: float) -> Certificate:
    """The Rademacher bound of the KL ball at one time: of the predictor of the laws, seen through all probes.

    Beside the bound of the head's part its details have the number itself, by duality, at the states of the start.
    """
    found = _of_ball(kl_ball_certificate, job, moment, delta)
    network, x = moment.state.model, certified(job).x
    radius, bias = (
        float(found.details["head_radius"] or 0),
        bool(network.head is not None and network.head.b is not None),
    )
    exact = head_rademacher(
        network.embed(x), radius, beta=float(network.beta), sigma=network.sigma, bias=bias,
        draws=16, samples=quadrature(len(x)), replicates=2, seed=job.config.seed,
    )  # fmt: skip
    more = {"rademacher.head.exact": exact.value, "rademacher.head.exact.error": exact.error}
    return replace(found, details=found.details | more)


def theorem6_of(job: Job, moment: Moment, delta: float) -> Certificate:
    """Theorem 6's form with its constant from the KLs of one time, of the predictor of the laws."""
    return _of_ball(theorem6_certificate, job, moment, delta)


def _of_ball(bound: Callable[..., Certificate], job: Job, moment: Moment, delta: float) -> Certificate:
    """A bound over KL balls: half of delta is for it, a quarter for the upper limits of each KL.

    The bound holds for all laws at once, the limits for one: they are paid for at each law that probes had a say in.
    """
    config, train = job.config, certified(job)
    if moment.head is None:
        raise MfresnetError("the KL-ball bound needs a head, and this network has none: set model.head true.")
    if train.y.shape[1] != 1:
        raise MfresnetError("the KL-ball bound is for two classes with one output: use the PAC-Bayes certificate.")
    ends = Grid.of(config, job.state.model.encoder.w.shape[0]).ends
    head, encoder = (kl_estimate(r, delta / (4 * ends)) for r in (moment.head, moment.encoder))
    network = of_laws(moment)
    margins = np.asarray(predict(network, train.x) * train.y, np.float64)[:, 0]
    found = bound(
        margins,
        head_kl=head.upper,
        encoder_kl=encoder.upper,
        alpha=float(network.alpha),
        beta=float(network.beta),
        sigma=network.sigma,
        delta=delta / 2,
        head_error=head.stderr,
        encoder_error=encoder.stderr,
        margin_error=spread_of_pools(moment, train.x),
        settings=config.certify.settings,
        standard_start=set(config.model.initial.model_dump().values()) == {1.0},
    )
    density = moment.density(config.train.solver, config.train.tolerance)
    hypotheses = found.hypotheses + density.hypotheses + about_data(job)
    return with_terms(found.name, found.terms, delta, hypotheses, found.certifies, details=found.details)


def of_laws(moment: Moment) -> AbstractResNet:
    """The network of all probes: the nearest to the predictor of the laws that the run has."""
    probes = moment.ensemble.probes
    return eqx.tree_at(lambda m: (m.encoder, m.head), moment.state.model, (probes.encoder, probes.head))


POOLS = 4  # parts of the probes whose predictions are compared


def spread_of_pools(moment: Moment, x: Array) -> float | None:
    """Standard error of the predictions of `of_laws`, root mean square over the points.

    From the networks of `POOLS` disjoint parts of the probes: sqrt(mean variance over the parts / POOLS), which is
    that of f for the head and larger for the encoder, where f is not linear in the law.
    """
    probes, found = moment.ensemble.probes, []
    pools = min(POOLS, probes.encoder.w.shape[1])
    if pools < 2:
        return None
    for part in range(pools):
        encoder = jax.tree.map(lambda leaf, part=part: leaf[:, part::pools], probes.encoder)
        head = jax.tree.map(lambda leaf, part=part: leaf[part::pools], probes.head)
        network = eqx.tree_at(lambda m: (m.encoder, m.head), moment.state.model, (encoder, head))
        found.append(np.asarray(predict(network, x), np.float64))
    return float(np.sqrt(np.var(found, axis=0, ddof=1).mean() / pools))


def kernel_rows(job: Job) -> np.ndarray:
    """At most `KERNEL_POINTS` of the rows that the bounds are on, drawn by the run's seed (a table has an order)."""
    rows = certified_rows(job)
    key = jax.random.fold_in(jax.random.key(job.config.seed), KERNEL)
    return np.sort(rows[np.asarray(jax.random.permutation(key, len(rows)))[:KERNEL_POINTS]])


def kernel_of(job: Job, delta: float) -> Certificate:
    """The kernel comparator: G at the start, with the best of a stated list of ridges on its diagonal.

    A ridge makes another kernel of it, k(x, x') + ridge 1{x = x'}, regular however close two points are; its
    interpolant is ridge regression away from the training points.
    """
    train = job.split.train
    chosen = kernel_rows(job)
    if train.y.shape[1] != 1:
        raise MfresnetError("the kernel bound is for two classes with one output: use the PAC-Bayes certificate.")
    x, y = train.x[chosen], train.y[chosen, 0]
    total = gram(job.state.model, x, hold="total").total
    found: list[tuple[Certificate, float]] = []
    reasons, tried = [], len(RIDGES) * job.config.certify.settings  # the kernel has alpha, beta and the start in it
    for ridge in RIDGES:
        try:
            one = kernel_certificate(total + ridge * np.eye(len(x)), y, delta / tried)
        except MfresnetError as error:
            reasons.append(error)
        else:
            found.append((one, ridge))
    if not found:
        raise reasons[-1]
    best, ridge = min(found, key=lambda item: item[0].value)
    hypotheses = (
        *best.hypotheses,
        Hypothesis("new points differ from all training points", "assumed", note=f"its ridge is {ridge:g}"),
        *about_data(job),
    )
    details = best.details | {"ridge": ridge, "ridges": len(RIDGES), "grid": tried}
    return with_terms("kernel", best.terms, delta, hypotheses, best.certifies, details=details)


def held_out_of(job: Job, moment: Moment, delta: float) -> Certificate:
    """The exact binomial limit from the test part, of the network at the last recorded time."""
    _, rate = evaluate(moment.state.model, job.test, job.config.train.loss, train_task(job))
    n = len(job.split.test.x)
    return held_out_certificate(
        round(float(rate) * n), n, delta, guessing=guessing_error(job), certifies="the network as trained"
    )
