"""Diagnostics of one state as flat numbers: the rows that training and `mfresnet measure` write.

gram.lambda_min.encoder / .head / .total   smallest eigenvalues of G1, G2 and G, with gram.error.*
gram.spectrum.*                            quantiles of each spectrum (LEVELS)
gram.dissipation, .residual, .encoder_share    [C24] section 3
regime.kernel_change, .alignment           `mfresnet.diagnostics.regime`
kl.encoder.value / .stderr / .check / .layers, kl.head...      [C24] Theorem 5
displacement.encoder / .head / .state / .places      root mean squared, and the largest |z_L(t) - z_L(0)|
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..flow import Ensemble
from ..kernels.eigen import smallest_eigenvalue, spectrum
from ..kernels.gram import Gram, gram
from ..kernels.initial_kernel import initial_kernel
from ..kernels.precision import cast, double_precision
from ..model import AbstractParticles, AbstractResNet, InitialScales, Particles
from .convergence import dissipation
from .divergence import Divergence, feature_displacement, kl_to_start, model_displacement, talagrand
from .regime import alignment, regime
from .transport import knn_kl, wasserstein2

LEVELS = np.linspace(0, 1, 33)  # quantiles of a spectrum that are kept
LANDSCAPE_POINTS = 512  # training points of the landscape check and of the first-order paths
TRANSPORT_POINTS = 1024  # particles in one exact assignment
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

    start: AbstractResNet
    x: np.ndarray
    y: np.ndarray
    whole: bool
    initial: InitialScales

    @cached_property
    def matrices(self) -> Gram:
        """Gram matrices of the start on these points."""
        return gram(self.start, self.x)

    @cached_property
    def last_state(self) -> np.ndarray:
        """States at s = 1 of the start on these points."""
        return last_state(self.start, self.x)

    @classmethod
    def create(
        cls,
        start: AbstractResNet,
        x: np.ndarray,
        y: np.ndarray,
        *,
        points: int,
        initial: InitialScales | None = None,
        seed: int = 0,
    ) -> Probe:
        """At most ``points`` of the training points, see `draw_rows`."""
        rows = draw_rows(len(x), points, seed)
        return cls(start, x[rows], y[rows], len(rows) == len(x), initial or InitialScales())


def draw_rows(n: int, most: int, seed: int) -> np.ndarray:
    """At most ``most`` of ``n`` rows in rising order, uniform without replacement; all of them where they are few.

    Whatever is measured on a part of the training points takes this part: the first rows of a table in the order of its
    classes would hold one class alone.

    >>> draw_rows(4, 8, seed=0).tolist(), len(draw_rows(100, 8, seed=0))
    ([0, 1, 2, 3], 8)
    """
    return np.arange(n) if n <= most else np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def gram_row(model: AbstractResNet, ensemble: Ensemble | None, probe: Probe) -> dict[str, Any]:
    """Gram matrices of a state: smallest eigenvalues, spectra, dissipation, regime."""
    matrices = probe.matrices if model is probe.start else gram(model, probe.x)
    parts = {"encoder": matrices.encoder, "head": matrices.head, "total": matrices.total}
    row: dict[str, Any] = {}
    for name, matrix in parts.items():
        lowest = smallest_eigenvalue(matrix, rank=matrices.ranks[name])
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
    """The limit kernel at the start: lambda_0 and the computable lower bound of Lemma 4 of [C24].

    It is that of standard Gaussian laws of two-layer particles with bias and a head; other starts have no entry.
    """
    start = probe.start
    if not (isinstance(start.encoder, Particles) and isinstance(start.head, Particles)):
        return {}
    if start.encoder.b is None or probe.initial != InitialScales():
        return {}
    x = np.asarray(probe.start.embed(jnp.asarray(probe.x, probe.start.dtype)), np.float64)
    limit = initial_kernel(x, probe.start.sigma)
    return {
        "gram.limit.lambda_min": limit.lambda_min.value,
        "gram.limit.error": limit.lambda_min.error,
        "gram.limit.lower_bound": limit.lower_bound,
        "gram.limit.alignment": alignment(limit.gram, probe.y) if probe.y.shape[1] == 1 else None,
    }


def law_row(model: AbstractResNet, ensemble: Ensemble | None, probe: Probe) -> dict[str, Any]:
    """KL and displacements of a state; without probes the displacement of the network's own particles."""
    row: dict[str, Any] = {"displacement.encoder": model_displacement(probe.start.encoder, model.encoder)}
    if model.head is not None and probe.start.head is not None:
        row["displacement.head"] = model_displacement(probe.start.head, model.head)
    if model.places is not None and probe.start.places is not None:
        row |= place_row(np.asarray(model.places, np.float64), np.asarray(probe.start.places, np.float64))
    z_start, z_end = probe.last_state, last_state(model, probe.x)
    row["displacement.state"] = float(np.linalg.norm(z_end - z_start, axis=-1).max())
    if ensemble is None:
        return row
    encoder, head = kl_to_start(ensemble, probe.initial)
    for name, divergence in (("encoder", encoder), ("head", head)):
        if divergence is not None:
            scale = float(_scales(getattr(model, name), getattr(probe.initial, name)).max())
            row |= _kl_entries(name, divergence, scale)
    if encoder is not None and isinstance(model.encoder, Particles) and model.sigma.bounds[0] <= 1:
        bound = feature_displacement(z_start, z_end, float(model.alpha), encoder)
        row |= {"check.features": bound.right, "check.features_hold": bound.holds}
    return row


