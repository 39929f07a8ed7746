"""The rule langevin of the classifier: certified chains, which vote where there are several."""

from __future__ import annotations

from math import sqrt
from typing import Any

import jax
import numpy as np

from ..bounds import Certificate, Hypothesis
from ..certify import NetworkPredictor, path
from ..errors import MfresnetError
from ..model import AbstractResNet
from ..train.defaults import resolved
from .engine import Settings, Trained

SHARPNESS = 27.0  # scale of the surrogate in units of the standard deviation of f at the start
PILOT_SHARE, PILOT_LEAST = 3, 400  # pilot chains take a third of the steps, or so many


def check_langevin(estimator: Any, weights: np.ndarray, again: bool) -> None:
    """Refuse what an annealed chain cannot do.

    Raises:
        MfresnetError: naming the parameter and its remedy.
    """
    if estimator._task() == "regression":
        raise MfresnetError("rule = 'langevin' trains on mistakes of classes: use another rule for regression.")
    if again:
        raise MfresnetError("warm_start = True does not go with rule = 'langevin', whose chain starts at its prior.")
    if estimator.early_stopping:
        raise MfresnetError("early_stopping = True does not go with rule = 'langevin': the certificate needs no split.")
    if np.ptp(weights) > 0:
        raise MfresnetError(
            "sample_weight and class_weight do not go with rule = 'langevin': every point counts alike."
        )


def train_langevin(
    settings: Settings,
    model: AbstractResNet,
    x: np.ndarray,
    y: np.ndarray,
    seed: int,
    delta: float,
    mapped: int,
    chains: int = 1,
) -> tuple[Trained, list[AbstractResNet], Certificate]:
    """The network at the end of one chain of ``max_iter`` steps, those of others, and their certificate.

    Args:
        x, y: mapped inputs and targets (n, C) of the points that are certified.
        mapped: rows that fixed the map of the inputs and are not among them.
        chains: several are certified by their vote.
    """
    f, sizes = NetworkPredictor(model), settings.config.model
    scale = SHARPNESS * sqrt(sizes.head_width) / resolved(sizes.beta)
    note = f"fitted on {mapped} rows that are left out" if mapped else "it reads no data"
    done = path(
        f, f.prior(), (x, y), None, jax.random.key(seed), delta=delta, chains=chains,
        certifies="vote" if chains > 1 else "chain", steps=settings.steps,
        scale=scale, pilot_steps=max(PILOT_LEAST, settings.steps // PILOT_SHARE),
        more=(Hypothesis("the map of the inputs does not depend on the points of the bound", "proved", note=note),),
    )  # fmt: skip
    losses = np.asarray(done.chains.losses)[1:, 0]
    curve = [float(np.mean(part)) for part in np.array_split(losses, max(1, len(losses) // 50))]
    networks = [f.network(done.param(chain)) for chain in range(chains)]
    return Trained(networks[0], (), None, curve, settings.steps, False), networks[1:], done.certificate
