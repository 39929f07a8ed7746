"""What a certificate is minimised over and what was tried: all of it is paid for by the union bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..bounds import probes_needed
from ..bounds.checks import check_count, check_delta
from ..errors import MfresnetError


@dataclass(frozen=True)
class Grid:
    """The grid of a PAC-Bayes certificate.

    Args:
        steps: recorded steps.
        heads, residuals: sizes k' and N' of the drawn sub-networks.
    """

    steps: tuple[int, ...]
    heads: tuple[int, ...]
    residuals: tuple[int, ...]

    @property
    def sizes(self) -> int:
        """Number of sizes (k', N')."""
        return len(self.heads) * len(self.residuals)

    @classmethod
    def feasible(
        cls, steps: Sequence[int], heads: Sequence[int], residuals: Sequence[int], pool: dict[str, int]
    ) -> Grid:
        """The part of a grid that the probes of a ``pool`` (`bounds.pool`) can serve.

        Raises:
            MfresnetError: they can serve none of it.

        >>> Grid.feasible([5], [4, 64], [8], {"layers": 4, "probes": 2, "head_probes": 32})
        Grid(steps=(5,), heads=(4,), residuals=(8,))
        """
        layers, probes, head_probes = pool["layers"], pool["probes"], pool["head_probes"]
        first = [k for k in sorted(set(heads)) if k <= head_probes] if head_probes else [0]
        second = [n for n in sorted(set(residuals)) if probes_needed(n, layers) <= probes]
        if not first or not second:
            raise MfresnetError(
                f"no sub-network of the grid (heads {', '.join(map(str, heads))}; residuals "
                f"{', '.join(map(str, residuals))}) can be drawn from {probes} probes a layer and {head_probes} of the "
                "head: train with more probes, or lower heads and residuals."
            )
        return cls(tuple(sorted(steps)), tuple(first), tuple(second))

    def to_dict(self) -> dict[str, list[int]]:
        """Plain JSON values."""
        return {"steps": list(self.steps), "heads": list(self.heads), "residuals": list(self.residuals)}


@dataclass(frozen=True)
class Spec:
    """How certificates are made, fixed before the data are looked at, and what was tried on them before.

    Args:
        grid: what is minimised over now.
        delta: failure probability of each certificate.
        draws: sub-networks drawn at the chosen sizes.
        settings: configurations tried on these points, this one included: alpha, beta, training time ...
        earlier: grids of earlier certificates on the same points; the union bound pays for all.
        patient: whether training stopped on the certificate, so that the last time is one chosen of ``grid.steps``.
        compared: predictors whose errors on the test points were compared.

    >>> first, second = Grid((1, 2), (8, 16), (4,)), Grid((1, 2), (8,), (4,))
    >>> Spec(second, earlier=(first,)).size
    6
    """

    grid: Grid
    delta: float = 0.05
    draws: int = 64
    settings: int = 1
    earlier: tuple[Grid, ...] = field(default=())
    patient: bool = False
    compared: int = 1

    def __post_init__(self) -> None:
        check_delta(self.delta)
        for name in ("draws", "settings", "compared"):
            check_count(getattr(self, name), name=name)

    @property
    def grids(self) -> tuple[Grid, ...]:
        """Every grid that was tried, once each: a second look at the same one finds what the first found."""
        return tuple(dict.fromkeys((*self.earlier, self.grid)))

    @property
    def sizes(self) -> int:
        """Sizes (k', N') that were tried, in all settings: the number of Gaussian priors."""
        return self.settings * sum(grid.sizes for grid in self.grids)

    @property
    def size(self) -> int:
        """Grid points that were tried: times, sizes and settings."""
        return self.settings * sum(len(grid.steps) * grid.sizes for grid in self.grids)

    @property
    def ends(self) -> int:
        """Laws of which the last one may be the chosen one: a union bound over them lets the draws choose it."""
        return self.settings * (len(self.grid.steps) if self.patient else 1)

    @property
    def last_sizes(self) -> int:
        """Sizes that were tried at the last law, whichever it may be."""
        return self.ends * sum(grid.sizes for grid in self.grids)

    def to_dict(self) -> dict[str, Any]:
        """What is recorded: the grid, what is paid for, and every grid that was tried."""
        return self.grid.to_dict() | {
            "settings": self.settings,
            "size": self.size,
            "draws": self.draws,
            "tried": [grid.to_dict() for grid in self.grids],
        }
