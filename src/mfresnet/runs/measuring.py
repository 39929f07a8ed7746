"""Measuring a run again: diagnostics at its kept checkpoints (of points in float64), and what is written of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..config import build
from ..errors import MfresnetError
from ..json_types import plain
from ..messages import Say, print_message
from ..train.job import assemble, load_split, precision
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


def _measure_points(run: RunDirectory, points: int | None, say: Say) -> list[dict[str, Any]]:
    config = build(run.config["config"])
    if points is not None:
        wanted = config.diagnostics.model_copy(update={"gram_points": points})
        config = build(config.model_copy(update={"diagnostics": wanted}).model_dump())
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
