"""Measuring a finished run again: diagnostics at its kept checkpoints, in float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..assembly import assemble, precision
from ..config import build
from ..data import load
from ..errors import MfresnetError
from . import checkpoint
from .console import Say, say_aloud
from .directory import RunDirectory
from .files import plain, write_bytes
from .recording import Recorder

NAME = "measure.jsonl"


def measure(path: Path, *, points: int | None = None, say: Say = say_aloud) -> list[dict[str, Any]]:
    """Diagnostics at every kept checkpoint, written to ``measure.jsonl`` and returned.

    Args:
        points: training points of the Gram matrices (default: the run's own number).

    Raises:
        MfresnetError: no run there, or no sound checkpoint.
    """
    run = RunDirectory.open(path)
    run.refuse_images("measure")
    config = build(run.config["config"])
    if points is not None:
        wanted = config.diagnostics.model_copy(update={"gram_points": points})
        config = build(config.model_copy(update={"diagnostics": wanted}).model_dump())
    rows: list[dict[str, Any]] = []
    with precision(config):
        job = assemble(config, load(config.data, config.seed))
        recorder = Recorder(job, set(), say)
        for step in checkpoint.steps(run.checkpoints):
            try:
                arrays, facts = checkpoint.read(run.checkpoints, step)
            except MfresnetError as error:
                say(f"{error} It is passed over.")
                continue
            state = checkpoint.restore(job.state, arrays)
            row = recorder.metrics(state, facts.get("wall_s", 0.0)) | recorder.measured(state, everything=True)
            rows.append(plain(row))
    if not rows:
        raise MfresnetError(f"no sound checkpoint is left in {str(run.checkpoints)!r}: there is nothing to measure.")
    write_bytes(run.path / NAME, "".join(json.dumps(row) + "\n" for row in rows).encode())
    return rows
