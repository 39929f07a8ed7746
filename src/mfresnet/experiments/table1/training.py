"""Training the rules and seeds of a row of the table, and what is measured of each."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ...images.job import ImageJob
from ...images.loop import Loop, lost_seeds
from ...images.recording import epoch_row
from ..experiment import Checkpoints, Pulse, Stopped

KEPT = ("t", "swaps")  # of an epoch's row

Epochs = list[dict[str, dict[str, Any]]]  # of each rule that was trained in it


def trained(job: ImageJob, pulse: Pulse, checkpoints: Checkpoints, every: float) -> dict[str, list[dict[str, Any]]]:
    """Train every rule of a job from the newest checkpoint on; the measured values of each seed of each rule.

    Where blocks move, "swaps" counts swaps of neighbours, of all families and steps, and "swaps_by_epoch" lists them;
    where they have a depth, "t_by_epoch" has the depth s/N of each block at the end of each epoch, a list for each
    stage. A rule ends early when no seed is left; a seed that left the finite numbers has the last step of its epoch.

    Args:
        every: seconds between checkpoints; one is made, too, where somebody asks to stop.
    """
    first = job.begin()
    states, facts = checkpoints.newest(first) or (first, {})
    loop, epochs, saved = Loop(job, job.spread(states)), list(facts.get("epochs", [])), time.perf_counter()
    while loop.going:
        names = loop.advance()
        if loop.between_epochs:
            epochs.append({name: _noted(job, loop, name) for name in names})
        try:
            pulse(loop.done / job.networks.first.steps)
        except Stopped:
            checkpoints.save(loop.done, loop.states, {"epochs": epochs})
            raise
        if time.perf_counter() - saved >= every:
            checkpoints.save(loop.done, loop.states, {"epochs": epochs})
            saved = time.perf_counter()
    tests = job.networks.evaluate(loop.states)
    return {name: _rows(loop, name, [epoch[name] for epoch in epochs if name in epoch], tests[name]) for name in tests}


def _noted(job: ImageJob, loop: Loop, name: str) -> dict[str, Any]:
    """What is kept of an epoch, in JSON's own types."""
    row = epoch_row(job.trainers[name], loop.states[name])
    kept = {key: row[key] for key in KEPT if key in row} | {"lost": lost_seeds(loop.states[name])}
    return jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), kept)


def _rows(
    loop: Loop, name: str, epochs: Sequence[Mapping[str, Any]], test: tuple[np.ndarray, np.ndarray]
) -> list[dict[str, Any]]:
    """The measured values of each seed of a rule."""
    state, per_epoch = loop.states[name], loop.job.networks.first.per_epoch
    last = np.asarray(state.tally.loss) / np.asarray(state.tally.steps)
    rows = []
    for k, (loss, error) in enumerate(zip(*test, strict=True)):
        lost = [epoch["lost"][k] for epoch in epochs]
        sound = not lost[-1] and bool(np.isfinite(loss))
        row: dict[str, Any] = {
            "status": "completed" if sound else "diverged",
            "test_error": float(error) if sound else np.nan,  # argmax names a class all the same
            "test_loss": float(loss),
            "train_loss": float(last[k]),
        }
        if not sound:
            row["diverged.step"] = (lost.index(True) + 1 if lost[-1] else len(lost)) * per_epoch
        if "swaps" in epochs[-1]:
            by_epoch = [sum(epoch["swaps"][k]) for epoch in epochs]
            row |= {"swaps": sum(by_epoch), "swaps_by_epoch": by_epoch}
        if "t" in epochs[-1]:
            row["t_by_epoch"] = [epoch["t"][k] for epoch in epochs]
        rows.append(row)
    return rows
