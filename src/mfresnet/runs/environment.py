"""The facts about software and machine that a result depends on."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import jax

from ..messages import Say

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


def tell_changes(stored: Mapping[str, Any], owner: str, say: Say) -> None:
    """Say which versions are no longer those of ``config.json``; ``owner`` is whose they were, a run's or a sweep's."""
    then = stored.get("versions", {})
    changed = [
        f"{name} {then.get(name)} -> {now}" for name, now in environment()["versions"].items() if then.get(name) != now
    ]
    if changed:
        say(f"versions differ from the {owner}'s ({', '.join(changed)}): numbers may differ in the last bits.")
