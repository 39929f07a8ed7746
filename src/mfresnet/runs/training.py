"""A training run on disk: start, checkpoint, stop, resume to the bit, finish."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from ..certify.tuning import describe_best
from ..config import Config, build
from ..diagnostics.figures import network_figures
from ..errors import MfresnetError
from ..flow import TrainState
from ..messages import Say, print_message
from ..train.certifying import Watch, check_possible, tune_config
from ..train.devices import Devices
from ..train.fit import train_job
from ..train.job import Job, assemble, data_arrays, data_facts, load_split, precision
from . import checkpoint
from .certifying import certify_job, entries
from .directory import Follower, RunDirectory
from .environment import environment, tell_changes
from .identity import check_data, fingerprint
from .lock import hold_lock
from .progress import Progress
from .recorded import read_states
from .recorder import RunRecorder
from .stopping import Stop, stoppable

T = TypeVar("T")


def train(
    config: Config,
    out: Path,
    *,
    command: str = "",
    overwrite: bool = False,
    quiet: bool = False,
    say: Say = print_message,
    devices: int | None = None,
    particle_devices: int | None = None,
) -> dict[str, Any]:
    """Run a configuration into the directory ``out`` and return its summary.

    Args:
        devices: how many devices share the points (`Devices.of`). No setting of the run: its result is the same to
            rounding on any number, and it may be resumed on another.
        particle_devices: how many of them share the particles too (default 1), for networks that do not fit one.

    Raises:
        MfresnetError: bad settings, bad data, a directory in use or one that cannot be written, too few devices.
    """
    with precision(config), Stop(say).install() as stop:
        where = Devices.of(devices, particle_devices)
        where.check(config)
        refuse_on_processes(config, where)
        quiet, say = (quiet, say) if where.leader else (True, lambda message: None)
        split = load_split(config)
        facts: dict[str, Any] = {}
        if config.certify.tune:
            check_possible(config, split.train.task)
            _lead(lambda: RunDirectory.check(out, overwrite=overwrite), where)  # before hours of tuning
            config, rows = tune_config(
                config,
                split.train,
                split.transform,
                split.fitted_on,
                say=say,
                stopped=lambda: where.any(stop.asked),
            )
            facts["tuned"] = rows
            say(f"tuned on the training points: {describe_best(rows)}")
        job = where.place_start(assemble(config, split))
        with _create(out, overwrite, where) as run, stoppable(run.how_to_resume):
            run.write_config(
                {
                    "config": job.config.model_dump(),
                    "data": data_facts(split),
                    "command": command,
                    "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                    **facts,
                    **environment(),
                    "devices_used": where.count,
                    "particle_devices_used": where.particle_shares,
                }
            )
            run.write_arrays("data", data_arrays(split))
            for note in split.notes:
                say(note)
            summary = _train(run, job, job.state, where, stop, quiet=quiet, say=say)
            return with_control(run, job.config, summary, quiet, say, devices, particle_devices)


def resume(
    path: Path,
    *,
    quiet: bool = False,
    say: Say = print_message,
    devices: int | None = None,
    particle_devices: int | None = None,
) -> dict[str, Any]:
    """Continue a run from its newest sound checkpoint; the result equals the uninterrupted run's to the bit.

    On another number of ``devices``, or of those that share particles, it equals it to rounding. Many processes must
    all see the directory.

    Raises:
        MfresnetError: no run there, no sound checkpoint left, or data and settings that are no longer the run's.
    """
    run = RunDirectory.open(path)
    build(run.config["config"])  # what is no run is refused before anything is written there
    with hold_lock(path) if jax.process_index() == 0 else nullcontext():
        return _resume(run, quiet, say, devices, particle_devices)


def _resume(
    run: RunDirectory, quiet: bool, say: Say, devices: int | None, particle_devices: int | None
) -> dict[str, Any]:
    path, stored = run.path, run.config
    summary = run.sound_summary(say)
    config = build(stored["config"])
    if summary.get("status") == "completed":
        if not config.diagnostics.control or summary.get("control.status") in ("completed", "diverged"):
            say(f"{str(path)!r} is completed already: nothing to do.")
            return summary
        return with_control(run, config, summary, quiet, say, devices, particle_devices)
    tell_changes(stored, "run", say)
    with precision(config), stoppable(run.how_to_resume), Stop(say).install() as stop:
        where = Devices.of(devices, particle_devices)
        where.check(config)
        refuse_on_processes(config, where)
        if not where.leader:
            run, quiet, say = Follower(path), True, lambda message: None
        job = where.place_start(assemble(config, load_split(config)))
        check_data(stored, job, say)
        newest = checkpoint.latest(run.checkpoints, job.state, say)
        if newest is None:
            say("no checkpoint was written yet: starting from the first step.")
        state, facts = newest or (job.state, {})
        state, newest = where.place(state), None  # one device does not keep it whole
        if facts.get("config", fingerprint(stored["config"])) != fingerprint(stored["config"]):
            raise MfresnetError(
                f"the settings in {str(path / 'config.json')!r} were changed since the run began: "
                "put them back, or train them as a new run."
            )
        where.wait()  # before anything is removed, all have read
        if where.leader:
            checkpoint.discard_after(run.checkpoints, int(state.step))
        if where.leader and not run.has_arrays("data"):
            run.write_arrays("data", data_arrays(job.split))
        summary = _train(run, job, state, where, stop, quiet=quiet, say=say, wall_s=facts.get("wall_s", 0.0))
    return with_control(run, job.config, summary, quiet, say, devices, particle_devices)


def _train(
    run: RunDirectory,
    job: Job,
    state: TrainState,
    where: Devices,
    stop: Stop,
    *,
    quiet: bool,
    say: Say,
    wall_s: float = 0.0,
) -> dict[str, Any]:
    """Train a job from ``state`` on, write what came out, and return the summary."""
    done = int(state.step)
    stopping = early_stopping(run, where.fetch_start(job), done, say) if job.config.certify.patience else None
    if slow := where.why_slow(job.config, *job.split.train.x.shape):
        say(slow)
    recorder = RunRecorder(run, job, where, say)
    spent = next((row["diagnostics_s"] for row in reversed(recorder.rows) if "diagnostics_s" in row), 0.0)
    with Progress(job.steps, done, quiet) as progress:
        result = train_job(
            job,
            recorder,
            state=state,
            devices=where,
            stopping=stopping,
            stop=lambda: stop.asked,
            callback=progress,
            say=say,
            wall_s=wall_s,
            spent=spent,
        )
    summary = dict(result.summary)
    if where.leader:
        # stopped before the first step there is nothing to see
        moved = done > 0 or int(result.state.step) > 0 or result.status == "diverged"
        if moved and np.isfinite(result.summary["train.loss"]):
            run.write_arrays("portrait", network_figures(result.start, result.model, job.split))
        if result.arrays:
            run.write_arrays("diagnostics", result.arrays)
        run.write_summary(summary)
        if result.status == "interrupted":
            say(f"interrupted at step {int(result.state.step)}: go on with {run.how_to_resume}")
        summary = with_certificates(run, result.job, summary, say)
    where.wait()
    return summary


def early_stopping(run: RunDirectory, job: Job, done: int, say: Say) -> Watch:
    """Early stopping on the certificate, as it stands after ``done`` steps."""
    check_possible(job.config, job.split.train.task)
    watch = Watch(job)
    for state in read_states(run, job, [step for step in job.kept if 0 < step <= done], say):
        watch.see(state)
    return watch


@contextmanager
def _create(out: Path, overwrite: bool, where: Devices) -> Iterator[RunDirectory]:
    """The run directory, locked by the leader."""
    with ExitStack() as stack:
        yield _lead(lambda: stack.enter_context(RunDirectory.create(out, overwrite=overwrite)), where) or Follower(out)


def _lead(make: Callable[[], T], where: Devices) -> T | None:
    """What the leader makes (None elsewhere), or its error in all processes: none may wait for one that has left."""
    made, mistake = None, None
    if where.leader:
        try:
            made = make()
        except MfresnetError as error:
            mistake = error
    if where.any(mistake is not None):
        raise mistake or MfresnetError("process 0 could not begin the run: its message says why.")
    return made


def refuse_on_processes(config: Config, where: Devices) -> None:
    """What only the first process would decide: the control run, and stopping on the certificate."""
    if config.diagnostics.control and where.processes > 1:
        raise MfresnetError(
            f"diagnostics.control = true is not allowed with {where.processes} processes: train with --train.freeze "
            "encoder as a run of its own."
        )
    if config.certify.patience and where.processes > 1:
        raise MfresnetError(
            f"certify.patience = {config.certify.patience} is not allowed with {where.processes} processes: train on "
            "the devices of one."
        )


def with_certificates(run: RunDirectory, job: Job, summary: dict[str, Any], say: Say) -> dict[str, Any]:
    """Certify a completed run of a classification by a flow, where asked for; else a line says why not."""
    if not job.config.certify.enabled or summary["status"] != "completed" or job.split.train.task == "regression":
        return summary
    try:
        return summary | entries(certify_job(run, job, say=say))
    except MfresnetError as error:
        say(f"not certified: {error}")
        return summary


def with_control(
    run: RunDirectory,
    config: Config,
    summary: dict[str, Any],
    quiet: bool,
    say: Say,
    devices: int | None = None,
    particle_devices: int | None = None,
) -> dict[str, Any]:
    """Where asked for, the same run with a frozen encoder in ``control/``: does the encoder matter?"""
    if not config.diagnostics.control or summary["status"] != "completed":
        return summary
    out = run.path / "control"
    if (out / "config.json").is_file():
        ended = resume(out, quiet=quiet, say=say, devices=devices, particle_devices=particle_devices)
    else:
        frozen = config.model_copy(
            update={
                "train": config.train.model_copy(update={"freeze": "encoder"}),
                "diagnostics": config.diagnostics.model_copy(
                    update={"control": False, "gram_every": 0, "solver_error": False}
                ),
                "certify": config.certify.model_copy(update={"enabled": False, "patience": 0}),
            }
        )
        say("control: the same run with a frozen encoder")
        ended = train(
            frozen,
            out,
            quiet=quiet,
            say=lambda message: None,
            devices=devices,
            particle_devices=particle_devices,
        )
    names = ("status", "train.loss", "train.error", "test.error")
    summary = summary | {f"control.{name}": ended[name] for name in names}
    run.write_summary(summary)
    return summary
