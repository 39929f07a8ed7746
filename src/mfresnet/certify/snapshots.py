"""What certificates are made from: the recorded times of a run, the stated grid, and the networks drawn at both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from ..bounds import (
    Density,
    Draw,
    Hypothesis,
    draws,
    errors_by_heads,
    log_ratios_by_heads,
    pac_bayes_bound,
    pool,
    probes_needed,
)
from ..bounds.checks import check_points
from ..bounds.density import normalisation_error_of
from ..config import Config
from ..diagnostics.divergence import log_density_ratios
from ..errors import MfresnetError
from ..flow import Batch, Ensemble, TrainState
from ..model import InitialScales
from ..train.job import Job, initial_scales
from ..train.schedule import snapshot_steps

FEW = 16  # draws with which the grid is searched; any search is allowed, the union bound is over the whole grid
DRAWS = 17  # name of the stream of random numbers


@dataclass(frozen=True)
class Grid:
    """What a PAC-Bayes certificate is minimised over, from the settings alone.

    Args:
        steps: recorded steps.
        heads, residuals: k' and N'.
        settings: configurations tried on the same points.
        patient: whether training stops on the certificate, so that the last time is one of ``steps`` chosen by it.
    """

    steps: tuple[int, ...]
    heads: tuple[int, ...]
    residuals: tuple[int, ...]
    settings: int = 1
    patient: bool = False

    @property
    def ends(self) -> int:
        """Laws of which the last one may be the chosen one: a union bound over them lets the draws choose it."""
        return self.settings * (len(self.steps) if self.patient else 1)

    @property
    def size(self) -> int:
        """Number of grid points, all of which the union bound pays for."""
        return len(self.steps) * len(self.heads) * len(self.residuals) * self.settings

    @classmethod
    def of(cls, config: Config, layers: int) -> Grid:
        """The grid of a resolved configuration.

        Raises:
            MfresnetError: there are too few probes for any grid point.
        """
        wanted, train = config.certify, config.train
        heads = [k for k in wanted.heads if k <= train.head_probes] if config.model.head else [0]
        residuals = [m for m in wanted.residuals if probes_needed(m, layers) <= train.probes]
        if not heads or not residuals:
            raise MfresnetError(
                f"no sub-network of the grid (certify.heads {list(wanted.heads)}, certify.residuals "
                f"{list(wanted.residuals)}) can be drawn from {train.probes} probes a layer and {train.head_probes} "
                "of the head: train with more probes, or lower certify.heads and certify.residuals."
            )
        steps = snapshot_steps(train.steps or 1, config.record.metrics_every or 1, config.record.snapshots) - {0}
        return cls(tuple(sorted(steps)), tuple(heads), tuple(residuals), wanted.settings, wanted.patience > 0)


@dataclass(frozen=True)
class Moment:
    """What one recorded time gives to the bounds.

    Args:
        step, time: when.
        state: network and probes.
        head, encoder: log-density ratios R of the probes, shapes (P,) and (L, P).
    """

    step: int
    time: float
    state: TrainState
    head: np.ndarray | None
    encoder: np.ndarray

    @property
    def ensemble(self) -> Ensemble:
        """The probes."""
        assert self.state.ensemble is not None
        return self.state.ensemble

    def at(self, state: TrainState, head: np.ndarray | None, encoder: np.ndarray) -> Moment:
        """The same time with another state or other ratios."""
        return replace(self, state=state, head=head, encoder=encoder)

    @property
    def normalisation_error(self) -> float:
        """Largest departure of the mean of exp(-R) from 1, which it is for exact densities."""
        return normalisation_error_of(self.head, self.encoder)

    def density(self, solver: str, tolerance: float | None = None) -> Density:
        """How well its ratios are known, of a law that ``solver`` made (as in ``train.solver``)."""
        if solver == "euler":
            return Density("euler", self.normalisation_error, int(self.ensemble.folded))
        return Density("solver", self.normalisation_error, tolerance=tolerance if solver == "adaptive" else None)


def ratios_at(ensemble: Ensemble, part: str, scales: InitialScales) -> np.ndarray:
    """R at the probes of the head or of the encoder."""
    probes, start, gain = (getattr(one, part) for one in (ensemble.probes, ensemble.start, ensemble.log_ratio))
    return log_density_ratios(probes, start, gain, getattr(scales, part))


def moment_of(job: Job, state: TrainState) -> Moment:
    """A state with the log-density ratios of its probes."""
    assert state.ensemble is not None
    scales, ensemble, step = initial_scales(job.config), state.ensemble, int(state.step)
    ratios = {
        part: None if getattr(ensemble.probes, part) is None else ratios_at(ensemble, part, scales)
        for part in ("head", "encoder")
    }
    now = step * job.config.train.time / (job.config.train.steps or 1)
    assert ratios["encoder"] is not None
    return Moment(step, now, state, ratios["head"], ratios["encoder"])


@dataclass(frozen=True)
class Draws:
    """The sub-networks that are drawn: the same places in the pool of probes at every time.

    Args:
        chosen: for each N', a list of blocks of `FEW` draws of the largest head, so that one compiled program serves
            every grid point and every time.
    """

    grid: Grid
    count: int
    chosen: Mapping[int, list[Draw]]

    @classmethod
    def of(cls, job: Job, grid: Grid) -> Draws:
        """Drawn by a key of the run's seed that nothing else uses."""
        assert job.state.ensemble is not None
        key = jax.random.fold_in(jax.random.key(job.config.seed), DRAWS)
        count = job.config.certify.draws
        sizes: dict[str, Any] = {"most_residuals": max(grid.residuals), "heads": max(grid.heads)} | pool(
            job.state.ensemble.probes
        )
        chosen = {}
        for residuals in grid.residuals:
            one_key = jax.random.fold_in(key, residuals)
            found = jax.tree.map(np.asarray, draws(one_key, FEW * -(-count // FEW), residuals=residuals, **sizes))
            chosen[residuals] = [
                jax.tree.map(lambda leaf, start=start: leaf[start : start + FEW], found)
                for start in range(0, count, FEW)
            ]
        return cls(grid, count, chosen)

    def measured(
        self, moment: Moment, residuals: int, data: Batch, count: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Errors on ``data`` and log(dQ/dP) of the first ``count`` draws (rows) for every k' of the grid (columns)."""
        count = min(count or self.count, self.count)
        blocks, heads = self.chosen[residuals][: -(-count // FEW)], self.grid.heads
        probes, network = moment.ensemble.probes, moment.state.model
        errors = [errors_by_heads(block, probes, network, data.x, data.y, heads) for block in blocks]
        ratios = [log_ratios_by_heads(block, moment.encoder, moment.head, heads) for block in blocks]
        return np.concatenate(errors)[:count], np.concatenate(ratios)[:count]

    def best(self, moment: Moment, data: Batch, delta: float) -> tuple[float, int, int]:
        """(bound, N', place of k') that the first `FEW` draws make smallest at one time, over the grid's sizes.

        The union over the whole grid is in the bound, so that this search may choose by it.
        """
        choices = []
        for residuals in self.grid.residuals:
            errors, ratios = self.measured(moment, residuals, data, FEW)
            rates = np.minimum(errors.mean(axis=0), 1.0)
            values = pac_bayes_bound(rates, ratios.mean(axis=0), len(data.x), delta, self.grid.size)
            choices += [(float(value), residuals, place) for place, value in enumerate(values)]
        return min(choices)


def guessing_error(job: Job) -> float:
    """Error of guessing the largest class among the training points."""
    return majority_error(job.split.train.y)


def majority_error(y: np.ndarray) -> float:
    """1 minus the share of the largest class, of targets -1/+1 in one column or one-hot.

    >>> majority_error(np.array([[1.0], [1.0], [-1.0], [1.0]]))
    0.25
    """
    classes = (y[:, 0] > 0).astype(int) if y.shape[1] == 1 else np.argmax(y, axis=1)
    return 1 - float(np.bincount(classes).max()) / len(y)


def train_task(job: Job) -> str:
    """binary or multiclass."""
    return job.split.train.task


def certified_rows(job: Job) -> np.ndarray:
    """Training rows that the bounds are on: those that did not fix the map of the inputs, where there are such."""
    rows = np.arange(len(job.split.train.x))
    others = np.setdiff1d(rows, [] if job.split.fitted_on is None else job.split.fitted_on)
    return others if len(others) else rows


def certified(job: Job) -> Batch:
    """The points that the bounds are on.

    Raises:
        MfresnetError: fewer than 8.
    """
    rows = certified_rows(job)
    check_points(len(rows))
    return jax.tree.map(lambda leaf: leaf[rows], job.train)


def about_data(job: Job) -> tuple[Hypothesis, ...]:
    """Whether the map of the inputs saw the points of the bound."""
    statement = "the map of the inputs does not depend on the points of the bound"
    fitted, n = job.split.fitted_on, len(job.split.train.x)
    if fitted is None:
        return (Hypothesis(statement, "proved"),)
    if len(fitted) < n:
        return (Hypothesis(statement, "proved", note=f"fitted on {len(fitted)} training points that are left out"),)
    return (
        Hypothesis(
            statement,
            "violated",
            note="its numbers are those of all training inputs (no labels): set --data.map-share 0.25 to fix it on a "
            "quarter of them and certify on the others, or --data.transform none or lift where inputs need no scaling",
        ),
    )
