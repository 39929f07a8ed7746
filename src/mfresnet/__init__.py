"""mfresnet: deep residual networks in the mean-field regime, trained, measured and certified.

Names are loaded on first use, so that ``import mfresnet`` and ``mfresnet --help`` stay quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors see; `_HOMES` says the same at run time, and a test compares the two
    from .config import Config
    from .data import Dataset, Split, load
    from .diagnostics import kl_to_start, wasserstein2
    from .errors import DivergedError, MfresnetError
    from .flow import Trainer, adjoint, optimiser, states, velocities
    from .kernels import (
        empirical_gram,
        empirical_operator,
        gram,
        gram_operator,
        initial_kernel,
        largest_eigenvalue,
        smallest_eigenvalue,
        spectrum,
    )
    from .model import (
        AbstractResNet,
        Activation,
        ContinuousResNet,
        InitialScales,
        LayeredResNet,
        Particles,
        activation,
    )
    from .train import Record, Result, fit

    __version__: str

__all__ = [
    "AbstractResNet",
    "Activation",
    "Config",
    "ContinuousResNet",
    "Dataset",
    "DivergedError",
    "InitialScales",
    "LayeredResNet",
    "MfresnetError",
    "Particles",
    "Record",
    "Result",
    "Split",
    "Trainer",
    "__version__",
    "activation",
    "adjoint",
    "empirical_gram",
    "empirical_operator",
    "fit",
    "gram",
    "gram_operator",
    "initial_kernel",
    "kl_to_start",
    "largest_eigenvalue",
    "load",
    "optimiser",
    "smallest_eigenvalue",
    "spectrum",
    "states",
    "velocities",
    "wasserstein2",
]
_HOMES = {
    "config": ["Config"],
    "data": ["Dataset", "Split", "load"],
    "diagnostics": ["kl_to_start", "wasserstein2"],
    "errors": ["DivergedError", "MfresnetError"],
    "flow": ["Trainer", "adjoint", "optimiser", "states", "velocities"],
    "kernels": [
        "empirical_gram",
        "empirical_operator",
        "gram",
        "gram_operator",
        "initial_kernel",
        "largest_eigenvalue",
        "smallest_eigenvalue",
        "spectrum",
    ],
    "model": [
        "AbstractResNet",
        "Activation",
        "ContinuousResNet",
        "InitialScales",
        "LayeredResNet",
        "Particles",
        "activation",
    ],
    "train": ["Record", "Result", "fit"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("mfresnet")
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module 'mfresnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
