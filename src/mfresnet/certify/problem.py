"""What is certified: a trained network, snapshots of its laws, data, and a specification."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from jax import Array

from ..flow import Trainer, TrainState
from ..model import AbstractResNet, InitialScales
from .data import Data
from .draws import Choice, Draws
from .snapshots import Snapshot
from .spec import Spec

if TYPE_CHECKING:
    from .learned_prior import LearnedPrior


@dataclass(frozen=True, eq=False)
class PriorTraining:
    """How a prior is trained on a part of the training points: Euler steps of the flow, from the same start.

    Args:
        start: network and probes before training.
        trainer: of the network; its rule is replaced by Euler steps.
        h: length of a step.
        steps: their number.
        share: of the training points.
        key: chooses the part.
    """

    start: TrainState
    trainer: Trainer
    h: float
    steps: int
    share: float
    key: Array


@dataclass(frozen=True, eq=False)
class Problem:
    """The input of the pipeline (`mfresnet.certify.run`): no configuration, no file.

    Args:
        start: the network before training.
        snapshots: the laws at the times of ``spec.grid``, in order; the last one is that of the trained network.
        data: points.
        spec: failure probability, grid, what was tried.
        seed: of the draws.
        scales: standard deviations of the Gaussian start.
        prior: how to train a prior, or None.
    """

    start: AbstractResNet
    snapshots: tuple[Snapshot, ...]
    data: Data
    spec: Spec
    seed: int = 0
    scales: InitialScales = field(default_factory=InitialScales)
    prior: PriorTraining | None = None

    @property
    def last(self) -> Snapshot:
        """The last snapshot."""
        return self.snapshots[-1]

    @property
    def standard_start(self) -> bool:
        """Whether the laws start at standard Gaussians."""
        return self.scales == InitialScales()

    @cached_property
    def learned_prior(self) -> LearnedPrior:
        """The prior trained on a part of the points.

        Raises:
            MfresnetError: there is none.
        """
        from .learned_prior import LearnedPrior

        return LearnedPrior.train(self)

    @cached_property
    def draws(self) -> Draws:
        """The sub-networks that are drawn at every time."""
        return Draws.create(self.spec.grid, self.spec.draws, self.last.ensemble.probes, self.seed)

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """The best sizes at each snapshot, with the Gaussian start as prior."""
        spec = self.spec
        return tuple(self.draws.choose(one, self.data.points, spec.delta, spec.size) for one in self.snapshots)

    @property
    def best(self) -> Choice:
        """The best grid point of all snapshots."""
        return min(self.choices, key=lambda one: one.value)
