"""Snapshots: the laws at recorded times, with the log-density ratios of their probes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import equinox as eqx
import numpy as np

from ..bounds import Density
from ..bounds.density import normalisation_error_of
from ..diagnostics.divergence import log_density_ratios
from ..errors import MfresnetError
from ..flow import Ensemble
from ..model import AbstractResNet, InitialScales


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What one recorded time gives to the bounds.

    Args:
        step, time: when.
        model: the network.
        ensemble: the probes of its laws.
        head, encoder: log-density ratios R of the probes to the prior, shapes (P,) and (L, P).
        solver: what moved the laws: "euler", or another solver of the flow.
        tolerance: of a solver that controls its error, else None.
    """

    step: int
    time: float
    model: AbstractResNet
    ensemble: Ensemble
    head: np.ndarray | None
    encoder: np.ndarray
    solver: str = "euler"
    tolerance: float | None = None

    @classmethod
    def of(
        cls,
        step: int,
        time: float,
        model: AbstractResNet,
        ensemble: Ensemble | None,
        *,
        scales: InitialScales | None = None,
        solver: str = "euler",
        tolerance: float | None = None,
    ) -> Snapshot:
        """A snapshot whose ratios are those to the Gaussian start.

        Args:
            scales: standard deviations of the start.

        Raises:
            MfresnetError: there are no probes.
        """
        if ensemble is None:
            raise MfresnetError(
                "this training carries no probes (they need layers, and an activation with a second derivative), so "
                "nothing can be certified: train with model.kind layered and a smooth activation such as tanh."
            )
        head, encoder = ratios_to_start(ensemble, scales or InitialScales())
        return cls(step, time, model, ensemble, head, encoder, solver, tolerance)

    def with_laws(
        self, model: AbstractResNet, ensemble: Ensemble, head: np.ndarray | None, encoder: np.ndarray
    ) -> Snapshot:
        """The same time with other laws, moved by Euler steps, and other ratios."""
        return replace(self, model=model, ensemble=ensemble, head=head, encoder=encoder, solver="euler", tolerance=None)

    @property
    def normalisation_error(self) -> float:
        """Largest deviation of the mean of exp(-R) from 1, which it is for exact densities."""
        return normalisation_error_of(self.head, self.encoder)

    @property
    def density(self) -> Density:
        """How well its ratios are known."""
        if self.solver == "euler":
            return Density("euler", self.normalisation_error, int(self.ensemble.not_one_to_one))
        return Density("solver", self.normalisation_error, tolerance=self.tolerance)

    @property
    def network_of_probes(self) -> AbstractResNet:
        """The network of all probes: the nearest to the predictor of the laws that there is."""
        probes = self.ensemble.probes
        return eqx.tree_at(lambda m: (m.encoder, m.head), self.model, (probes.encoder, probes.head))


def ratios_to_start(ensemble: Ensemble, scales: InitialScales) -> tuple[np.ndarray | None, np.ndarray]:
    """R of the probes of the head and of the encoder: log-density ratios to the Gaussian start."""
    ratios: list[np.ndarray | None] = []
    for part in ("head", "encoder"):
        probes, start, gain = (getattr(one, part) for one in (ensemble.probes, ensemble.start, ensemble.log_ratio))
        ratios.append(None if probes is None else log_density_ratios(probes, start, gain, getattr(scales, part)))
    head, encoder = ratios
    assert encoder is not None
    return head, encoder
