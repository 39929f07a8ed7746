"""Which steps of a run are recorded."""

from __future__ import annotations

import numpy as np


def snapshot_steps(steps: int, every: int, count: int) -> set[int]:
    """Steps whose checkpoints are kept: the start, the end, and ``count`` between, evenly in log time.

    >>> sorted(snapshot_steps(100, 10, 4))
    [0, 10, 20, 50, 100]
    """
    wanted = np.geomspace(every, max(steps, every), count)
    return {0, steps} | {min(steps, max(every, every * round(w / every))) for w in wanted}
