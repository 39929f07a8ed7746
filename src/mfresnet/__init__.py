"""mfresnet: deep residual networks in the mean-field regime, trained, measured and certified.

Names are loaded on first use, so that ``import mfresnet`` and ``mfresnet --help`` stay quick.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import Any

_HOMES = {
    "config": ["Config"],
    "errors": ["DivergedError", "MfresnetError"],
    "data": ["Dataset", "Split", "load"],
    "model": [
        "AbstractResNet",
        "Activation",
        "ContinuousResNet",
        "InitialScales",
        "LayeredResNet",
        "Particles",
        "activation",
    ],
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
    "diagnostics": ["kl_to_start", "wasserstein2"],
    "train": ["Record", "Result", "fit"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("mfresnet")
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module 'mfresnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
