"""One run on many devices, and on many processes: points and particles divided over a mesh (`flow.Layout`).

By default each device holds its share of the points and the whole network: a network that fits a device sends one
gradient a step. One that does not is divided too (``particle_devices``): each device then holds its share of the
particles of every layer, of their probes and of what the optimiser remembers of them, all the time while training, and
states are added up at every layer. The start is drawn, and diagnostics, the picture at the end and certificates are
taken, on one device, which then holds the network whole (without optimiser and compiled step); those in between can be
left out (``diagnostics.gram_every``, ``diagnostics.kl_every``). Every process runs the same program; the first one, the
leader, alone measures what needs no other and writes files.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding

from ..config import Config
from ..errors import MfresnetError
from ..flow import Batch, Layout, Trainer
from ..flow.layout import PARTICLES, POINTS
from .job import Job

T = TypeVar("T")
LEAST_WORK = 2e7  # multiplications a device: some 2 ms, the order of magnitude of a sum over processes
VARIABLES = {name: f"MFRESNET_{name.upper()}" for name in ("coordinator", "processes", "process_id")}


@dataclass(frozen=True)
class Devices:
    """Where a run computes.

    Args:
        layout: places on the mesh of devices; None for the one device that JAX uses anyway.
        leader: whether this process writes files.
        processes: number of processes.
    """

    layout: Layout | None = None
    leader: bool = True
    processes: int = 1

    @classmethod
    def of(cls, count: int | None = None, particle_devices: int | None = None) -> Devices:
        """The first ``count`` devices (default: as many as share the particles, and with many processes all of them).

        Args:
            particle_devices: how many of them share the particles (default 1); the points are divided among
                ``count / particle_devices`` such groups.

        Raises:
            MfresnetError: there are not that many, some processes would have none, or they form no equal groups.
        """
        there, processes = jax.devices(), jax.process_count()
        parts = 1 if particle_devices is None else particle_devices
        if count is None:
            count = len(there) if processes > 1 else max(parts, 1)
        if not 1 <= count <= len(there):
            raise MfresnetError(
                f"devices = {count} is not allowed: JAX has {len(there)} here, so give a value from 1 to {len(there)}."
            )
        if processes > 1 and count != len(there):
            raise MfresnetError(
                f"devices = {count} leaves processes without any: {processes} processes have {len(there)} devices "
                "together, so leave devices out."
            )
        if parts < 1 or count % parts:
            raise MfresnetError(
                f"particle-devices = {parts} is not allowed: it has to divide the {count} devices, so give one of "
                f"{', '.join(str(d) for d in range(1, count + 1) if count % d == 0)}."
            )
        mesh = Mesh(np.array(there[:count]).reshape(-1, parts), (POINTS, PARTICLES))
        return cls(Layout(mesh) if count > 1 else None, jax.process_index() == 0, processes)

    @property
    def count(self) -> int:
        """Number of devices."""
        return 1 if self.layout is None else self.layout.mesh.size

    @property
    def particle_shares(self) -> int:
        """Number of devices that share the particles."""
        return 1 if self.layout is None else self.layout.particle_shares

    def check(self, config: Config) -> None:
        """Refuse networks whose particles cannot be divided among the devices.

        Raises:
            MfresnetError: a width that is no multiple, or a continuous model.
        """
        parts, model = self.particle_shares, config.model
        if parts == 1:
            return
        if model.kind == "continuous":
            raise MfresnetError(
                f"particle-devices = {parts} is not allowed for a continuous model, whose particles act one after the "
                "other along depth: leave it out, so that the devices share the points."
            )
        for name, width in {"width": model.width, **({"head_width": model.head_width} if model.head else {})}.items():
            if width % parts:
                raise MfresnetError(
                    f"model.{name} = {width} cannot be divided among {parts} particle-devices: give a multiple of "
                    f"{parts}, or other particle-devices."
                )

    def why_slow(self, config: Config, n: int, inputs: int) -> str | None:
        """A sentence where messages between processes cost more than dividing the work gains, else None.

        A field evaluation multiplies about 6 n L (M + probes) d numbers and adds up one array over all processes.
        Below `LEAST_WORK` a device it mostly waits for them.
        """
        model, probes = config.model, config.train.probes if config.train.rule == "gradient-flow" else 0
        points = min(n, config.train.batch_size or n)
        state = model.state_dimension(inputs)
        work = 6 * points * model.depth * (model.width + probes) * state / self.count
        if self.processes == 1 or work >= LEAST_WORK:
            return None
        return (
            f"{points} points on {self.processes} processes: each step mostly waits for messages between them, and one "
            "process is faster for a run of this size."
        )

    def place(self, tree: T) -> T:
        """The tree with its arrays where the layout puts them; the tree itself on one device."""
        if self.layout is None:
            return tree
        arrays, rest = eqx.partition(tree, eqx.is_array)
        return eqx.combine(jax.tree.map(self._place, arrays, self.layout.of(arrays)), rest)

    def _place(self, leaf: Any, place: NamedSharding) -> Any:
        if isinstance(leaf, jax.Array) and leaf.sharding.is_equivalent_to(place, leaf.ndim):
            return leaf
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.jit(lambda v: v, out_shardings=place)(leaf)
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.jit(jax.random.wrap_key_data, out_shardings=place)(
                self._place(np.asarray(jax.random.key_data(leaf)), place)
            )
        # every process holds the same values, and gives its own devices theirs
        value = np.asarray(leaf)
        return jax.make_array_from_callback(value.shape, place, lambda index: value[index])

    def fetch(self, tree: T) -> T:
        """The whole arrays of a placed tree on this process's own device; every process must call it."""
        if self.layout is None:
            return tree
        arrays, rest = eqx.partition(tree, eqx.is_array)
        return eqx.combine(jax.tree.map(self._local, arrays), rest)

    def _local(self, leaf: jax.Array) -> jax.Array:
        if leaf.is_fully_replicated:
            piece: Any = leaf.addressable_data(0)
        elif leaf.is_fully_addressable:
            piece = np.asarray(leaf)
        else:
            piece = multihost_utils.process_allgather(leaf, tiled=True)
        return jax.device_put(piece, jax.local_devices()[0])

    def gather(self, tree: T) -> T:
        """The arrays of a placed tree so that this process can read them; every process must call it."""

        def readable(leaf: jax.Array) -> jax.Array:
            if leaf.is_fully_addressable or leaf.is_fully_replicated:
                return leaf
            return jax.device_put(
                multihost_utils.process_allgather(leaf, tiled=True), jax.local_devices(backend="cpu")[0]
            )

        arrays, rest = eqx.partition(tree, eqx.is_array)
        return eqx.combine(jax.tree.map(readable, arrays), rest)

    def share(self, batch: Batch) -> Batch:
        """The points, divided equally among the devices; copies of the first one, of weight 0, fill the last share."""
        if self.layout is None:
            return batch
        missing = -len(batch.x) % self.layout.shares
        place = self.layout.points

        def divide(leaf: Any, filling: np.ndarray) -> jax.Array:
            whole = np.concatenate([np.asarray(leaf), filling]) if missing else np.asarray(leaf)
            return jax.make_array_from_callback(whole.shape, place, lambda index: whole[index])

        x, y, weights = (np.asarray(leaf) for leaf in batch)
        return Batch(
            divide(x, np.repeat(x[:1], missing, axis=0)),
            divide(y, np.repeat(y[:1], missing, axis=0)),
            divide(weights, np.zeros(missing, weights.dtype)),
        )

    def place_trainer(self, trainer: Trainer) -> Trainer:
        """The trainer of placed states, whose mini-batches are divided too."""
        return trainer if self.layout is None else replace(self.place(trainer), layout=self.layout)

    def place_start(self, job: Job) -> Job:
        """The job, with its start where training needs it."""
        return replace(job, state=self.place(job.state))

    def fetch_start(self, job: Job) -> Job:
        """The job, with its start on this process's own device, where diagnostics are computed."""
        return replace(job, state=self.fetch(job.state))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; every process must call it."""
        if self.processes == 1:
            return flag
        return bool(np.any(multihost_utils.process_allgather(jnp.asarray(flag))))

    def wait(self) -> None:
        """Wait until every process has called this."""
        if self.processes > 1:
            multihost_utils.sync_global_devices("mfresnet")


def connect(coordinator: str | None = None, processes: int | None = None, process_id: int | None = None) -> str | None:
    """Join the processes of a run; call it before JAX computes anything. Without a coordinator nothing happens.

    Args:
        coordinator: HOST:PORT of process 0, the same for all (or MFRESNET_COORDINATOR).
        processes: how many there are (or MFRESNET_PROCESSES).
        process_id: which one this is, from 0 (or MFRESNET_PROCESS_ID).

    Returns:
        The address of process 0; None where there is one process.

    Raises:
        MfresnetError: values that make no sense, or a coordinator that does not answer.
    """
    given = {"coordinator": coordinator, "processes": processes, "process_id": process_id}
    values = {name: os.environ.get(VARIABLES[name]) if value is None else value for name, value in given.items()}
    if all(value is None for value in values.values()):
        return None
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
        jax.distributed.initialize(address, count, own, initialization_timeout=60, shutdown_timeout_seconds=30)
    except RuntimeError as error:
        raise MfresnetError(
            f"the coordinator {address!r} did not bring {count} processes together: {str(error).splitlines()[0]}; "
            "start all of them within a minute."
        ) from error
    return address if count > 1 else None


def process_count() -> int:
    """How many processes there are, by arguments or environment (`connect` first)."""
    return jax.process_count()


def is_leader() -> bool:
    """Whether this process speaks and writes."""
    return jax.process_index() == 0
