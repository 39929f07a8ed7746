"""The recorded times of a run on disk, for its certificates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..certify.snapshots import Moment, moment_of
from ..errors import MfresnetError
from ..flow import TrainState
from ..messages import Say
from ..train.job import Job
from . import checkpoint
from .directory import RunDirectory


def recorded(run: RunDirectory, job: Job, steps: Sequence[int], say: Say) -> Iterator[Moment]:
    """The moments whose checkpoints are sound, in order of time; damaged ones are named and passed over."""
    there = set(checkpoint.steps(run.checkpoints))
    if job.state.ensemble is None:
        raise MfresnetError(
            "this run carries no probes (they need layers, and an activation with a second derivative), so nothing can "
            "be certified: train with model.kind layered and a smooth activation such as tanh."
        )
    for step in steps:
        if step not in there:
            continue
        try:
            arrays, _ = checkpoint.read(run.checkpoints, step)
        except MfresnetError as error:
            say(f"{error} It is passed over.")
            continue
        yield moment_of(job, checkpoint.restore(job.state, arrays))


def last_state(run: RunDirectory, job: Job) -> TrainState:
    """The state at the end of a completed run.

    Raises:
        MfresnetError: its checkpoint is missing or damaged.
    """
    if job.steps not in checkpoint.steps(run.checkpoints):
        raise MfresnetError(
            f"the checkpoint of the last step, {job.steps}, is not in {str(run.checkpoints)!r}: resume the run first."
        )
    return checkpoint.restore(job.state, checkpoint.read(run.checkpoints, job.steps)[0])
