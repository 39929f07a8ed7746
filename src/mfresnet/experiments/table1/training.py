"""Training the rules and seeds of a row of the table, and what is measured of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...images.ensemble import States
from ...images.fitting import ImageResult, fit_job
from ...images.job import ImageJob
from ...images.loop import Progress, Recorder, Row
from ...images.summary import is_finite
from ..experiment import Checkpoints, Pulse, Stopped


@dataclass
class BatchRecorder(Recorder):
    """Keeps checkpoints of a batch of a sweep, and tells the sweep how far it is.

    Args:
        pulse: told the share that is done; may raise `Stopped`.
        checkpoints: where they go.
    """

    pulse: Pulse
    checkpoints: Checkpoints
    stopped: Stopped | None = field(default=None, init=False)

    @property
    def stopping(self) -> bool:
        """Whether the sweep asked to stop."""
        return self.stopped is not None

    def restore(self, first: States) -> tuple[States, list[Row]]:
        """The newest checkpoint."""
        states, facts = self.checkpoints.newest(first) or (first, {})
        return states, list(facts.get("history", []))

    def update(self, progress: Progress, rows: Sequence[Row]) -> None:
        """Tell how far the batch is."""
        try:
            self.pulse(progress.step / progress.steps)
        except Stopped as stopped:
            self.stopped = stopped

    def save(self, progress: Progress) -> None:
        """Write a checkpoint; the batch's rows are written when it is done."""
        if progress.active or self.stopping:
            self.checkpoints.save(progress.step, progress.states, {"history": progress.history})


def train_batch(job: ImageJob, pulse: Pulse, checkpoints: Checkpoints, advice: str) -> dict[str, list[dict[str, Any]]]:
    """Train every rule of a job from the newest checkpoint on; the measured values of each seed of each rule.

    Args:
        job: of a row of the table, tested in the last epoch.
        pulse: told the share that is done; may raise `Stopped`.
        checkpoints: where they go.
        advice: what to change where memory does not suffice.
    """
    recorder = BatchRecorder(pulse, checkpoints)
    result = fit_job(job, recorder, advice=advice)
    if recorder.stopped is not None:
        raise recorder.stopped
    return {name: measure_rule(result, name) for name in job.trainers}


def measure_rule(result: ImageResult, name: str) -> list[dict[str, Any]]:
    """The measured values of each seed of a rule, in JSON's own types.

    Where blocks move, "swaps" counts swaps of neighbours, of all families and steps, and "swaps_by_epoch" lists them;
    where they have a depth, "t_by_epoch" has the depth t of each block at the end of each epoch, a list for each stage.
    A seed that diverged has the last step of the epoch in which it did.
    """
    history = [row for row in result.history if row["rule"] == name]
    return [_measure_seed(history, k) for k in range(len(result.job.seeds))]


def _measure_seed(history: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any]:
    last = history[-1]
    finite = is_finite(last["test_loss"][seed])
    row: dict[str, Any] = {
        "status": "completed" if finite else "diverged",
        "test_error": last["test_error"][seed] if finite else np.nan,
        "test_loss": last["test_loss"][seed],
        "train_loss": last["train_loss"][seed],
    }
    if not finite:
        diverged = (epoch["step"] for epoch in history if not is_finite(epoch["train_loss"][seed]))
        row["diverged.step"] = next(diverged, last["step"])
    if "swaps" in last:
        by_epoch = [sum(epoch["swaps"][seed]) for epoch in history]
        row |= {"swaps": sum(by_epoch), "swaps_by_epoch": by_epoch}
    if "t" in last:
        row["t_by_epoch"] = [epoch["t"][seed] for epoch in history]
    return row
