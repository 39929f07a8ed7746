"""Measuring a run again: diagnostics at its kept checkpoints (of points in float64), and what is written of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..config import Config, build
from ..errors import MfresnetError
from ..json_types import plain
from ..messages import Say, print_message
from ..train.cost import Cost, measure_machine
from ..train.finished_cost import predict_measuring
from ..train.job import assemble, check_settings, load_split, precision
from ..train.measurements import Measurements
from . import checkpoint
from .directory import RunDirectory
from .files import write_bytes
from .image_measuring import measure_images
from .lock import hold_lock

NAME = "measure.jsonl"


def measure(path: Path, *, points: int | None = None, say: Say = print_message) -> list[dict[str, Any]]:
    """Diagnostics at every kept checkpoint, written to ``measure.jsonl`` and returned.

    Of a run of image networks: what the blocks do at the last checkpoint, a row for each rule.

    Args:
        points: training points of the Gram matrices (default: the run's own number); of images test images (default 4).

    Raises:
        MfresnetError: no run there, or no sound checkpoint.
    """
    run = RunDirectory.open(path)
    rows_of = measure_images if run.is_images else _measure_points
    with hold_lock(path):
        rows = [plain(row) for row in rows_of(run, points, say)]
        write_bytes(run.path / NAME, "".join(json.dumps(row) + "\n" for row in rows).encode())
    return rows


def predict_measure(path: Path, *, points: int | None = None) -> Cost:
    """What `measure` costs on this machine; nothing is measured.

    Raises:
        MfresnetError: no run on points there, or no checkpoint.
    """
    run = RunDirectory.open(path)
    run.refuse_images("measure --dry-run")
    kept = len(checkpoint.steps(run.checkpoints))
    if not kept:
        raise MfresnetError(f"no checkpoint is in {str(run.checkpoints)!r} yet: there is nothing to measure.")
    config = _with_points(build(run.config["config"]), points)
    with precision(config):
        train = load_split(config).train
        (n, inputs), outputs = train.x.shape, train.y.shape[1]
        check_settings(config, n, inputs, outputs)
    return predict_measuring(config, n, inputs, outputs, kept, measure_machine())


def _with_points(config: Config, points: int | None) -> Config:
    """The configuration with another number of points of the Gram matrices."""
    if points is None:
        return config
    wanted = config.diagnostics.model_copy(update={"gram_points": points})
    return build(config.model_copy(update={"diagnostics": wanted}).model_dump())


def _measure_points(run: RunDirectory, points: int | None, say: Say) -> list[dict[str, Any]]:
    config = _with_points(build(run.config["config"]), points)
    rows: list[dict[str, Any]] = []
    with precision(config):
        job = assemble(config, load_split(config))
        measurements = Measurements(job, say)
        for step in checkpoint.steps(run.checkpoints):
            try:
                arrays, facts = checkpoint.read(run.checkpoints, step)
            except MfresnetError as error:
                say(f"{error} It is passed over.")
                continue
            state = checkpoint.restore(job.state, arrays)
            row = measurements.metrics(state, facts.get("wall_s", 0.0))
            rows.append(row | measurements.diagnostics(state, everything=True))
    if not rows:
        raise MfresnetError(f"no sound checkpoint is left in {str(run.checkpoints)!r}: there is nothing to measure.")
    return rows
