"""Batches as tasks on a Ray cluster: a worker that dies has its batch run again, and only the driver writes.

The cluster decides how many tasks run at once and where: a task asks for one core, whatever the driver's machine has.
What travels is text: an experiment's name, its settings and cells as JSON, and rows as JSON back. A cluster is started
on this machine unless an address is given: without dashboard, usage statistics or authentication token.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ...cache import OFF, enable_compilation_cache
from ...errors import MfresnetError
from ...experiments import create
from ...json_types import plain
from ...messages import Say
from .ray_nodes import REACH_SECONDS, Nodes

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
OWN = {"RAY_AUTH_MODE": "disabled"}  # of a cluster of our own, which writes no token into the home directory
RETRIES = 5  # of one batch, where workers die
STORE_BYTES = 80 * 2**20


def run_task(name: str, settings: str, cells: str) -> str:
    """What a task of the cluster does: `run_batch` with the compilation cache of its own machine."""
    enable_compilation_cache()
    return run_batch(name, settings, cells)


def run_batch(name: str, settings: str, cells: str) -> str:
    """Run the cells of a batch.

    >>> settings = '{"train": {"steps": 2}, "data": {"n_test": 4}}'
    >>> run_batch("rate", settings, '[{"data.n": 8, "seed": 0}]')[:24]
    '[{"status": "completed",'
    """
    return json.dumps(plain(create(name, json.loads(settings)).run(json.loads(cells))))


def check(address: str | None) -> None:
    """Refuse, within seconds, what cannot work.

    Raises:
        MfresnetError: Ray is not installed, or nobody answers at the address.
    """
    _ray(address)
    if address in (None, "auto", "local"):
        return
    place = urlsplit(address if "://" in address else f"//{address}")
    try:
        port = place.port
    except ValueError:
        port = None
    if not place.hostname or port is None:
        raise MfresnetError(f"address {address!r} is not allowed: give HOST:PORT, ray://HOST:PORT or auto.")
    try:
        socket.create_connection((place.hostname, port), timeout=REACH_SECONDS).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise MfresnetError(
            f"no Ray cluster answers at {address!r} ({reason}): start one there with `ray start --head`, or leave "
            "--address out to start one on this machine."
        ) from error


def ray(
    *,
    name: str,
    settings: Mapping[str, Any],
    cells: Sequence[Mapping[str, Any]],
    batches: Sequence[Sequence[int]],
    pulse: Callable[[float], None],
    address: str | None,
    say: Say,
    **rest: Any,
):
    """Batches as tasks of one core each, as many at once as the cluster has cores, spread over its nodes.

    The batches of a node that is lost run again on another one; where none is left, they wait for one.

    See `mfresnet.runs.sweeps.executors`.
    """
    cluster = _ray(address)
    begun = not cluster.is_initialized()
    if begun:
        _connect(cluster, address)
    try:
        task = cluster.remote(run_task).options(
            num_cpus=1,
            max_retries=RETRIES,
            runtime_env={"env_vars": task_environment()},
            scheduling_strategy="SPREAD",  # the default fills a node to a half before it looks at the next
        )
        text = json.dumps(settings)
        waiting = {task.remote(name, text, json.dumps([cells[place] for place in batch])): batch for batch in batches}
        nodes = Nodes(cluster, _head(cluster, address), say)
        while waiting:
            pulse(0.0)
            nodes.look()
            ready, _ = cluster.wait(list(waiting), num_returns=1, timeout=0.5)
            for reference in ready:
                batch = waiting.pop(reference)
                yield batch, json.loads(_fetch(cluster, reference, batch))
    finally:
        if begun:
            cluster.shutdown()


def task_environment() -> dict[str, str]:
    """The environment of a task of one core: no GPU, which it did not ask for, and one thread.

    A compilation cache that is switched off here is switched off there.
    """
    wanted = {"JAX_PLATFORMS": "cpu", "NPROC": "1", "OMP_NUM_THREADS": "1"}  # NPROC: of XLA's pool of threads
    switch = {name: os.environ[name] for name in (OFF,) if name in os.environ}
    return {name: os.environ.get(name, value) for name, value in wanted.items()} | switch


def _head(cluster: Any, address: str | None) -> str | None:
    """Where the control store of the cluster listens; through ``ray://`` it is not reached."""
    if urlsplit(address or "").scheme == "ray":
        return None
    return cluster.get_runtime_context().gcs_address


def _fetch(cluster: Any, reference: Any, batch: Sequence[int]) -> str:
    try:
        return cluster.get(reference)
    except cluster.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, MfresnetError):
            raise MfresnetError(str(cause)) from None
        raise
    except cluster.exceptions.RayError as error:
        kind, where = type(error).__name__, f"cells {batch[0]} to {batch[-1]}"
        if isinstance(error, cluster.exceptions.WorkerCrashedError | cluster.exceptions.OutOfMemoryError):
            raise MfresnetError(
                f"the workers of {where} died {RETRIES + 1} times ({kind}): give them more memory, then resume the "
                "sweep."
            ) from error
        raise MfresnetError(
            f"the Ray cluster gave no rows of {where} back ({kind}: {str(error).strip().splitlines()[0]}): check the "
            "cluster, then resume the sweep."
        ) from error


def _connect(cluster: Any, address: str | None) -> None:
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address in (None, "local"):
        options |= {
            "address": "local",
            "include_dashboard": False,
            "num_cpus": os.cpu_count(),
            "object_store_memory": STORE_BYTES,
        }
    else:
        options["address"] = address
    try:
        with warnings.catch_warnings():  # JAX warns of a fork, but Ray's processes are other programs at once
            warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
            cluster.init(**options)
    except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        what = "no Ray cluster could be started" if address is None else f"no Ray cluster answers at {address!r}"
        raise MfresnetError(f"{what}: {str(error).splitlines()[0]}") from error


def _ray(address: str | None) -> Any:
    wanted = QUIET | (OWN if address in (None, "local") else {})
    os.environ.update({name: value for name, value in wanted.items() if name not in os.environ})
    try:
        import ray as cluster
    except ImportError as error:
        raise MfresnetError(
            "the Ray executor needs Ray, which is not installed: install it with `pip install 'mfresnet[ray]'`."
        ) from error
    return cluster
