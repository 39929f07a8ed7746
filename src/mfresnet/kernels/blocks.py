"""Matrices of pairs of data points, filled block by block so that only the result is held."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil

import jax
import numpy as np
from jax import Array

from ..errors import MfresnetError
from ..threads import spread

# Rows of a block (data points times outputs) on a CPU. Large blocks are packed less often for their products, small
# ones leave out more of what symmetry spares; beyond the larger limit the running sum of a pair leaves the cache
# (measured: an eighth of all rows is within 10 % of the best at M = 20 to 512). A GPU wants more at once.
CPU_ROWS = (128, 512)
ACCELERATOR_ROWS = 4096
BATCH_BYTES = 2**25  # of the results of one batch of pairs


def block_length(n: int, outputs: int, block: int | None) -> int:
    """Data points of one block: ``block``, or a size that splits n evenly near the best number of rows.

    >>> block_length(1030, 1, None), block_length(1030, 1, 100)
    (129, 100)
    """
    if block is not None:
        if block < 1:
            raise MfresnetError(f"block = {block} is not allowed: give a value >= 1.")
        return min(block, n)
    rows, (least, most) = n * outputs, CPU_ROWS
    best = min(max(rows / 8, least), most) if jax.default_backend() == "cpu" else ACCELERATOR_ROWS
    return ceil(n / ceil(rows / best))


def split(x: np.ndarray, length: int) -> np.ndarray:
    """Blocks of equal length along a new first axis; the last is padded with the last row."""
    padded = np.pad(x, [(0, -len(x) % length)] + [(0, 0)] * (x.ndim - 1), mode="edge")
    return padded.reshape(-1, length, *x.shape[1:])


def pair_batches(rows: int, columns: int | None, pair_bytes: int, workers: int) -> np.ndarray:
    """All pairs of blocks (i, j), shape (batches, pairs, 2), an even share for each worker.

    ``columns=None`` means symmetric: j <= i. The last batch repeats its last pair, so that one program serves all.

    >>> pair_batches(2, None, 1, 2).tolist()
    [[[0, 0], [1, 0]], [[1, 1], [1, 1]]]
    """
    pairs = np.array([(i, j) for i in range(rows) for j in range(i + 1 if columns is None else columns)])
    size = max(1, min(ceil(len(pairs) / workers), BATCH_BYTES // pair_bytes))
    return split(pairs, size)


def fill(
    results: Sequence[np.ndarray | None],
    batches: np.ndarray,
    products: Callable[[np.ndarray], Sequence[Array | np.ndarray | None]],
    *,
    symmetric: bool,
    workers: int = 1,
) -> None:
    """Write the blocks of each pair (i, j) to their place in each result.

    Args:
        results: arrays to fill; a None is skipped.
        batches: of `pair_batches`.
        products: for the pairs of a batch the blocks, one array (pairs, rows, columns) per result.
        symmetric: each block is mirrored too.
        workers: threads. XLA runs the small products of a loop on one core, so a thread per core is what
            keeps all of them busy.
    """

    def write(pairs: np.ndarray) -> None:
        for result, value in zip(results, products(pairs), strict=True):
            if result is None or value is None:
                continue
            blocks = np.asarray(value)
            for (i, j), block in zip(pairs, blocks, strict=True):
                down, across = i * block.shape[0], j * block.shape[1]
                part = block[: result.shape[0] - down, : result.shape[1] - across]  # without padding
                result[down : down + part.shape[0], across : across + part.shape[1]] = part
                if symmetric and i != j:
                    result[across : across + part.shape[1], down : down + part.shape[0]] = part.T

    spread(write, batches, workers)
