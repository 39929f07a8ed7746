"""What the tests of runs share: settings of tiny runs, processes to kill, and what two runs must have in common."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import forked
from mfresnet.config import leaves
from mfresnet.runs import checkpoint

SMALL = {
    "data.n": 32,
    "data.n_test": 16,
    "model.depth": 3,
    "model.width": 4,
    "model.head_width": 4,
    "train.steps": 12,
    "train.time": 3,
    "train.probes": 2,
    "train.head_probes": 4,
    "record.metrics_every": 2,
    "record.checkpoint_seconds": 0,
    "record.report": False,
    "diagnostics.landscape": False,
    "diagnostics.gram_every": 0,
    "diagnostics.kl_every": 0,
    "diagnostics.solver_error": False,
}
KNOWN = {name for name, _ in leaves()}


def flags(**changes: Any) -> list[str]:
    """Flags of a tiny run; ``train__rule="sgd"`` is ``--train.rule sgd``, None leaves a setting out."""
    values = SMALL | {name.replace("__", "."): value for name, value in changes.items()}
    return [
        part
        for name, value in values.items()
        if value is not None and name in KNOWN
        for part in (f"--{name}", str(value).lower() if isinstance(value, bool) else str(value))
    ]


def without_picture() -> None:
    """Leave the picture of a run out, in this process."""
    from mfresnet.runs import training

    training.network_figures = lambda start, end, split: {"nothing": np.zeros(1, np.float32)}


class Commands(forked.Commands):
    """Commands of runs, without the picture."""

    def __init__(self, folder: Path):
        super().__init__(folder, without_picture)


def result(run: Path) -> dict[str, Any]:
    """All that two runs of the same configuration must share to the bit: final state, metrics, summary, data."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((run / "summary.json").read_text())
    arrays, _ = checkpoint.read(run / "checkpoints", checkpoint.steps(run / "checkpoints")[-1])
    return {
        "steps": checkpoint.steps(run / "checkpoints"),
        "state": {name: (value.dtype.str, value.shape, value.tobytes()) for name, value in sorted(arrays.items())},
        "rows": [untimed(row) for row in rows],
        "summary": untimed(summary),
        "files": {file.name: file.read_bytes() for file in sorted((run / "arrays").iterdir())},
    }


def untimed(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what a clock measured."""
    return {name: value for name, value in row.items() if not name.endswith("_s") and name != "diagnostics.share"}


def same(first: Path, second: Path) -> None:
    """Assert that two runs came out equal to the bit, naming what differs."""
    one, two = result(first), result(second)
    for part in one:
        assert one[part] == two[part], part


def finite(run: Path) -> bool:
    """Whether the newest checkpoint holds finite numbers only."""
    arrays, _ = checkpoint.read(run / "checkpoints", checkpoint.steps(run / "checkpoints")[-1])
    return all(np.isfinite(value).all() for value in arrays.values())