def place_row(now: np.ndarray, then: np.ndarray) -> dict[str, Any]:
    """How far particles with trained places moved along depth, and the share of pairs that swapped places."""
    # of the order at the start, which of two particles is the deeper one now
    order = now[np.argsort(then, kind="stable")]
    swapped = sum(int(np.sum(order[i + 1 :] < order[i])) for i in range(len(order) - 1))
    pairs = len(order) * (len(order) - 1) / 2
    return {
        "displacement.places": float(np.sqrt(np.mean((now - then) ** 2))),
        "places.swapped": swapped / pairs if pairs else 0.0,
    }


def transport_row(model: AbstractResNet, ensemble: Ensemble | None, probe: Probe) -> dict[str, Any]:
    """W2 between law and start by exact assignment, and for optimisers a nearest-neighbour KL.

    Probes are compared with their own starts, so both samples share their sampling error. Without
    probes the network's particles stand for the law: KL is then a nearest-neighbour estimate, which
    is biased low, and says so by its name.
    """
    if ensemble is None:
        pairs = {"encoder": (model.encoder, probe.start.encoder), "head": (model.head, probe.start.head)}
    else:
        pairs = {part: (getattr(ensemble.probes, part), getattr(ensemble.start, part)) for part in ("encoder", "head")}
    row: dict[str, Any] = {}
    for part, (now, then) in pairs.items():
        if now is None or now.width < 2:
            continue
        a, b = now.flat(), then.flat()
        layers = (a[None], b[None]) if a.ndim == 2 else (a, b)
        distances = [wasserstein2(p[:TRANSPORT_POINTS], q[:TRANSPORT_POINTS]) for p, q in zip(*layers, strict=True)]
        # the mean over layers of W2^2 is the squared distance of the laws over depth
        row[f"w2.{part}"] = float(np.sqrt(np.mean(np.square(distances))))
        scales = _scales(now, getattr(probe.initial, part))
        if ensemble is None and probe.initial.law == "gaussian" and scales.all():  # a law with a density
            pooled = a.reshape(-1, a.shape[-1]) / scales
            row[f"kl.{part}.nearest_neighbour"] = knn_kl(pooled[: 4 * TRANSPORT_POINTS], _gaussian_log_density).value
    return row


def _gaussian_log_density(points: np.ndarray) -> np.ndarray:
    """Of the standard Gaussian."""
    return -0.5 * np.sum(points**2, axis=-1) - 0.5 * points.shape[-1] * np.log(2 * np.pi)


def _scales(particles: AbstractParticles, scale: tuple[float, float, float]) -> np.ndarray:
    """Standard deviation of the start for each coordinate of a particle as a plain vector."""
    shapes = particles.shapes()
    deviations = jax.tree.leaves(particles.deviations(scale))
    return np.concatenate([np.broadcast_to(s, shape).ravel() for s, shape in zip(deviations, shapes, strict=True)])


def _kl_entries(name: str, divergence: Divergence, scale: float) -> dict[str, Any]:
    inequality = talagrand(divergence, scale)
    row = {
        f"kl.{name}.value": divergence.kl.value,
        f"kl.{name}.stderr": divergence.kl.stderr,
        f"kl.{name}.check": divergence.normalisation.value,
        f"kl.{name}.check_stderr": divergence.normalisation.stderr,
        f"kl.{name}.displacement": divergence.displacement,
        f"check.talagrand_{name}": inequality.holds,
    }
    if divergence.layers is not None:
        row[f"kl.{name}.layers"] = _bin(divergence.layers[0])
    return row


def _bin(values: np.ndarray) -> np.ndarray:
    """At most LAYERS values, means over equal bins of depth."""
    if len(values) <= LAYERS:
        return values
    return np.array([part.mean() for part in np.array_split(values, LAYERS)])


@eqx.filter_jit
def _last_state(model: AbstractResNet, x: Any) -> Any:
    return model.sweep(x)[0]


def last_state(model: AbstractResNet, x: Any) -> np.ndarray:
    """States at s = 1, in float64."""
    with double_precision():
        return np.asarray(_last_state(cast(model, np.float64), jnp.asarray(x, jnp.float64)))
