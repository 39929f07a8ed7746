"""Diagnostics of one state as flat numbers: the rows that training and `mfresnet measure` write.

gram.lambda_min.encoder / .head / .total   smallest eigenvalues of G1, G2 and G, with gram.error.*
gram.spectrum.*                            quantiles of each spectrum (LEVELS)
gram.dissipation, .residual, .encoder_share    theory, sections 4 and 5
regime.kernel_change, .alignment           theory, section 12
kl.encoder.value / .stderr / .check / .layers, kl.head...      theory, section 7
displacement.encoder / .head / .state      root mean squared, and the largest |z_L(t) - z_L(0)|
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..flow import Ensemble
from ..model import InitialScales, ScaledResNet
from .convergence import dissipation
from .divergence import Divergence, feature_displacement, kl_to_start, model_displacement, talagrand
from .eigen import smallest_eigenvalue, spectrum
from .gram import Gram, gram
from .initial_kernel import initial_kernel
from .precision import cast, double_precision
from .regime import alignment, regime

LEVELS = np.linspace(0, 1, 33)  # quantiles of a spectrum that are kept
LAYERS = 64  # most layers whose KL is written one by one; deeper networks are averaged in bins


@dataclass(frozen=True)
class Probe:
    """The fixed points on which Gram matrices are taken, and the network at its start.

    Args:
        start: the network at t = 0.
        x, y: points and targets; a subset of the training points where these are many.
        whole: whether they are all training points. lambda_min of a subset is never below that of
            the whole (interlacing), so only the whole supports the convergence certificate.
        initial: standard deviations of the start.
    """

    start: ScaledResNet
    x: np.ndarray
    y: np.ndarray
    whole: bool
    initial: InitialScales
    matrices: Gram | None = field(default=None)

    @classmethod
    def create(
        cls,
        start: ScaledResNet,
        x: np.ndarray,
        y: np.ndarray,
        *,
        points: int,
        initial: InitialScales | None = None,
        seed: int = 0,
    ) -> Probe:
        """At most ``points`` of the training points, drawn once; with the Gram matrices at the start."""
        whole = len(x) <= points
        if not whole:
            chosen = np.sort(np.random.default_rng(seed).choice(len(x), points, replace=False))
            x, y = x[chosen], y[chosen]
        return cls(start, x, y, whole, initial or InitialScales(), gram(start, x))


def gram_row(model: ScaledResNet, probe: Probe) -> dict[str, Any]:
    """Gram matrices of a state: smallest eigenvalues, spectra, dissipation, regime."""
    matrices = probe.matrices if model is probe.start else gram(model, probe.x)
    parts = {"encoder": matrices.encoder, "head": matrices.head, "total": matrices.total}
    row: dict[str, Any] = {}
    for name, matrix in parts.items():
        lowest = smallest_eigenvalue(matrix)
        row[f"gram.lambda_min.{name}"] = lowest.value
        row[f"gram.error.{name}"] = lowest.error
        row[f"gram.spectrum.{name}"] = np.quantile(spectrum(matrix), LEVELS)
    flow = dissipation(model, probe.x, probe.y, matrices)
    now = regime(probe.matrices.total, matrices.total, probe.y)
    return row | {
        "gram.dissipation": flow.rate,
        "gram.residual": flow.residual,
        "gram.encoder_share": flow.encoder_share,
        "regime.kernel_change": now.kernel_change,
        "regime.alignment": now.alignment,
    }


def initial_row(probe: Probe) -> dict[str, Any]:
    """The limit kernel at the start: lambda_0 and the computable lower bound of Lemma 4 of [C24]."""
    x = np.asarray(probe.start.embed(jnp.asarray(probe.x, probe.start.dtype)), np.float64)
    limit = initial_kernel(x, probe.start.sigma)
    return {
        "gram.limit.lambda_min": limit.lambda_min.value,
        "gram.limit.error": limit.lambda_min.error,
        "gram.limit.lower_bound": limit.lower_bound,
        "gram.limit.alignment": alignment(limit.gram, probe.y) if probe.y.shape[1] == 1 else None,
    }


def law_row(model: ScaledResNet, ensemble: Ensemble | None, probe: Probe) -> dict[str, Any]:
    """KL and displacements of a state; without probes the displacement of the network's own particles."""
    row: dict[str, Any] = {"displacement.encoder": model_displacement(probe.start.encoder, model.encoder)}
    if model.head is not None:
        row["displacement.head"] = model_displacement(probe.start.head, model.head)
    z_start, z_end = last_state(probe.start, probe.x), last_state(model, probe.x)
    row["displacement.state"] = float(np.linalg.norm(z_end - z_start, axis=-1).max())
    if ensemble is None:
        return row
    encoder, head = kl_to_start(ensemble, probe.initial)
    for name, found in (("encoder", encoder), ("head", head)):
        if found is not None:
            row |= _kl_entries(name, found)
    if encoder is not None and model.sigma.bounds[0] <= 1:
        bound = feature_displacement(z_start, z_end, float(model.alpha), encoder)
        row |= {"check.features": bound.right, "check.features_hold": bound.holds}
    return row


def _kl_entries(name: str, found: Divergence) -> dict[str, Any]:
    inequality = talagrand(found)
    row = {
        f"kl.{name}.value": found.kl.value,
        f"kl.{name}.stderr": found.kl.stderr,
        f"kl.{name}.check": found.check.value,
        f"kl.{name}.check_stderr": found.check.stderr,
        f"kl.{name}.displacement": found.displacement,
        f"check.talagrand_{name}": inequality.holds,
    }
    if found.layers is not None:
        row[f"kl.{name}.layers"] = _binned(found.layers[0])
    return row


def _binned(values: np.ndarray) -> np.ndarray:
    """At most LAYERS values, means over equal bins of depth."""
    if len(values) <= LAYERS:
        return values
    return np.array([part.mean() for part in np.array_split(values, LAYERS)])


def last_state(model: ScaledResNet, x: Any) -> np.ndarray:
    """States at s = 1, in float64."""
    with double_precision():
        return np.asarray(cast(model, np.float64).sweep(jnp.asarray(x, jnp.float64))[0])
