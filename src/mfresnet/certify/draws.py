"""The sub-networks that are drawn from the laws of a snapshot, and the search for the best sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ..bounds import Draw, DrawnPoint, draws, log_ratios_by_heads, mistakes_by_heads, pac_bayes_bound, pool
from ..flow import Batch, Probes
from .snapshots import Snapshot
from .spec import Grid

FEW = 16  # draws with which the grid is searched; any search is allowed, the union bound is over the whole grid
STREAM = 17  # name of the stream of random numbers


@dataclass(frozen=True)
class Choice:
    """Drawn sub-networks at one grid point: the bound, what it is made of, and where it is.

    Args:
        place: the place of k' in the grid's heads.
    """

    value: float
    point: DrawnPoint
    snapshot: Snapshot
    place: int


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
    def create(cls, grid: Grid, count: int, probes: Probes, seed: int) -> Draws:
        """Drawn by a key of the seed that nothing else uses.

        Args:
            probes: a pool of the size to draw from.
        """
        key = jax.random.fold_in(jax.random.key(seed), STREAM)
        sizes: dict[str, Any] = {"most_residuals": max(grid.residuals), "heads": max(grid.heads)} | pool(probes)
        chosen = {}
        for residuals in grid.residuals:
            own = jax.random.fold_in(key, residuals)
            places = jax.tree.map(np.asarray, draws(own, FEW * -(-count // FEW), residuals=residuals, **sizes))
            chosen[residuals] = [
                jax.tree.map(lambda leaf, start=start: leaf[start : start + FEW], places)
                for start in range(0, count, FEW)
            ]
        return cls(grid, count, chosen)

    def networks(self, residuals: int, heads: int) -> Draw:
        """The draws of one size."""
        blocks = self.chosen[residuals]
        whole = jax.tree.map(lambda *leaves: np.concatenate(leaves)[: self.count], *blocks)
        return whole._replace(heads=np.full(self.count, heads), head=whole.head[:, : max(heads, 0)])

    def mistakes(self, snapshot: Snapshot, residuals: int, data: Batch, count: int | None = None) -> np.ndarray:
        """Which points each of the first ``count`` draws gets wrong, shape (draws, k' of the grid, n)."""
        count = min(count or self.count, self.count)
        blocks = self.chosen[residuals][: -(-count // FEW)]
        probes, network = snapshot.ensemble.probes, snapshot.model
        wrong = [mistakes_by_heads(block, probes, network, data.x, data.y, self.grid.heads) for block in blocks]
        return np.concatenate(wrong)[:count]

    def measure(
        self, snapshot: Snapshot, residuals: int, data: Batch, count: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Errors on ``data`` and log(dQ/dP) of the first ``count`` draws (rows) for every k' of the grid (columns)."""
        errors = self.mistakes(snapshot, residuals, data, count).mean(axis=-1)
        ratios = [
            log_ratios_by_heads(block, snapshot.encoder, snapshot.head, self.grid.heads)
            for block in self.chosen[residuals][: -(-len(errors) // FEW)]
        ]
        return errors, np.concatenate(ratios)[: len(errors)]

    def search(self, snapshot: Snapshot, data: Batch, delta: float, paid: int) -> tuple[float, int, int]:
        """(bound, N', place of k') that the first `FEW` draws make smallest at one time, over the grid's sizes.

        The union over all ``paid`` grid points is in the bound, so that this search may choose by it.
        """
        choices = []
        for residuals in self.grid.residuals:
            errors, ratios = self.measure(snapshot, residuals, data, FEW)
            rates = np.minimum(errors.mean(axis=0), 1.0)
            values = pac_bayes_bound(rates, ratios.mean(axis=0), len(data.x), delta, paid)
            choices += [(float(value), residuals, place) for place, value in enumerate(values)]
        return min(choices)

    def choose(
        self, snapshot: Snapshot, data: Batch, delta: float, paid: int, *, setting: str = "", thorough: bool = False
    ) -> Choice:
        """The best sizes at one time, with all draws.

        Args:
            thorough: search with all draws instead of the first `FEW`.
        """
        _, best, at = (0.0, 0, None) if thorough else self.search(snapshot, data, delta, paid)
        choices = []
        for residuals in self.grid.residuals if thorough else (best,):
            errors, ratios = self.measure(snapshot, residuals, data)
            rates = np.minimum(errors.mean(axis=0), 1.0)
            values = pac_bayes_bound(rates, ratios.mean(axis=0), len(data.x), delta, paid)
            place = int(np.argmin(values)) if at is None else at
            point = DrawnPoint(
                self.grid.heads[place], residuals, errors[:, place], ratios[:, place], snapshot.time, setting
            )
            choices.append(Choice(float(values[place]), point, snapshot, place))
        return min(choices, key=lambda one: one.value)
