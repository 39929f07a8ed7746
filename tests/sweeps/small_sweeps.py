"""What the tests of sweeps share: a tiny sweep, processes to kill, and what two sweeps must have in common."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

# Three depths, three programs; in each two rates and two seeds.
FLAGS = [
    *("--set", "model.depth=2,3,4", "--set", "train.learning_rate=0.01,0.1", "--seeds", "2"),
    *("--model.width", "3", "--model.head-width", "3", "--data.n", "8", "--data.n-test", "16", "--train.steps", "7"),
]
CELLS = 12


def _child(argv: list[str], log: str) -> None:
    from mfresnet.cli import main

    # tests that were started in the background inherit an ignored Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(log, "a", encoding="utf-8") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    raise SystemExit(main(argv))


class Commands:
    """Starts commands in processes of their own, forked from one that has imported everything already."""

    def __init__(self, folder: Path):
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["mfresnet.cli", "mfresnet.runs.sweeps", "mfresnet.experiments.grid"])
        self.log = folder / "log"

    def start(self, *argv: Any) -> Any:
        """The process of a command."""
        self.log.unlink(missing_ok=True)
        process = self.context.Process(target=_child, args=([str(a) for a in argv], str(self.log)))
        process.start()
        return process

    def run(self, *argv: Any, code: int = 0) -> str:
        """Run a command to its end; returns what it wrote."""
        process = self.start(*argv)
        process.join(240)
        said = self.log.read_text(encoding="utf-8")
        assert process.exitcode == code, said
        return said


def cells(sweep: Path) -> dict[str, bytes]:
    """The cells that are done, as bytes."""
    folder = sweep / "cells"
    return {file.name: file.read_bytes() for file in folder.glob("*.json")} if folder.is_dir() else {}


def same(first: Path, second: Path) -> None:
    """Assert that two sweeps came out equal: every cell, the tables, the result."""
    assert cells(first) == cells(second)
    for name in ("result.json", "cells.csv"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    counts = [
        {k: v for k, v in json.loads((s / "summary.json").read_text()).items() if k != "seconds"}
        for s in (first, second)
    ]
    assert counts[0] == counts[1]
