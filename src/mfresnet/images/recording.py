"""What is recorded of an epoch."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from .orders import kendall, order_entropy
from .training import ImageState, ImageTrainer


def epoch_row(
    trainer: ImageTrainer, state: ImageState, test: tuple[np.ndarray, np.ndarray] | None = None
) -> dict[str, Any]:
    """The numbers of the epoch that a rule has just ended; lists run over seeds, those of families over (seed, stage).

    t is the depth coordinate s/N of each block; "distance" is Kendall's between the order and the starting one, over
    its largest value N(N - 1)/2.

    Args:
        test: loss and error in evaluation, where the epoch was tested.
    """
    tally, seeds = state.tally, range(len(state.seed))
    steps = np.maximum(np.asarray(tally.steps), 1)
    row: dict[str, Any] = {
        "train_loss": np.asarray(tally.loss) / steps,
        "train_error": np.asarray(tally.wrong) / (steps * trainer.batch),
    }
    if test:
        loss, error = test  # a network that is not finite has no error, though argmax names a class
        row |= {"test_loss": loss, "test_error": np.where(np.isfinite(loss), error, np.nan)}
    places = trainer.architecture.places
    if trainer.rule.moves:
        row["swaps"] = np.stack([np.asarray(s) for s in tally.swaps], 1)
        row["entropy"] = [[order_entropy(np.asarray(seen[k])) for seen in tally.occupancy] for k in seeds]
        most = [max(place.count * (place.count - 1) // 2, 1) for place in places]
        start = [jnp.arange(place.count) for place in places]
        row["distance"] = [
            [int(kendall(a, b[k])) / top for a, b, top in zip(start, state.orders, most, strict=True)] for k in seeds
        ]
    for key in state.weights.coordinates[0]:
        scale = {"s": [max(place.count, 1) for place in places]}.get(key, [1] * len(places))
        row[{"s": "t"}.get(key, key)] = [
            [np.asarray(c[key][k]) / top for c, top in zip(state.weights.coordinates, scale, strict=True)]
            for k in seeds
        ]
    return row
