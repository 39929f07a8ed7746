"""Measuring a run of image networks again: what its blocks do, at the last checkpoint."""

from __future__ import annotations

from typing import Any

from ..errors import MfresnetError
from ..images.recording import GRAM_IMAGES, SAMPLE, block_sensitivity, diverged_seeds
from ..messages import Say
from . import checkpoint
from .directory import RunDirectory
from .image_training import load_job, newest


def measure_images(run: RunDirectory, points: int | None, say: Say) -> list[dict[str, Any]]:
    """A row for each rule: removal, swap, first-order share and Gram shares of the first seed.

    Args:
        points: test images of the Gram matrix.

    Raises:
        MfresnetError: no checkpoint, settings or images that are no longer the run's, no network that is finite.
    """
    if not checkpoint.steps(run.checkpoints):
        raise MfresnetError(f"no checkpoint is in {str(run.checkpoints)!r} yet: there is nothing to measure.")
    job = load_job(run, say)
    most = min(SAMPLE, len(job.split.test))
    if points is not None and not 1 <= points <= most:
        raise MfresnetError(f"points = {points} is not allowed: give 1 to {most} test images.")
    states = newest(run, job.init(), say)
    per_epoch = job.networks.shared.per_epoch
    rows: list[dict[str, Any]] = []
    for name in job.trainers:
        state = states[name]
        if diverged_seeds(state)[0]:
            say(f"{name}: seed {job.seeds[0]} diverged and is not measured.")
            continue
        step = int(state.step[0])
        measured = block_sensitivity(job, name, state, points or GRAM_IMAGES)
        rows.append({"step": step, "rule": name, "epoch": step / per_epoch, "sensitivity": measured})
    if not rows:
        raise MfresnetError(f"the first seed of every rule of {str(run.path)!r} diverged: there is nothing to measure.")
    return rows
