"""Rademacher bounds over KL balls, of the predictor of the laws: the KL ball itself, and the form of Theorem 6."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import equinox as eqx
import jax
import numpy as np
from jax import Array

from ..bounds import Certificate, head_rademacher, kl_ball_certificate, kl_estimate, theorem6_certificate
from ..bounds.certificate import build
from ..bounds.supremum import quadrature
from ..errors import MfresnetError
from ..flow import predict
from ..model import Particles
from .drawn import error_of
from .problem import Problem
from .snapshots import Snapshot

POOLS = 4  # parts of the probes whose predictions are compared


def certify_kl_ball(problem: Problem) -> Certificate:
    """The Rademacher bound of the KL ball at the last time: of the predictor of the laws, seen through all probes.

    Beside the bound of the head's part its details have the number itself, by duality, at the states of the start.
    """
    certificate = _certify_ball(kl_ball_certificate, problem)
    network, x = problem.last.model, problem.data.points.x
    radius = float(certificate.details["head_radius"] or 0)
    exact = head_rademacher(
        network.embed(x), radius, beta=float(network.beta), sigma=network.sigma,
        bias=isinstance(network.head, Particles) and network.head.b is not None,
        draws=16, samples=quadrature(len(x)), replicates=2, seed=problem.seed,
    )  # fmt: skip
    more = {"rademacher.head.exact": exact.value, "rademacher.head.exact.error": exact.error}
    return replace(certificate, details=certificate.details | more)


def certify_theorem6(problem: Problem) -> Certificate:
    """Theorem 6's form with its constant from the KLs at the last time, of the predictor of the laws."""
    return _certify_ball(theorem6_certificate, problem)


def _certify_ball(bound: Callable[..., Certificate], problem: Problem) -> Certificate:
    """A bound over KL balls: half of delta is for it, a quarter for the upper limits of each KL.

    The bound holds for all laws at once, the limits for one: they are paid for at each law that probes had a say in.
    """
    snapshot, spec, data = problem.last, problem.spec, problem.data
    if snapshot.head is None:
        raise MfresnetError("the KL-ball bound needs a head, and this network has none: set model.head true.")
    if not snapshot.model.two_layer:
        raise MfresnetError("the KL-ball bound is for two-layer particles: use the PAC-Bayes or the path certificate.")
    if data.y.shape[1] != 1:
        raise MfresnetError("the KL-ball bound is for two classes with one output: use the PAC-Bayes certificate.")
    head, encoder = (kl_estimate(r, spec.delta / (4 * spec.ends)) for r in (snapshot.head, snapshot.encoder))
    network, points = snapshot.network_of_probes, data.points
    margins = np.asarray(predict(network, points.x) * points.y, np.float64)[:, 0]
    certificate = bound(
        margins,
        head_kl=head.upper,
        encoder_kl=encoder.upper,
        alpha=float(network.alpha),
        beta=float(network.beta),
        sigma=network.sigma,
        delta=spec.delta / 2,
        head_error=head.stderr,
        encoder_error=encoder.stderr,
        margin_error=spread_of_pools(snapshot, points.x),
        settings=spec.settings,
        standard_start=problem.standard_start,
    )
    hypotheses = certificate.hypotheses + snapshot.density.hypotheses + data.hypotheses
    details = certificate.details
    if data.test is not None:
        details = details | {"test_error_of_laws": error_of(network, data.test)}
    return build(
        certificate.name,
        certificate.terms,
        spec.delta,
        hypotheses,
        certificate.certifies,
        guessing=data.guessing,
        details=details,
    )


def spread_of_pools(snapshot: Snapshot, x: Array) -> float | None:
    """Standard error of the predictions of the network of all probes, root mean square over the points.

    From the networks of `POOLS` disjoint parts of the probes: sqrt(mean variance over the parts / POOLS), which is
    that of f for the head and larger for the encoder, where f is not linear in the law. None with one probe a layer.
    """
    probes, predictions = snapshot.ensemble.probes, []
    pools = min(POOLS, probes.encoder.width)
    if pools < 2:
        return None
    for part in range(pools):
        encoder = jax.tree.map(lambda leaf, part=part: leaf[:, part::pools], probes.encoder)
        head = jax.tree.map(lambda leaf, part=part: leaf[part::pools], probes.head)
        network = eqx.tree_at(lambda m: (m.encoder, m.head), snapshot.model, (encoder, head))
        predictions.append(np.asarray(predict(network, x), np.float64))
    return float(np.sqrt(np.var(predictions, axis=0, ddof=1).mean() / pools))
