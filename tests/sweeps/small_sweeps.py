"""What the tests of sweeps share: a tiny sweep, processes to kill, and what two sweeps must have in common."""

from __future__ import annotations

import json
from pathlib import Path

# Three depths, three programs; in each two rates and two seeds.
FLAGS = [
    *("--set", "model.depth=2,3,4", "--set", "train.learning_rate=0.01,0.1", "--seeds", "2"),
    *("--model.width", "3", "--model.head-width", "3", "--data.n", "8", "--data.n-test", "16", "--train.steps", "7"),
]
CELLS = 12


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
