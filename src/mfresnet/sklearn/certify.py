"""The certificate of a fitted classifier: PAC-Bayes for sub-networks drawn from the trained laws."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..bounds import (
    Certificate,
    Density,
    Draw,
    DrawnPoint,
    Hypothesis,
    draw_errors,
    drawn_certificate,
    draws,
    log_ratio_of,
    pool,
    predictions,
    vote,
)
from ..bounds.density import normalisation_error_of
from ..bounds.subnetwork import probes_needed
from ..certify.snapshots import majority_error
from ..diagnostics.divergence import log_density_ratios
from ..flow import Ensemble, Probes
from ..model import AbstractResNet, InitialScales
from .engine import FLOW, Settings

APART = 0.25  # share of the rows that fix the standardisation of a network that is certified
DRAWS = 64
HEADS = (4, 8, 16, 32, 64, 128)


def why_not(estimator: Any, weights: np.ndarray, settings: Settings, again: bool) -> str:
    """Why there is no certificate, with the way to get one; empty where there is one."""
    if estimator.rule != FLOW:
        return f"rule = {estimator.rule!r} is no flow of the laws, which probes can follow: set rule='gradient-flow'"
    if min(settings.probes) == 0:
        return "there are no probe particles: set probes and head_probes > 0, and a smooth activation such as 'tanh'"
    if again:
        return "a warm start loses the probe particles: fit with warm_start=False"
    left = len(weights) - (len(rows_apart(len(weights), 0)) if estimator.standardize else 0)
    if left < 8:
        used = ", of which some fix the standardisation" if left < len(weights) else ""
        return f"the bounds need at least 8 data points, and there are {len(weights)}{used}"
    if np.ptp(weights) > 0:
        return "sample_weight differs between rows, so they are no independent draws of one distribution: give none"
    return ""


def rows_apart(n: int, seed: int) -> np.ndarray:
    """Rows that fix the standardisation and that the bound leaves out: to the others it is a map given beforehand.

    >>> len(rows_apart(100, 0))
    25
    """
    return np.sort(np.random.default_rng([seed, 4]).permutation(n)[: max(1, round(APART * n))])


def certificate_of(
    model: AbstractResNet,
    ensemble: Ensemble,
    x: np.ndarray,
    y: np.ndarray,
    seed: int,
    delta: float,
    rows: int,
) -> tuple[Certificate, tuple[Draw, Probes]]:
    """The smallest `drawn_certificate` over a grid of k' and N', and the networks that were drawn for it.

    The prior is the Gaussian start. The theorem asks that the networks of the prior do not depend on the points of the
    bound, not even through the moments that standardise them: rows that fixed those are not among ``x``.

    Args:
        x, y: training rows of the bound, as the network sees them.
        rows: number of all training rows.
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
    key, points, drawn = jax.random.key(seed + 3), [], {}
    data = jnp.asarray(x, model.dtype), jnp.asarray(y, model.dtype)
    for k in heads:
        for n in residuals:
            key, own = jax.random.split(key)
            chosen = draws(
                own, DRAWS, **sizes, residuals=n, heads=k, most_residuals=max(residuals), most_heads=max(heads)
            )
            errors = draw_errors(chosen, ensemble.probes, model, *data)
            points.append(DrawnPoint(k, n, errors, log_ratio_of(chosen, *ratios)))
            drawn[k, n] = chosen
    guessing = majority_error(y)
    note = f"fitted on {rows - len(x)} rows that are left out" if len(x) < rows else ""
    statement = "the map of the features to the sphere does not depend on the points of the bound"
    density = Density("euler", normalisation_error_of(*ratios), int(ensemble.folded))
    found = drawn_certificate(points, len(x), delta, density=density, guessing=guessing)
    best = drawn[found.details["heads"], found.details["residuals"]]
    networks = jax.tree.map(np.asarray, (best, ensemble.probes))
    return found.with_hypotheses(Hypothesis(statement, "proved", note=note), guessing=guessing), networks


def votes(networks: tuple[Draw, Probes], model: AbstractResNet, x: np.ndarray) -> np.ndarray:
    """The place of the class that most of the drawn networks give to each row."""
    return np.asarray(vote(predictions(*networks, model, jnp.asarray(x, model.dtype))))
