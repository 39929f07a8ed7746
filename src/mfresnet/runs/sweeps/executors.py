"""Where the batches of a sweep run: in this process, or as tasks on a Ray cluster.

An executor yields (batch, rows) as batches finish, in any order, and writes nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from ...errors import MfresnetError, unknown_name
from ...experiments import Experiment
from . import on_ray

Work = Generator[tuple[Sequence[int], Sequence[dict[str, Any]]], None, None]


def local(
    *,
    experiment: Experiment,
    cells: Sequence[Mapping[str, Any]],
    batches: Sequence[Sequence[int]],
    pulse: Callable[[float], None],
    **rest: Any,
) -> Work:
    """One batch after the other in this process; every batch is one compiled program on all cores."""
    for batch in batches:
        pulse(0.0)
        yield batch, experiment.run([cells[place] for place in batch], lambda share, n=len(batch): pulse(share * n))


EXECUTORS: dict[str, Callable[..., Work]] = {"local": local, "ray": on_ray.ray}


def check(executor: str, address: str | None) -> None:
    """Refuse an executor that cannot work, before anything is written.

    Raises:
        MfresnetError: unknown, Ray not installed, or an address without Ray or out of reach.
    """
    if executor not in EXECUTORS:
        raise unknown_name("executor", executor, EXECUTORS)
    if address is not None and executor != "ray":
        raise MfresnetError(f"address {address!r} is of a Ray cluster: give --executor ray with it.")
    if executor == "ray":
        on_ray.check(address)
