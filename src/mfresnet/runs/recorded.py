"""The states at the recorded times of a run on disk, for its certificates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..errors import MfresnetError
from ..flow import TrainState
from ..messages import Say
from ..train.job import Job
from .directory import RunDirectory
from .recorder import Snapshots


def read_states(run: RunDirectory, job: Job, steps: Sequence[int], say: Say) -> Iterator[TrainState]:
    """The states whose checkpoints are sound, in order of time; damaged ones are named and left out."""
    snapshots = Snapshots(run, job.state)
    for step in sorted(set(steps) & set(snapshots)):
        try:
            yield snapshots[step]
        except MfresnetError as error:
            say(f"{error} It is left out.")
