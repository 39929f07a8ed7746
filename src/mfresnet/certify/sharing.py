"""Langevin chains shared out over devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..errors import MfresnetError
from ..flow.langevin import TRACES, Chains


def share_chains(devices: int, m: int) -> Callable[[Chains, Any], tuple[Chains, Any]]:
    """Puts an equal share of the chains on each device, and the points on all.

    Args:
        devices: of this process.
        m: chains.

    Raises:
        MfresnetError: more devices than there are, or a number that does not divide that of the chains.
    """
    there = jax.local_devices()
    if not 1 <= devices <= len(there) or m % devices:
        raise MfresnetError(
            f"devices = {devices} is not allowed for {m} chains on {len(there)} devices here: give a divisor of the "
            f"number of chains, from 1 to {len(there)}."
        )
    if devices == 1:
        return lambda now, points: (now, points)
    mesh = Mesh(np.array(there[:devices]), ("chains",))

    def place(now: Chains, points: Any) -> tuple[Chains, Any]:
        parts = {name: PartitionSpec(*[None] * (name in TRACES), "chains") for name in Chains.__dataclass_fields__}
        placed = {name: jax.device_put(getattr(now, name), NamedSharding(mesh, part)) for name, part in parts.items()}
        return Chains(**placed), jax.device_put(points, NamedSharding(mesh, PartitionSpec()))

    return place
