"""Image networks whose blocks are families: swept in any order, with any step, their depth trained.

Names are loaded on first use, so that `mfresnet image --help` does not import JAX.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "augmentation": ["augment", "channel_statistics", "normalise"],
    "blocks": ["Branch", "Readout", "Transition", "basic", "bottleneck"],
    "configuration": ["BLOCK_RULES", "ImageConfig"],
    "convolution": ["convolve"],
    "ensemble": ["Ensemble"],
    "family": ["Place", "Plan", "permute", "stack", "sweep"],
    "fitting": ["ImageResult", "fit"],
    "job": ["ImageJob", "assemble_images"],
    "loop": ["Record", "Recorder"],
    "minibatches": ["HostImages", "ImageData"],
    "norms": ["BatchNorm", "GroupNorm", "Moments", "norm"],
    "optimiser": ["Descent", "schedule"],
    "orders": ["kendall", "order_entropy"],
    "resnet": ["Architecture", "ImageResNet", "Stage", "plain_plans"],
    "rules": [
        "LinearMultistep",
        "MeanField",
        "Plain",
        "Rule",
        "Scaled",
        "Shuffled",
        "StochasticDepth",
        "make_rule",
    ],
    "training": ["ImageState", "ImageTrainer"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
