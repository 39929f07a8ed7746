"""Where the batches of a sweep run: in this process, or as tasks on a Ray cluster.

An executor yields (batch, rows) as batches finish, in any order, and writes nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from threading import Event
from typing import Any

import psutil

from ...errors import MfresnetError, unknown_name
from ...experiments import Checkpoints, Experiment, Stopped
from ...threads import cores
from . import on_ray

MOST_THREADS = 4  # each holds a batch in memory

Work = Generator[tuple[Sequence[int], Sequence[dict[str, Any]]], None, None]


def local(
    *,
    experiment: Experiment,
    cells: Sequence[Mapping[str, Any]],
    batches: Sequence[Sequence[int]],
    pulse: Callable[[float], None],
    keep: Callable[[Sequence[int]], Checkpoints],
    **rest: Any,
) -> Work:
    """Batches in threads of this process: one trains on a core while another is compiled on the next.

    Most of a batch runs outside the interpreter's lock, and its numbers do not depend on what runs beside it.
    """
    halt, shares = Event(), [0.0] * len(batches)

    def run(place: int) -> list[dict[str, Any]]:
        def share(done: float) -> None:
            shares[place] = done * len(batches[place])
            if halt.is_set():
                raise Stopped

        share(0.0)
        return experiment.resume([cells[cell] for cell in batches[place]], share, keep(batches[place]))

    with ThreadPoolExecutor(thread_count(experiment, cells, batches)) as threads:
        # from the last, which of one program has the most points, so that the last to end is a small one
        running = {threads.submit(run, place): place for place in reversed(range(len(batches)))}
        try:
            while running:
                ended, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in ended:
                    place = running.pop(future)
                    shares[place] = 0.0  # counted by the driver from now on
                    yield batches[place], future.result()
                pulse(sum(shares))
        finally:
            halt.set()
            threads.shutdown(wait=True, cancel_futures=True)


def thread_count(experiment: Experiment, cells: Sequence[Mapping[str, Any]], batches: Sequence[Sequence[int]]) -> int:
    """How many batches run at once in this process: one a core, and no more than fit into memory."""
    largest = max((experiment.memory([cells[cell] for cell in batch]) for batch in batches), default=0)
    room = psutil.virtual_memory().available // max(largest, 1)
    return max(1, min(MOST_THREADS, cores(), room, len(batches)))


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
