"""Matrices of pairs of data points, filled block by block so that only the result is held."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import TypeVar

import jax
import numpy as np

from ..errors import MfresnetError

Rows = TypeVar("Rows")

# Rows of a block (data points times outputs). On a CPU, blocks of 250 to 500 rows keep the running sum and its two
# products in cache (1000 is 1.6 times slower) and small problems still have pairs to mirror; a GPU wants more at once.
CPU_ROWS = 384
ACCELERATOR_ROWS = 4096


def block_length(n: int, outputs: int, block: int | None) -> int:
    """Data points of one block: ``block``, or a size that splits n evenly near the best number of rows.

    >>> block_length(1030, 1, None), block_length(1030, 1, 100)
    (344, 100)
    """
    if block is not None:
        if block < 1:
            raise MfresnetError(f"block = {block} is not allowed: give a value >= 1.")
        return min(block, n)
    best = CPU_ROWS if jax.default_backend() == "cpu" else ACCELERATOR_ROWS
    return ceil(n / ceil(n * outputs / best))


def split(x: np.ndarray, length: int) -> list[np.ndarray]:
    """Blocks of equal length; the last is padded with its last row, so that one program serves all."""
    blocks = [x[start : start + length] for start in range(0, len(x), length)]
    short = length - len(blocks[-1])
    blocks[-1] = np.pad(blocks[-1], [(0, short)] + [(0, 0)] * (x.ndim - 1), mode="edge")
    return blocks


def fill(
    results: Sequence[np.ndarray | None],
    rows: Sequence[Rows],
    columns: Sequence[Rows] | None,
    product: Callable[[Rows, Rows], Sequence[np.ndarray | None]],
) -> None:
    """Write product(rows_i, columns_j) to its place in each result; ``columns=None`` means symmetric.

    Args:
        results: arrays to fill; a None is skipped.
        rows, columns: what `product` needs of each block of points. In the symmetric case each pair
            of blocks is computed once and mirrored.
        product: the blocks (one per result) of a pair.
    """
    for i, left in enumerate(rows):
        for j, right in enumerate(rows[: i + 1] if columns is None else columns):
            for result, value in zip(results, product(left, right), strict=True):
                if result is None or value is None:
                    continue
                block = np.asarray(value)
                down, across = i * block.shape[0], j * block.shape[1]
                part = block[: result.shape[0] - down, : result.shape[1] - across]  # without padding
                result[down : down + part.shape[0], across : across + part.shape[1]] = part
                if columns is None and i != j:
                    result[across : across + part.shape[1], down : down + part.shape[0]] = part.T
