"""What the tests of runs share: settings of tiny runs, processes to kill, and what two runs must have in common."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np

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


def _child(argv: list[str], log: str) -> None:
    from mfresnet.cli import main
    from mfresnet.runs import training

    training.network_figures = lambda start, end, split: {"nothing": np.zeros(1, np.float32)}
    # tests that were started in the background inherit an ignored Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # under another name until all is ready: a signal sent as soon as the log is there finds the command itself at work
    with open(f"{log}.new", "a", encoding="utf-8") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    os.replace(f"{log}.new", log)
    raise SystemExit(main(argv))


class Commands:
    """Starts commands in processes of their own, forked from one that has imported everything already."""

    def __init__(self, folder: Path):
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["mfresnet.cli", "mfresnet.runs"])
        self.log = folder / "log"

    def start(self, *argv: Any) -> multiprocessing.Process:
        """The process of a command."""
        self.log.unlink(missing_ok=True)
        process = self.context.Process(target=_child, args=([str(a) for a in argv], str(self.log)))
        process.start()
        return process

    def run(self, *argv: Any, code: int = 0) -> str:
        """Run a command to its end; returns what it wrote."""
        process = self.start(*argv)
        process.join(120)
        said = self.log.read_text(encoding="utf-8")
        assert process.exitcode == code, said
        return said


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
