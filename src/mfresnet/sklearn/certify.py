"""The certificate of a fitted classifier: PAC-Bayes for sub-networks drawn from the trained laws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..bounds import Certificate, DrawnPoint, Hypothesis, draw_errors, drawn_certificate, draws, log_ratio_of, pool
from ..bounds.certificate import plain_reading
from ..bounds.subnetwork import probes_needed
from ..diagnostics.divergence import log_density_ratios
from ..flow import Ensemble
from ..model import InitialScales, ScaledResNet
from .engine import FLOW, Settings
from .rows import Rows

DRAWS = 64
HEADS = (4, 8, 16, 32, 64, 128)


def why_not(estimator: Any, rows: Rows, weights: np.ndarray, settings: Settings, again: bool) -> str:
    """Why there is no certificate, with the way to get one; empty where there is one."""
    if estimator.rule != FLOW:
        return f"rule = {estimator.rule!r} is no flow of the laws, which probes can follow: set rule='gradient-flow'"
    if min(settings.probes) == 0:
        return "there are no probe particles: set probes and head_probes > 0, and a smooth activation such as 'tanh'"
    if again:
        return "a warm start loses the probe particles: fit with warm_start=False"
    if len(weights) < 8:
        return f"the bounds need at least 8 data points, and there are {len(weights)}"
    if np.ptp(weights) > 0:
        return "sample_weight differs between rows, so they are no independent draws of one distribution: give none"
    return ""


def certificate_of(
    model: ScaledResNet,
    ensemble: Ensemble,
    x: np.ndarray,
    y: np.ndarray,
    seed: int,
    delta: float,
    standardised: bool,
) -> tuple[Certificate, str]:
    """The smallest `drawn_certificate` over a grid of k' and N', and an empty note.

    The prior is the Gaussian start. Where the features were standardised with moments of the same rows, the networks
    of the prior depend on the data through them, which the theorem does not allow: a hypothesis says so.

    Args:
        x, y: all training rows as the network sees them.
    """
    scales = InitialScales()
    ratios = []
    for part in ("encoder", "head"):
        probes, origin, gained = (getattr(v, part) for v in (ensemble.probes, ensemble.start, ensemble.log_ratio))
        ratios.append(log_density_ratios(probes, origin, gained, getattr(scales, part)))
    sizes: dict[str, Any] = pool(ensemble.probes)
    layers = sizes["layers"]
    heads = [k for k in HEADS if k <= sizes["head_probes"]] or [sizes["head_probes"]]
    residuals = [n for n in (layers, 4 * layers) if probes_needed(n, layers) <= sizes["probes"]]
    key, points = jax.random.key(seed + 3), []
    data = jnp.asarray(x, model.dtype), jnp.asarray(y, model.dtype)
    for k in heads:
        for n in residuals:
            key, own = jax.random.split(key)
            chosen = draws(
                own, DRAWS, **sizes, residuals=n, heads=k, most_residuals=max(residuals), most_heads=max(heads)
            )
            errors = draw_errors(chosen, ensemble.probes, model, *data)
            points.append(DrawnPoint(k, n, errors, log_ratio_of(chosen, *ratios)))
    outputs = y.shape[1]
    chance = 1 - 1 / max(2, outputs)
    found = drawn_certificate(points, len(x), delta, chance=chance)
    if standardised:
        moments = Hypothesis(
            "the map of the features to the sphere does not depend on the n points of the bound",
            "violated",
            note="they are standardised by their own moments: scale them beforehand and set standardize=False",
        )
        hypotheses = (*found.hypotheses, moments)
        largest = max(found.terms, key=lambda name: found.terms[name])
        reading = plain_reading(found.value, delta, found.certifies, chance, hypotheses, largest)
        found = replace(found, hypotheses=hypotheses, reading=reading)
    return found, ""
