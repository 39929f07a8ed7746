"""The recorder of a run: rows go to ``metrics.jsonl``, states to checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..flow import TrainState
from ..messages import Say
from ..train.devices import Devices
from ..train.job import Job
from . import checkpoint
from .directory import RunDirectory
from .identity import fingerprint

Row = dict[str, Any]


class Snapshots(Mapping[int, TrainState]):
    """The states of the kept checkpoints of a run by step, read when asked for.

    Args:
        run: the run directory.
        like: a state of the run, whose shapes are expected.
    """

    def __init__(self, run: RunDirectory, like: TrainState):
        self.run, self.like = run, like

    def __iter__(self) -> Iterator[int]:
        return iter(checkpoint.steps(self.run.checkpoints))

    def __len__(self) -> int:
        return len(checkpoint.steps(self.run.checkpoints))

    def __getitem__(self, step: int) -> TrainState:
        """The state of a step.

        Raises:
            KeyError: it has no checkpoint.
            MfresnetError: its checkpoint is damaged.
        """
        if step not in checkpoint.steps(self.run.checkpoints):
            raise KeyError(step)
        return checkpoint.restore(self.like, checkpoint.read(self.run.checkpoints, step)[0])


@dataclass
class RunRecorder:
    """Writes rows and checkpoints of a job into a run directory; process 0 alone does.

    Args:
        run: the directory.
        job: what is trained.
        devices: where it computes.
        say: is told what was lost.
    """

    run: RunDirectory
    job: Job
    devices: Devices
    say: Say
    saved_at: float = field(default_factory=time.perf_counter, init=False)

    @cached_property
    def settings(self) -> str:
        """The fingerprint of the run's settings as they were written; the leader alone may ask."""
        return fingerprint(self.run.config["config"])

    @property
    def rows(self) -> Sequence[Row]:
        """The rows of ``metrics.jsonl``."""
        return self.run.metrics()

    @property
    def snapshots(self) -> Mapping[int, TrainState]:
        """The states of the checkpoints."""
        return Snapshots(self.run, self.job.state)

    def begin(self, state: TrainState, wall_s: float, measure: Callable[..., Row]) -> Row:
        """Write the first checkpoint and its row; rows after it are dropped, as they are made again."""
        self.save(state, wall_s)
        step, leader = int(state.step), self.devices.leader
        rows = self.run.truncate_metrics(step)
        # only the leader has rows, and all processes take part in what it measures
        if self.devices.any(leader and (not rows or rows[-1]["step"] < step)):
            rows.append(measure())
            self.run.append_metrics(rows[-1])
        elif self.devices.processes > 1:
            row = measure(False)
            rows = rows or [row]
        if leader and (lost := -(-step // self.job.every) + 1 - len(rows)):
            self.say(f"metrics.jsonl has lost {lost} rows: its curves will have a gap, training does not depend on it.")
        # read back, a number that is not finite is null
        return {name: np.nan if value is None else value for name, value in rows[-1].items()}

    def record(self, state: TrainState, row: Row, wall_s: float, *, stopping: bool) -> None:
        """Append a row, and write a checkpoint at recorded times, at the end, and every few seconds."""
        self.run.append_metrics(row)
        step = row["step"]
        due = time.perf_counter() - self.saved_at >= self.job.config.record.checkpoint_seconds
        if step in self.job.kept or step == self.job.steps or self.devices.any(due or stopping):
            self.save(state, wall_s)
            if self.devices.leader:
                checkpoint.prune(self.run.checkpoints, self.job.kept)
            self.saved_at = time.perf_counter()

    def close(self, state: TrainState, wall_s: float) -> None:
        """Write the last good state."""
        self.save(state, wall_s)

    def save(self, state: TrainState, wall_s: float) -> None:
        """Write a checkpoint, unless this step has one."""
        step = int(state.step)
        missing = self.devices.leader and step not in checkpoint.steps(self.run.checkpoints)
        if not self.devices.any(missing):
            return
        whole = self.devices.gather(state)
        if missing:
            checkpoint.save(self.run.checkpoints, step, whole, {"wall_s": wall_s, "config": self.settings})
