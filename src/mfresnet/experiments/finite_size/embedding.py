"""How far one embedding into D dimensions is from D -> infinity, and the power of D it follows ([CCM26]; section 9).

References that differ in their embedding (and start) alone have different kernels k_e = z_L z_L^T / D; with n of them

    spread(D)^2 = mean over entries of  sum_e (k_e - mean k)^2 / (n - 1),       theory: spread ~ D^-p, p = 1/2.

The exponent is fitted in logarithms for each draw of the data, and averaged over draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...stats import percentiles, student
from ..experiment import Row
from ..settings import FiniteSizeSettings

Kernels = Mapping[tuple[int, int], np.ndarray]  # (draw, D) -> (embeddings, N, N)


def kernels(rows: Sequence[Row], settings: FiniteSizeSettings) -> Kernels:
    """The kernels of the references of each draw and dimension that has two of them or more."""
    found: dict[tuple[int, int], list[np.ndarray]] = {}
    for row in rows:
        if row["kind"] == "reference":
            z = np.reshape(row["state"], (settings.points, -1))
            found.setdefault((row["draw"], row["dimension"]), []).append(z @ z.T / z.shape[1])
    return {family: np.array(group) for family, group in found.items() if len(group) > 1}


def spread(group: np.ndarray) -> float:
    """Root-mean-square deviation of kernels from their mean.

    >>> spread(np.array([[[0.0]], [[2.0]]])) ** 2  # of two that differ by 2: (1 + 1) / 1
    2.0000000000000004
    """
    return float(np.sqrt(np.mean(np.var(group, axis=0, ddof=1))))


def spreads(found: Kernels) -> dict[int, float]:
    """The spread of each dimension, averaged (in squares) over draws."""
    dimensions = sorted({dimension for _, dimension in found})
    of = {d: [spread(group) ** 2 for (_, dimension), group in found.items() if dimension == d] for d in dimensions}
    return {dimension: float(np.sqrt(np.mean(squares))) for dimension, squares in of.items()}


def powers(found: Kernels) -> np.ndarray:
    """The exponent p of each draw that has two dimensions or more."""
    powers = []
    for draw in sorted({draw for draw, _ in found}):
        own = {dimension: spread(group) for (d, dimension), group in found.items() if d == draw}
        if len(own) > 1 and min(own.values()) > 0:
            powers.append(-np.polyfit(np.log(list(own)), np.log(list(own.values())), 1)[0])
    return np.array(powers)


def embedding_power(found: Kernels, bootstrap: int) -> tuple[float, tuple[float, float]]:
    """The exponent p and its 95 % interval: Student's over draws; for one draw a bootstrap over its embeddings.

    NaN where no draw has two dimensions with two embeddings each.
    """
    own = powers(found)
    if len(own) == 0:
        return np.nan, (np.nan, np.nan)
    if len(own) > 1:
        mean, half = student(own)
        return mean, (mean - half, mean + half)
    rng = np.random.default_rng(0)
    resampled = [
        powers({family: group[rng.integers(len(group), size=len(group))] for family, group in found.items()})
        for _ in range(bootstrap)
    ]
    return float(own[0]), percentiles(np.concatenate(resampled))
