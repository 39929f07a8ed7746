"""Bias of depth and sampling error of particles, told apart ([Ch25], arXiv 2509.10167).

With e_s the state of seed s minus the reference, of N D entries, and <.,.> the mean of products of entries:

    error^2    = mean_s <e_s, e_s>              the distance of one network to the limit
    bias^2     = mean_{s != t} <e_s, e_t>
    sampling^2 = error^2 - bias^2               = mean_{s != t} <e_s - e_t, e_s - e_t> / 2

bias^2 and sampling^2 are unbiased, as sampling errors of different seeds are independent; bias^2 may be negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..experiment import Row

Family = tuple[int, int]  # draw and dimension


@dataclass(frozen=True)
class Errors:
    """All networks of one draw and dimension.

    Args:
        depth, width: of each size, shape (sizes,).
        products: <e_s, e_t>, shape (sizes, seeds, seeds).
        entries: of a state, N D.
    """

    depth: np.ndarray
    width: np.ndarray
    products: np.ndarray
    entries: int

    @property
    def seeds(self) -> int:
        """Networks of each size."""
        return self.products.shape[1]

    def of_seeds(self, used: np.ndarray) -> Errors:
        """The errors of some of the seeds."""
        return Errors(self.depth, self.width, self.products[:, used][:, :, used], self.entries)

    def parts(self) -> np.ndarray:
        """(error^2, sampling^2, bias^2) of each size, shape (3, sizes); the last two are NaN for one seed."""
        own, whole, seeds = np.einsum("kss->k", self.products), self.products.sum((1, 2)), self.seeds
        pairs = seeds * (seeds - 1)
        bias = (whole - own) / pairs if pairs else np.full_like(own, np.nan)
        return np.stack([own / seeds, own / seeds - bias, bias])


def collect(rows: Sequence[Row]) -> dict[Family, Errors]:
    """The errors of each draw and dimension, of the sizes that have all their seeds, two or more, and a reference."""
    states: dict[Family, dict[tuple[int, int], list[np.ndarray]]] = {}
    references: dict[Family, np.ndarray] = {}
    for row in rows:
        family = (row["draw"], row["dimension"])
        state = np.asarray(row["state"], np.float64)
        if row["kind"] == "reference":
            references.setdefault(family, state)  # the first embedding's, which the others share
        else:
            states.setdefault(family, {}).setdefault((row["depth"], row["width"]), []).append(state)
    errors = {}
    for family, of_size in states.items():
        most = max(len(group) for group in of_size.values())
        sizes = [size for size, group in of_size.items() if len(group) == most]
        if family not in references or most < 2:
            continue
        e = np.array([of_size[size] for size in sizes]) - references[family]
        depth, width = np.array(sizes, float).T
        errors[family] = Errors(depth, width, np.einsum("ksx,ktx->kst", e, e) / e.shape[-1], e.shape[-1])
    return errors
