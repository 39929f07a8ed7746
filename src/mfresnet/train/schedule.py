"""Which steps of a run are recorded."""

from __future__ import annotations

import numpy as np

from ..config import Config


def snapshot_steps(steps: int, every: int, count: int) -> set[int]:
    """Steps whose checkpoints are kept: the start, the end, and ``count`` between, evenly in log time.

    >>> sorted(snapshot_steps(100, 10, 4))
    [0, 10, 20, 50, 100]
    """
    wanted = np.geomspace(every, max(steps, every), count)
    return {0, steps} | {min(steps, max(every, every * round(w / every))) for w in wanted}


def kept_steps(config: Config) -> tuple[int, ...]:
    """The same of a resolved configuration, in order: the first is 0.

    >>> kept_steps(Config(train={"steps": 4}, record={"metrics_every": 2, "snapshots": 2}))
    (0, 2, 4)
    """
    return tuple(
        sorted(snapshot_steps(config.train.steps or 1, config.record.metrics_every or 1, config.record.snapshots))
    )
