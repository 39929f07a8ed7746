"""The certificate of a fitted classifier: PAC-Bayes for sub-networks drawn from the trained laws."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..bounds import Certificate, Draw, pool, predictions, vote
from ..certify import Data, Grid, Problem, Snapshot, Spec, run
from ..errors import MfresnetError
from ..flow import Ensemble, Probes
from ..model import AbstractResNet
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


def rows_apart(n: int, seed: int, share: float = APART) -> np.ndarray:
    """Rows that fix the standardisation and that the bound leaves out: to the others it is a map given beforehand.

    >>> len(rows_apart(100, 0))
    25
    """
    return np.sort(np.random.default_rng([seed, 4]).permutation(n)[: max(1, round(share * n))])


def certificate_of(
    model: AbstractResNet,
    ensemble: Ensemble,
    x: np.ndarray,
    y: np.ndarray,
    seed: int,
    delta: float,
    fitted_on: np.ndarray | None,
) -> tuple[Certificate, tuple[Draw, Probes]]:
    """The PAC-Bayes certificate of the pipeline (`mfresnet.certify`), and the networks that were drawn for it.

    The prior is the Gaussian start. The theorem asks that the networks of the prior do not depend on the points of the
    bound, not even through the moments that standardise them: the bound is on the rows that did not fix those.

    Args:
        x, y: training rows, as the network sees them.
        fitted_on: rows that fixed the standardisation.

    Raises:
        MfresnetError: there is no such certificate.
    """
    sizes = pool(ensemble.probes)
    layers, heads = sizes["layers"], [k for k in HEADS if k <= sizes["head_probes"]] or [sizes["head_probes"]]
    spec = Spec(Grid.feasible([1], heads, [layers, 4 * layers], sizes), delta=delta, draws=DRAWS)
    data = Data(x, y, fitted_on=fitted_on, dtype=str(model.dtype))
    problem = Problem(model, (Snapshot.of(1, 0.0, model, ensemble),), data, spec, seed)
    certificates = run(problem, ("pac_bayes",))
    if "pac_bayes" not in certificates:
        raise MfresnetError(certificates.refused["pac_bayes"])
    best = problem.best.point
    networks = problem.draws.networks(best.residuals, best.heads), ensemble.probes
    return certificates["pac_bayes"], jax.tree.map(np.asarray, networks)


def votes(networks: tuple[Draw, Probes], model: AbstractResNet, x: np.ndarray) -> np.ndarray:
    """The place of the class that most of the drawn networks give to each row; the first class where none is finite."""
    return np.maximum(np.asarray(vote(predictions(*networks, model, jnp.asarray(x, model.dtype)))), 0)
