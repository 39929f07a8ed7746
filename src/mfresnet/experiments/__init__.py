"""Experiments: series of cells that answer a question. Pure: the files are `mfresnet.runs.sweeps`' business."""

from __future__ import annotations

import importlib
from typing import Any

from .experiment import Checkpoints as Checkpoints
from .experiment import Experiment as Experiment
from .experiment import NoCheckpoints as NoCheckpoints
from .experiment import Plot as Plot
from .experiment import Result as Result
from .experiment import Stopped as Stopped
from .registry import EXPERIMENTS as EXPERIMENTS
from .registry import Entry as Entry
from .registry import create as create
from .registry import entry as entry

# What needs JAX or SciPy is loaded on first use, so that `mfresnet sweep NAME --help` stays quick.
_HOMES = {
    "Outcome": "vectorised",
    "PowerLaw": ".stats",
    "Training": "vectorised",
    "TrainingExperiment": "training",
    "power_law": ".stats",
    "student": ".stats",
    "train_together": "vectorised",
}

__all__ = sorted(
    [
        "EXPERIMENTS",
        "Entry",
        "Experiment",
        "NoCheckpoints",
        "Checkpoints",
        "Plot",
        "Result",
        "Stopped",
        "create",
        "entry",
        *_HOMES,
    ]
)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
