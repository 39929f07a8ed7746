"""Divergence: noticing it in a series of losses."""

from __future__ import annotations

import numpy as np

EXPLODED = 1e4  # times the larger of the first loss and 1


def first_bad_step(losses: np.ndarray, start: float | np.floating) -> int | None:
    """Index of the first loss that is not finite or above `EXPLODED` times the larger of ``start`` and 1.

    >>> first_bad_step(np.array([1.0, np.nan]), start=1.0)
    1
    """
    with np.errstate(invalid="ignore"):
        bad = ~np.isfinite(losses) | (losses > EXPLODED * max(start, 1.0))
    return int(np.argmax(bad)) if bad.any() else None
