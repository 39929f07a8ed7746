"""The facts about software and machine that a result depends on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Any

import jax

PACKAGES = ("mfresnet", "jax", "jaxlib", "equinox", "optax", "diffrax", "numpy")


def environment() -> dict[str, Any]:
    """Versions and platform, as ``config.json`` keeps them."""
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "platform": {
            "system": platform.system(),
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "devices": [device.device_kind for device in jax.devices()],
        },
    }
