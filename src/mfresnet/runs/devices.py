"""One run on many devices, and on many processes: data shared out over a mesh, the state on every device.

Each device holds its share of the points and sweeps the whole network over it; sums over points (the loss and its
gradient) are added up across devices. Particles stay whole on each: a network that fits a device sends one gradient a
step, where sharing out its particles would send states at every layer. Every process runs the same program; the first
one, the leader, alone measures what needs no other and writes files.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..errors import MfresnetError
from ..flow import Batch, Trainer

T = TypeVar("T")
AXIS = "points"
VARIABLES = {name: f"MFRESNET_{name.upper()}" for name in ("coordinator", "processes", "process_id")}


@dataclass(frozen=True)
class Devices:
    """Where a run computes.

    Args:
        mesh: the devices, on one axis; None for the one device that JAX uses anyway.
        leader: whether this process writes files.
        processes: number of processes.
    """

    mesh: Mesh | None = None
    leader: bool = True
    processes: int = 1

    @classmethod
    def of(cls, count: int | None = None) -> Devices:
        """The first ``count`` devices (default: 1, and with many processes all of them).

        Raises:
            MfresnetError: there are not that many, or some processes would have none.
        """
        there, processes = jax.devices(), jax.process_count()
        if count is None:
            count = len(there) if processes > 1 else 1
        if not 1 <= count <= len(there):
            raise MfresnetError(
                f"devices = {count} is not allowed: JAX has {len(there)} here, so give a value from 1 to {len(there)}."
            )
        if processes > 1 and count != len(there):
            raise MfresnetError(
                f"devices = {count} leaves processes without any: {processes} processes have {len(there)} devices "
                "together, so leave devices out."
            )
        mesh = Mesh(np.array(there[:count]), (AXIS,)) if count > 1 else None
        return cls(mesh, jax.process_index() == 0, processes)

    @property
    def count(self) -> int:
        """Number of devices."""
        return 1 if self.mesh is None else self.mesh.size

    @cached_property
    def _whole(self) -> NamedSharding:
        assert self.mesh is not None
        return NamedSharding(self.mesh, PartitionSpec())

    def everywhere(self, tree: T) -> T:
        """The arrays of a tree on every device; the tree itself on one device."""
        if self.mesh is None:
            return tree
        arrays, rest = eqx.partition(tree, eqx.is_array)
        return eqx.combine(jax.tree.map(self._placed, arrays), rest)

    def _placed(self, leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and leaf.sharding == self._whole:
            return leaf
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.jit(lambda v: v, out_shardings=self._whole)(leaf)
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.jit(jax.random.wrap_key_data, out_shardings=self._whole)(
                self._placed(np.asarray(jax.random.key_data(leaf)))
            )
        # every process holds the same values, and gives its own devices theirs
        value = np.asarray(leaf)
        return jax.make_array_from_callback(value.shape, self._whole, lambda index: value[index])

    def here(self, tree: T) -> T:
        """The arrays of a tree that is everywhere, on this process's own device."""
        if self.mesh is None:
            return tree
        arrays, rest = eqx.partition(tree, eqx.is_array)

        def local(leaf: jax.Array) -> jax.Array:
            piece = leaf.addressable_data(0)
            return jax.device_put(piece, jax.local_devices()[0])

        return eqx.combine(jax.tree.map(local, arrays), rest)

    def shared_out(self, batch: Batch) -> Batch:
        """The points in equal shares, filled up with copies of the first point of weight 0."""
        if self.mesh is None:
            return batch
        missing = -len(batch.x) % self.count
        sharding = NamedSharding(self.mesh, PartitionSpec(AXIS))

        def share(leaf: Any, filling: np.ndarray) -> jax.Array:
            whole = np.concatenate([np.asarray(leaf), filling]) if missing else np.asarray(leaf)
            return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

        x, y, weights = (np.asarray(leaf) for leaf in batch)
        return Batch(
            share(x, np.repeat(x[:1], missing, axis=0)),
            share(y, np.repeat(y[:1], missing, axis=0)),
            share(weights, np.zeros(missing, weights.dtype)),
        )

    def training(self, trainer: Trainer) -> Trainer:
        """The trainer, whose mini-batches are shared out too (where their size can be divided by the devices)."""
        if self.mesh is None or trainer.batch_size is None or trainer.batch_size % self.count:
            return trainer
        return replace(trainer, sharding=NamedSharding(self.mesh, PartitionSpec(AXIS)))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all must ask together."""
        if self.processes == 1:
            return flag
        return bool(np.any(multihost_utils.process_allgather(jnp.asarray(flag))))

    def wait(self) -> None:
        """Until all processes are here."""
        if self.processes > 1:
            multihost_utils.sync_global_devices("mfresnet")


def connect(coordinator: str | None = None, processes: int | None = None, process_id: int | None = None) -> None:
    """Join the processes of a run; call it before JAX computes anything. Without a coordinator nothing happens.

    Args:
        coordinator: HOST:PORT of process 0, the same for all (or MFRESNET_COORDINATOR).
        processes: how many there are (or MFRESNET_PROCESSES).
        process_id: which one this is, from 0 (or MFRESNET_PROCESS_ID).

    Raises:
        MfresnetError: values that make no sense, or a coordinator that does not answer.
    """
    given = {"coordinator": coordinator, "processes": processes, "process_id": process_id}
    values = {name: os.environ.get(VARIABLES[name]) if value is None else value for name, value in given.items()}
    if all(value is None for value in values.values()):
        return
    missing = [name for name, value in values.items() if value is None]
    if missing:
        flag = missing[0].replace("_", "-")
        raise MfresnetError(f"a run of many processes needs --{flag} too (or {VARIABLES[missing[0]]}): give it.")
    try:
        count, own = int(values["processes"]), int(values["process_id"])  # pyright: ignore[reportArgumentType]
    except ValueError as error:
        raise MfresnetError(f"processes and process-id are whole numbers: {error}.") from error
    address = str(values["coordinator"])
    if not (0 <= own < count) or not address.rpartition(":")[2].isdigit():
        raise MfresnetError(
            f"process {own} of {count} with coordinator {address!r} is not allowed: give a process-id from 0 to "
            "processes - 1, and HOST:PORT."
        )
    try:
        jax.distributed.initialize(address, count, own, initialization_timeout=60)
    except RuntimeError as error:
        raise MfresnetError(
            f"the coordinator {address!r} did not bring {count} processes together: {str(error).splitlines()[0]}; "
            "start all of them within a minute."
        ) from error


def process_count() -> int:
    """How many processes there are, by arguments or environment (`connect` first)."""
    return jax.process_count()


def is_leader() -> bool:
    """Whether this process speaks and writes."""
    return jax.process_index() == 0
