"""A sweep on disk: begin, run what is missing, stop in order, go on, analyse."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ...config import Section, build
from ...errors import MfresnetError
from ...experiments import Experiment, Stopped, entry
from ...json_types import plain
from ...messages import Say, print_message
from ...train.cost import PROCESS_BYTES, REPORT_BYTES, Cost, total_cost
from ..environment import environment, tell_changes
from ..identity import check_sums, fingerprint
from ..lock import hold_lock
from ..stopping import Stop, stoppable
from .checkpoints import Checkpoints
from .directory import SweepDirectory
from .executors import EXECUTORS, Work, check, thread_count

CELL_BYTES = 4096  # of a row, in its file and in the tables
BAR = "{desc}{percentage:3.0f}%|{bar}| {n:.1f}/{total} cells [{elapsed}<{remaining}{postfix}]"
# A batch that is stopped is run again from its start, but for a long one that keeps checkpoints (`Experiment.resume`).
WHEN = "when the steps at work are made (of finite-size: the networks at work are trained)"
LAST = " The process ends when the steps at work are made."


def sweep(
    name: str,
    settings: Section,
    out: Path,
    *,
    executor: str = "local",
    address: str | None = None,
    command: str = "",
    overwrite: bool = False,
    quiet: bool = False,
    say: Say = print_message,
) -> dict[str, Any]:
    """Run an experiment into the directory ``out`` and return its summary.

    Args:
        name: of the experiment (`mfresnet.experiments.EXPERIMENTS`).
        settings: its settings.
        executor: "local" (this process) or "ray".
        address: of a Ray cluster; None starts one on this machine.

    Raises:
        MfresnetError: bad settings, an empty grid, a directory in use, Ray missing or out of reach.
    """
    check(executor, address)
    directory = SweepDirectory(out, _flags(executor, address))
    directory.check_free(overwrite)
    experiment = entry(name).create(settings)
    cells = experiment.cells()
    batches = experiment.batches(cells)
    with Stop(say, WHEN).install() as stop, hold_lock(out):
        directory.check_free(overwrite)
        directory.empty()
        directory.write(
            "config",
            {
                "experiment": name,
                "settings": settings.model_dump(),
                "seed": getattr(settings, "seed", None),
                "cells": cells,
                "batches": batches,
                "data_sums": experiment.data_sums(cells),
                "command": command,
                "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                **environment(),
            },
        )
        with stoppable(directory.how_to_resume, LAST):
            return _drive(directory, experiment, _work(name, settings, executor, address, say), quiet, say, stop)


def predict_sweep(name: str, settings: Section) -> Cost | None:
    """What a sweep costs on this machine, without compilation and files; None where no model of its cells is known.

    Batches run at once on the machine's cores; the seconds are those until the last one ends.

    Raises:
        MfresnetError: bad settings or an empty grid.
    """
    experiment = entry(name).create(settings)
    cells = experiment.cells()
    batches = experiment.batches(cells)
    costs = experiment.costs(cells, batches)
    if costs is None:
        return None
    whole, at_once = total_cost(costs), thread_count(experiment, cells, batches)
    return replace(
        whole,
        counts={"cells": len(cells), "batches": len(batches), "at once": at_once, **whole.counts},
        seconds=max(whole.seconds / at_once, *(cost.seconds for cost in costs)),
        memory=PROCESS_BYTES + at_once * (whole.memory - PROCESS_BYTES),
        files=REPORT_BYTES + CELL_BYTES * len(cells),
    )


def resume_sweep(
    path: Path,
    *,
    executor: str = "local",
    address: str | None = None,
    quiet: bool = False,
    say: Say = print_message,
) -> dict[str, Any]:
    """Run the cells of a sweep that are missing, and analyse; the result equals the uninterrupted sweep's.

    Raises:
        MfresnetError: no sweep there, another process runs it, or its settings are not this version's.
    """
    check(executor, address)
    directory = SweepDirectory.open(path, _flags(executor, address))
    with Stop(say, WHEN).install() as stop, hold_lock(path), stoppable(directory.how_to_resume, LAST):
        stored = directory.config
        kind = entry(stored["experiment"])
        settings = build(stored["settings"], kind.settings_type())
        experiment = kind.create(settings)
        if plain(experiment.cells()) != stored["cells"]:
            raise MfresnetError(
                f"the settings in {str(path / 'config.json')!r} no longer give its cells: put them back, or run a new "
                "sweep."
            )
        check_sums(stored.get("data_sums", {}), experiment.data_sums(stored["cells"]), say)
        tell_changes(stored, "sweep", say)
        work = _work(stored["experiment"], settings, executor, address, say)
        return _drive(directory, experiment, work, quiet, say, stop)


def _flags(executor: str, address: str | None) -> tuple[str, ...]:
    """What a command that goes on in the same place needs."""
    own = () if executor == "local" else ("--executor", executor)
    return own if address is None else (*own, "--address", address)


def _work(name: str, settings: Section, executor: str, address: str | None, say: Say) -> Callable[..., Work]:
    def start(
        experiment: Experiment, cells: Sequence[Any], batches: Sequence[Sequence[int]], pulse: Any, keep: Any
    ) -> Work:
        return EXECUTORS[executor](
            experiment=experiment,
            name=name,
            settings=plain(settings.model_dump()),
            cells=cells,
            batches=batches,
            pulse=pulse,
            keep=keep,
            address=address,
            say=say,
        )

    return start


def _drive(
    directory: SweepDirectory,
    experiment: Experiment,
    start: Callable[..., Work],
    quiet: bool,
    say: Say,
    stop: Stop,
) -> dict[str, Any]:
    stored = directory.config
    cells, batches = stored["cells"], stored["batches"]
    spent = float(directory.summary.get("seconds", 0.0) or 0.0)
    begun = time.perf_counter()
    done = directory.rows(len(cells))
    missing = [batch for batch in batches if not all(place in done for place in batch)]
    settled = float(len(cells) - sum(map(len, missing)))
    options: dict[str, Any] = {"bar_format": BAR, "dynamic_ncols": True, "leave": False}
    bar = tqdm(total=len(cells), initial=settled, disable=True if quiet else None, **options)

    def pulse(share_of_cells: float) -> None:
        """Cells' worth of work in progress; the place where a sweep stops in order."""
        bar.update(max(0.0, settled + share_of_cells - bar.n))
        if stop.asked:
            raise Stopped

    status, kept = "completed", Checkpoints(directory.path, fingerprint(stored["settings"]), say)
    with bar:
        try:
            # whatever ends the loop, the work ends too
            with closing(start(experiment, cells, missing, pulse, kept.of)) as work:
                for batch, rows in work:
                    for place, row in zip(batch, rows, strict=True):
                        if place not in done:
                            done[place] = plain({"cell": place, **cells[place], **row})
                            directory.write_cell(place, done[place])
                            if row["status"] == "diverged":
                                say(_lost(place, cells[place], row))
                    kept.forget(batch)
                    settled += len(batch)
                    pulse(0.0)
        except Stopped:
            status = "completed" if len(done) == len(cells) else "interrupted"
    rows = [done[place] for place in sorted(done)]
    summary = {
        "status": status,
        "cells": len(cells),
        "done": len(done),
        "diverged": sum(row["status"] == "diverged" for row in rows),
        "seconds": spent + time.perf_counter() - begun,
    }
    if rows:
        directory.write_tables(rows)
    if status == "completed":
        kept.forget_all()
        directory.write("result", {"experiment": experiment.name, **experiment.analyse(rows).as_dict()})
    else:
        say(f"interrupted with {len(done)} of {len(cells)} cells done: go on with {directory.how_to_resume}")
    directory.write("summary", summary)
    return summary


def _lost(place: int, cell: Any, row: Any) -> str:
    named = ", ".join(f"{name} = {value}" for name, value in cell.items())
    step = f" at step {row['diverged.step']}" if "diverged.step" in row else ""
    return f"cell {place} ({named}) diverged{step}."
