"""How far the laws have moved: KL(tau_t || tau_0) and KL(nu_t || nu_0), exact up to sampling error.

Along the flow the log-density of a particle obeys d/dt log tau_t(omega_t) = Laplacian of the first
variation ([C24], Theorem 5), so a probe that started at omega_0 ~ tau_0 carries

    R = log(tau_t/tau_0)(omega_t) = (|omega_t|^2 - |omega_0|^2)/2 + int_0^t Laplacian dt',     KL = E[R].

Probes are independent and have no mass, so means over them come with standard errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ..errors import MfresnetError
from ..flow import Ensemble
from ..model import AbstractParticles, InitialScales
from .estimate import Estimate


@dataclass(frozen=True)
class Divergence:
    """KL divergence of one law (or of the mean over layers) to its start.

    Args:
        kl: mean of R. It can be negative where KL is below its standard error.
        nonnegative: mean of exp(-R) - 1 + R, as unbiased. Its small variance where KL is small serves slopes over many
            runs; its skewness where KL is large does not serve confidence limits, so it has none and is not printed.
        normalisation: mean of exp(-R), which is 1 for exact log-densities: an error check.
        layers: (values, standard errors) per layer of the encoder, shape (L,), or None for the head.
        displacement: root mean squared distance of a probe from its start, sqrt(E|omega_t - omega_0|^2).
    """

    kl: Estimate
    nonnegative: float
    normalisation: Estimate
    layers: tuple[np.ndarray, np.ndarray] | None
    displacement: float


def log_density_ratios(
    probes: AbstractParticles, start: AbstractParticles, log_ratio: Any, scale: tuple[float, float, float]
) -> np.ndarray:
    """R of each probe, shape of ``log_ratio``; ``scale`` are the standard deviations of the start of (out, w, b), for
    two-layer particles (others have their own).

    Raises:
        MfresnetError: a group starts with standard deviation 0, so its law has no density.
    """
    ratio = np.asarray(log_ratio, np.float64)
    names = {".out": "output weights", ".w": "input weights", ".b": "biases"}
    paths = jax.tree_util.tree_flatten_with_path(probes)[0]
    deviations = jax.tree.leaves(probes.deviations(scale))
    for (path, now), then, s in zip(paths, jax.tree.leaves(start), deviations, strict=True):
        s, name = np.asarray(s, np.float64), jax.tree_util.keystr(path)
        if not s.all():
            raise MfresnetError(
                f"the {names.get(name, f'parameters {name}')} start with standard deviation 0, so their law has no "
                "density and KL is not defined: give model.initial, or the particle's std, a value > 0."
            )
        now, then = (np.asarray(v, np.float64).reshape(*ratio.shape, -1) for v in (now, then))
        if s.ndim == 0:
            ratio = ratio + np.sum(now**2 - then**2, axis=-1) / (2 * s**2)
        else:
            ratio = ratio + np.sum((now**2 - then**2) / (2 * s.ravel() ** 2), axis=-1)
    return ratio


def displacements(probes: AbstractParticles, start: AbstractParticles) -> np.ndarray:
    """Squared distance of each particle from its start, shape (..., P)."""
    total = np.zeros(probes.batch)
    for now, then in zip(jax.tree.leaves(probes), jax.tree.leaves(start), strict=True):
        moved = np.asarray(now, np.float64) - np.asarray(then, np.float64)
        total = total + np.sum(moved.reshape(*probes.batch, -1) ** 2, axis=-1)
    return total


def summarise(ratios: np.ndarray, squared_displacements: np.ndarray) -> Divergence:
    """KL and its error checks from the R of each probe, shape (P,) or (L, P).

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=100_000)  # N(1/2, 1) against N(0, 1): KL = 1/8
    >>> divergence = summarise(0.5 * x + 0.125, np.full(x.shape, 0.25))
    >>> abs(divergence.kl.value - 0.125) < 4 * divergence.kl.stderr < 0.01
    True
    """
    with np.errstate(over="ignore"):
        weights = np.exp(-ratios)
    layers = None
    if ratios.ndim == 2:
        rows = [Estimate.of(row) for row in ratios]
        layers = (np.array([row.value for row in rows]), np.array([row.stderr for row in rows]))
    displacement = float(np.sqrt(squared_displacements.mean()))
    return Divergence(
        Estimate.of(ratios), float(np.mean(weights - 1 + ratios)), Estimate.of(weights), layers, displacement
    )


def kl_to_start(
    ensemble: Ensemble, initial: InitialScales | None = None
) -> tuple[Divergence | None, Divergence | None]:
    """(encoder, head) divergences from the probes a gradient flow carried along; None where it carried none.

    The encoder's is KL(nu_t || nu_0), the mean over layers.

    >>> import jax
    >>> from mfresnet.model import AbstractResNet
    >>> from mfresnet import LayeredResNet
    >>> model = LayeredResNet.create(jax.random.key(0), inputs=2)
    >>> encoder, head = kl_to_start(Ensemble.create(jax.random.key(1), model, encoder=4, head=8))
    >>> encoder.kl.value, head.displacement
    (0.0, 0.0)
    """
    scales = initial or InitialScales()
    divergences = []
    for part in ("encoder", "head"):
        probes, start, ratio = (getattr(v, part) for v in (ensemble.probes, ensemble.start, ensemble.log_ratio))
        if probes is None or probes.width == 0:
            divergences.append(None)
            continue
        ratios = log_density_ratios(probes, start, ratio, getattr(scales, part))
        divergences.append(summarise(ratios, displacements(probes, start)))
    return divergences[0], divergences[1]


@dataclass(frozen=True)
class Check:
    """An inequality of the theory, measured: ``left <= right`` within the error of the estimates."""

    left: float
    right: float
    holds: bool


def talagrand(divergence: Divergence, scale: float = 1.0) -> Check:
    """W2^2 <= 2 s^2 KL (Talagrand), s the largest standard deviation of the start, tested through W2 of the probes.

    The exact distance of the two samples is at most the displacement; the law's own distance is
    estimated by it from above, so ``left`` is E|omega_t - omega_0|^2 and a failure proves nothing,
    while ``holds`` proves (up to sampling) that the inequality does.
    """
    right = 2 * scale**2 * (divergence.kl.value + 2 * np.nan_to_num(divergence.kl.stderr))
    left = divergence.displacement**2
    return Check(left, float(right), bool(left <= right))


def feature_displacement(z_start: Any, z_end: Any, alpha: float, divergence: Divergence) -> Check:
    """|Z_nu(x, 1) - x| <= alpha sqrt(2 KL(nu || nu_0)) for |sigma0| <= 1.

    A statement on the limit law, in which the start leaves x where it is. A finite network adds the
    sampling error of its L M particles; ``z_start`` is therefore *its* state at s = 1 at the start of
    training, which carries most of that error too, and ``z_end`` the one now.
    """
    moved = np.linalg.norm(np.asarray(z_end, np.float64) - np.asarray(z_start, np.float64), axis=-1)
    right = alpha * np.sqrt(2 * max(0.0, divergence.kl.value + 2 * np.nan_to_num(divergence.kl.stderr)))
    return Check(float(moved.max()), float(right), bool(moved.max() <= right))


def model_displacement(start: AbstractParticles, end: AbstractParticles) -> float:
    """Root mean squared distance of the network's own particles from their starts, for any optimiser."""
    return float(np.sqrt(displacements(end, start).mean()))
