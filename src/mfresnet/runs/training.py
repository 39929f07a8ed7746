"""A training run on disk: start, checkpoint, stop, resume to the bit, finish."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from ..config import Config, build
from ..data import load
from ..flow import TrainState, evaluate
from . import checkpoint
from .assemble import Job, assemble, data_arrays, data_facts
from .directory import RunDirectory
from .divergence import first_bad_step, likely_cause
from .environment import environment
from .portrait import portrait

Say = Callable[[str], None]


def say_aloud(message: str) -> None:
    """Messages go to the error stream: the output stream carries results."""
    print(message, file=sys.stderr, flush=True)


def train(
    config: Config,
    out: Path,
    *,
    command: str = "",
    overwrite: bool = False,
    quiet: bool = False,
    say: Say = say_aloud,
) -> dict[str, Any]:
    """Run a configuration into the directory ``out`` and return its summary.

    Raises:
        MfresnetError: bad settings, bad data, a directory in use or one that cannot be written.
    """
    with precision(config):
        split = load(config.data, config.seed)
        job = assemble(config, split)
        run = RunDirectory.create(out, overwrite=overwrite)
        run.write_config(
            {
                "config": job.config.model_dump(),
                "data": data_facts(split),
                "command": command,
                "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                **environment(),
            }
        )
        run.write_arrays("data", data_arrays(split))
        for note in split.notes:
            say(note)
        return _Driver(run, job, quiet, say).drive(job.state, wall_s=0.0, fresh=True)


def resume(path: Path, *, quiet: bool = False, say: Say = say_aloud) -> dict[str, Any]:
    """Continue a run from its newest sound checkpoint; the result equals the uninterrupted run's to the bit.

    Raises:
        MfresnetError: no run there, or no sound checkpoint left.
    """
    run = RunDirectory.open(path)
    if run.summary.get("status") == "completed":
        say(f"{str(path)!r} is completed already: nothing to do.")
        return run.summary
    stored = run.config
    config = build(stored["config"])
    changed = [
        f"{name} {old} -> {new}"
        for name, new in environment()["versions"].items()
        if (old := stored["versions"].get(name)) != new
    ]
    if changed:
        say(f"versions differ from the run's ({', '.join(changed)}): numbers may differ in the last bits.")
    with precision(config):
        job = assemble(config, load(config.data, config.seed))
        state, facts = checkpoint.latest(run.checkpoints, job.state, say)
        run.truncate_metrics(int(state.step))
        return _Driver(run, job, quiet, say).drive(state, wall_s=facts["wall_s"], fresh=False)


@contextmanager
def precision(config: Config) -> Iterator[None]:
    """64-bit numbers inside, where the configuration asks for them."""
    with jax.enable_x64(config.train.precision == "float64"):
        yield


def snapshot_steps(steps: int, every: int, count: int) -> set[int]:
    """Steps whose checkpoints are kept: the start, the end, and ``count`` between, evenly in log time.

    >>> sorted(snapshot_steps(100, 10, 4))
    [0, 10, 20, 50, 100]
    """
    wanted = np.geomspace(every, max(steps, every), count)
    return {0, steps} | {min(steps, max(every, every * round(w / every))) for w in wanted}


class _Stop:
    """Turns the first Ctrl-C (or a polite kill) into a request; a second one stops at once."""

    def __init__(self, say: Say):
        self.asked = False
        self.say = say

    def __call__(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self.say("stopping at the next checkpoint; once more to stop at once")

    @contextmanager
    def installed(self) -> Iterator[_Stop]:
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self) for number in numbers]
        try:
            yield self
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


@dataclass
class _Driver:
    """Advances a job chunk by chunk and writes what happens."""

    run: RunDirectory
    job: Job
    quiet: bool
    say: Say

    def drive(self, state: TrainState, *, wall_s: float, fresh: bool) -> dict[str, Any]:
        """Train to the end, to a stop or to a divergence; returns the summary."""
        job, config = self.job, self.job.config
        steps, every = config.train.steps, config.record.metrics_every
        keep = snapshot_steps(steps, every, config.record.snapshots)
        begun = time.perf_counter() - wall_s
        saved_at = time.perf_counter()

        def wall() -> float:
            return time.perf_counter() - begun

        if fresh:
            self.save(state, wall())
            row = self.record(state, wall())
        else:
            row = self.run.metrics()[-1]
        start_loss = self.run.metrics()[0]["train.loss"]
        done = int(state.step)
        bar = tqdm(total=steps, initial=done, unit="step", disable=True if self.quiet else None, dynamic_ncols=True)
        with _Stop(self.say).installed() as stop, bar:
            self.show(bar, row)
            while done < steps and not stop.asked:
                count = min(every, steps - done)
                after, losses = job.trainer.advance(state, job.train, job.key, jnp.asarray(count), every)
                bad = first_bad_step(np.asarray(losses)[:count], start_loss)
                row = {} if bad is not None else self.row(after, wall())
                if bad is None and not np.isfinite(row["train.loss"]):
                    bad = count
                if bad is not None:
                    self.save(state, wall())
                    return self.diverged(state, done + bad, wall())
                state, done = after, done + count
                self.run.append_metrics(row)
                bar.update(count)
                self.show(bar, row)
                due = time.perf_counter() - saved_at >= config.record.checkpoint_seconds
                if done in keep or due or stop.asked or done == steps:
                    self.save(state, wall())
                    checkpoint.prune(self.run.checkpoints, keep)
                    saved_at = time.perf_counter()
        if done < steps:
            return self.finish(state, row, "interrupted", wall())
        return self.finish(state, row, "completed", wall())

    def save(self, state: TrainState, wall_s: float) -> None:
        """Write a checkpoint."""
        checkpoint.save(self.run.checkpoints, int(state.step), state, {"wall_s": wall_s})

    def row(self, state: TrainState, wall_s: float) -> dict[str, Any]:
        """The metrics at a state."""
        job, config = self.job, self.job.config
        row: dict[str, Any] = {"step": int(state.step), "wall_s": wall_s}
        if config.train.rule == "gradient-flow":
            row["time"] = int(state.step) * config.train.time / config.train.steps
        for name, data in (("train", job.train), ("test", job.test)):
            loss, error = evaluate(state.model, data, config.train.loss, job.split.train.task)
            row |= {f"{name}.loss": float(loss), f"{name}.error": float(error)}
        return row

    def record(self, state: TrainState, wall_s: float) -> dict[str, Any]:
        """Append the metrics at a state."""
        row = self.row(state, wall_s)
        self.run.append_metrics(row)
        return row

    @staticmethod
    def show(bar: tqdm, row: dict[str, Any]) -> None:
        """Loss and errors on the progress bar."""
        names = {"train.loss": "loss", "train.error": "train", "test.error": "test"}
        bar.set_postfix({short: f"{row[name]:.4g}" for name, short in names.items()})

    def summary(self, row: dict[str, Any], status: str, wall_s: float) -> dict[str, Any]:
        """What every summary says."""
        split = self.job.split
        return {
            "status": status,
            **row,
            "wall_s": wall_s,
            "train.n": len(split.train.x),
            "test.n": len(split.test.x),
            "error.kind": "root mean squared error" if split.train.task == "regression" else "share of wrong classes",
        }

    def finish(self, state: TrainState, row: dict[str, Any], status: str, wall_s: float) -> dict[str, Any]:
        """Write portrait and summary."""
        self.run.write_arrays("portrait", portrait(self.job.state.model, state.model, self.job.split))
        summary = self.summary(row, status, wall_s)
        self.run.write_summary(summary)
        if status == "interrupted":
            self.say(f"interrupted at step {row['step']}: go on with `mfresnet resume {self.run.path}`")
        return summary

    def diverged(self, state: TrainState, step: int, wall_s: float) -> dict[str, Any]:
        """Write and say what happened, why, and what to change; ``state`` is the last good one."""
        message = (
            f"training diverged at step {step}: {likely_cause(self.job, state)} "
            f"The last good checkpoint is step {int(state.step)}."
        )
        self.say(message)
        row = self.row(state, wall_s)
        summary = self.summary(row, "diverged", wall_s) | {"diverged.step": step, "diverged.message": message}
        self.run.write_arrays("portrait", portrait(self.job.state.model, state.model, self.job.split))
        self.run.write_summary(summary)
        return summary
