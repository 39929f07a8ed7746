"""A training run on disk: start, checkpoint, stop, resume to the bit, finish."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from ..certify.tuning import chosen, tune
from ..config import Config, build
from ..data import load
from ..errors import MfresnetError
from ..messages import Say, print_message
from ..train.devices import Devices
from ..train.job import Job, assemble, data_arrays, data_facts, precision
from . import checkpoint
from .certifying import certify_job, check_possible, entries
from .directory import Follower, RunDirectory
from .driver import Driver
from .environment import environment, tell_changes
from .identity import check_data, fingerprint
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
    with precision(config), Stop(say).installed() as stop:
        where = Devices.of(devices, particle_devices)
        where.check(config)
        refuse_on_processes(config, where)
        quiet, say = (quiet, say) if where.leader else (True, lambda message: None)
        split = load(config.data, config.seed)
        facts: dict[str, Any] = {}
        if config.certify.tune:
            check_possible(config, split.train.task)
            _led(lambda: RunDirectory.check(out, overwrite=overwrite), where)  # before hours of tuning
            config, rows = tune(
                config,
                split.train,
                split.transform,
                split.fitted_on,
                say=say,
                stopped=lambda: where.any(stop.asked),
            )
            facts["tuned"] = rows
            say(f"tuned on the training points: {chosen(rows)}")
        job = laid_out(assemble(config, split), where)
        run = _created(out, overwrite, where)
        with stoppable(run.how_to_resume):
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
            driver = Driver(run, job, quiet, say, stop, where)
            summary = driver.drive(job.state, wall_s=0.0)
            if where.leader:
                summary = with_certificates(run, driver.job, summary, say)
            where.wait()
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
    stored = run.config
    summary = run.sound_summary(say)
    config = build(stored["config"])
    if summary.get("status") == "completed":
        if not config.diagnostics.control or summary.get("control.status") in ("completed", "diverged"):
            say(f"{str(path)!r} is completed already: nothing to do.")
            return summary
        return with_control(run, config, summary, quiet, say, devices, particle_devices)
    tell_changes(stored, "run", say)
    with precision(config), stoppable(run.how_to_resume), Stop(say).installed() as stop:
        where = Devices.of(devices, particle_devices)
        where.check(config)
        refuse_on_processes(config, where)
        if not where.leader:
            run, quiet, say = Follower(path), True, lambda message: None
        job = laid_out(assemble(config, load(config.data, config.seed)), where)
        check_data(stored, job, say)
        found = checkpoint.latest(run.checkpoints, job.state, say)
        if found is None:
            say("no checkpoint was written yet: starting from the first step.")
        state, facts = found or (job.state, {})
        state, found = where.laid_out(state), None  # one device does not keep it whole
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
        driver = Driver(run, job, quiet, say, stop, where)
        summary = driver.drive(state, wall_s=facts.get("wall_s", 0.0))
        if where.leader:
            summary = with_certificates(run, driver.job, summary, say)
        where.wait()
    return with_control(run, job.config, summary, quiet, say, devices, particle_devices)


def laid_out(job: Job, where: Devices) -> Job:
    """The job, whose start lies on the devices where training wants it."""
    return replace(job, state=where.laid_out(job.state))


def _created(out: Path, overwrite: bool, where: Devices) -> RunDirectory:
    """The run directory."""
    return _led(lambda: RunDirectory.create(out, overwrite=overwrite), where) or Follower(out)


def _led(make: Callable[[], T], where: Devices) -> T | None:
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
        found = resume(out, quiet=quiet, say=say, devices=devices, particle_devices=particle_devices)
    else:
        frozen = config.model_copy(
            update={
                "train": config.train.model_copy(update={"freeze": "encoder"}),
                "diagnostics": config.diagnostics.model_copy(update={"control": False, "gram_every": 0}),
                "certify": config.certify.model_copy(update={"enabled": False, "patience": 0}),
            }
        )
        say("control: the same run with a frozen encoder")
        found = train(
            frozen,
            out,
            quiet=quiet,
            say=lambda message: None,
            devices=devices,
            particle_devices=particle_devices,
        )
    names = ("status", "train.loss", "train.error", "test.error")
    summary = summary | {f"control.{name}": found[name] for name in names}
    run.write_summary(summary)
    return summary
