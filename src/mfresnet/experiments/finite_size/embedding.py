"""How far one embedding into D dimensions is from D -> infinity, and the power of D it follows ([CCM26], arXiv
2603.18168).

References that differ in their embedding (and start) alone have different kernels k_e = z_L z_L^T / D; with n of them

    spread(D)^2 = mean over entries of  sum_e (k_e - mean k)^2 / (n - 1),       theory: spread ~ D^-p, p = 1/2.

The exponent is fitted in logarithms for each draw of the data, and averaged over draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...stats import jackknife, power_law
from ..experiment import Row
from ..settings import FiniteSizeSettings

Kernels = Mapping[tuple[int, int], np.ndarray]  # (draw, D) -> (embeddings, N, N)


def kernels(rows: Sequence[Row], settings: FiniteSizeSettings) -> Kernels:
    """The kernels of the references of each draw and dimension that has two of them or more."""
    families: dict[tuple[int, int], list[np.ndarray]] = {}
    for row in rows:
        if row["kind"] == "reference":
            z = np.reshape(row["state"], (settings.points, -1))
            families.setdefault((row["draw"], row["dimension"]), []).append(z @ z.T / z.shape[1])
    return {family: np.array(group) for family, group in families.items() if len(group) > 1}


def spread(group: np.ndarray) -> float:
    """Root-mean-square deviation of kernels from their mean.

    >>> spread(np.array([[[0.0]], [[2.0]]])) ** 2  # of two that differ by 2: (1 + 1) / 1
    2.0000000000000004
    """
    return float(np.sqrt(np.mean(np.var(group, axis=0, ddof=1))))


def spreads(kernels: Kernels) -> dict[int, float]:
    """The spread of each dimension, averaged (in squares) over draws."""
    dimensions = sorted({dimension for _, dimension in kernels})
    of = {d: [spread(group) ** 2 for (_, dimension), group in kernels.items() if dimension == d] for d in dimensions}
    return {dimension: float(np.sqrt(np.mean(squares))) for dimension, squares in of.items()}


def powers(kernels: Kernels, used: np.ndarray | None = None) -> np.ndarray:
    """The exponent p of each draw that has two dimensions or more, from the embeddings ``used`` (default: all)."""
    powers = []
    for draw in sorted({draw for draw, _ in kernels}):
        groups = {d: group if used is None else group[used] for (of, d), group in kernels.items() if of == draw}
        own = {dimension: spread(group) for dimension, group in groups.items()}
        if len(own) > 1 and min(own.values()) > 0:
            powers.append(-power_law(list(own), list(own.values())).slope)
    return np.array(powers)


def embedding_powers(kernels: Kernels) -> np.ndarray:
    """The exponent of each draw; of a single draw its pseudo-values over embeddings (three or more)."""
    own, embeddings = powers(kernels), min((len(group) for group in kernels.values()), default=0)
    if len(own) != 1 or embeddings < 3:
        return own
    return jackknife(lambda used: powers(kernels, used)[0], embeddings)
