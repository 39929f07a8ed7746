"""The loop of a training run: it advances a job chunk by chunk, writes what happens, and stops when told to."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from ..certify.tuning import Watch
from ..diagnostics.figures import portrait
from ..flow import TrainState, first_bad_step
from ..messages import Say
from ..train.devices import Devices
from ..train.divergence import likely_cause
from ..train.job import Job
from ..train.recorder import Recorder
from ..train.schedule import snapshot_steps
from . import checkpoint
from .certifying import check_possible
from .directory import RunDirectory
from .identity import fingerprint
from .recorded import recorded
from .stopping import Stop


def spent_on_diagnostics(rows: Sequence[Mapping[str, Any]]) -> float:
    """Seconds spent on diagnostics up to the last row."""
    return next((row["diagnostics_s"] for row in reversed(rows) if "diagnostics_s" in row), 0.0)


def _status(done: int, steps: int) -> str:
    return "completed" if done == steps else "interrupted"


@dataclass
class Driver:
    """Advances a job chunk by chunk and writes what happens."""

    run: RunDirectory
    job: Job
    quiet: bool
    say: Say
    stop: Stop
    where: Devices = field(default_factory=Devices)

    @cached_property
    def settings(self) -> str:
        """The fingerprint of the run's settings as they were written."""
        return fingerprint(self.run.config["config"])

    def drive(self, state: TrainState, *, wall_s: float) -> dict[str, Any]:
        """Train from ``state`` to the end, to a stop or to a divergence; returns the summary."""
        job, config = self.job, self.job.config
        steps, every = job.steps, job.every
        keep = snapshot_steps(steps, every, config.record.snapshots)
        begun = time.perf_counter() - wall_s
        saved_at = time.perf_counter()

        def wall() -> float:
            return time.perf_counter() - begun

        where, done = self.where, int(state.step)
        data = (where.shared_out(job.train), where.shared_out(job.test))
        trainer, key, state = where.training(job.trainer), where.laid_out(job.key), where.laid_out(state)
        spent = spent_on_diagnostics(self.run.metrics())
        self.recorder = Recorder(job, keep, self.say, spent=spent, data=data)
        self.save(state, wall())
        row = self.begin(state, wall())
        start_loss = (
            row["train.loss"] if done == 0 else self.recorder.metrics(where.laid_out(job.state), 0.0)["train.loss"]
        )
        bad = None if np.isfinite(row["train.loss"]) else 0
        watch = self.watch(done, keep)
        bar = tqdm(total=steps, initial=done, unit="step", disable=True if self.quiet else None, dynamic_ncols=True)
        with bar:
            self.show(bar, row)
            while bad is None and done < steps and not where.any(self.stop.asked) and not (watch and watch.over):
                count = min(every, steps - done)
                number = where.laid_out(jnp.asarray(count))
                after, losses = where.laid_out(trainer.advance(state, data[0], key, number, every))
                ahead = self.recorder.metrics(after, wall())
                bad = first_bad_step(np.append(np.asarray(losses)[:count], ahead["train.loss"]), start_loss)
                if bad is not None:
                    self.save(state, wall())
                    break
                state, row, done = after, ahead | self.measured(after), done + count
                self.run.append_metrics(row)
                bar.update(count)
                self.show(bar, row)
                due = time.perf_counter() - saved_at >= config.record.checkpoint_seconds
                if watch and done in keep:
                    watch.see(where.here(state))
                if done in keep or done == steps or where.any(due or self.stop.asked):
                    self.save(state, wall())
                    if where.leader:
                        checkpoint.prune(self.run.checkpoints, keep)
                    saved_at = time.perf_counter()
        if bad is None:  # another process may have been the one that was asked to stop
            self.save(state, wall())
        state = where.here(state)
        self.fetch_start()
        if not where.leader:
            return self.summary(row, "diverged" if bad is not None else _status(done, steps), wall())
        if bad is not None:
            return self.diverged(state, row, done + bad, wall())
        early = done < steps and watch is not None and watch.over
        if watch is not None and early:
            self.say(f"stopped at step {done}: the certificate has not improved for {watch.patience} recorded times.")
        return self.finish(state, row, "completed" if early else _status(done, steps), wall())

    def watch(self, done: int, keep: set[int]) -> Watch | None:
        """Early stopping on the certificate, where asked for, as it stands after ``done`` steps."""
        if not self.job.config.certify.patience:
            return None
        check_possible(self.job.config, self.job.split.train.task)
        self.fetch_start()
        found = Watch(self.job)
        for moment in recorded(self.run, self.job, sorted(step for step in keep if 0 < step <= done), self.say):
            found.see(moment.state)
        return found

    def fetch_start(self) -> None:
        """Bring the start, with which diagnostics compare, to this process's own device, where they are taken."""
        self.job = self.recorder.job = replace(self.job, state=self.where.here(self.job.state))

    def measured(self, state: TrainState) -> dict[str, Any]:
        """The diagnostics that are due, taken by one process on one device."""
        if not self.recorder.due(int(state.step)):
            return {}
        self.fetch_start()
        state = self.where.here(state)
        return self.recorder.measured(state) if self.where.leader else {}

    def save(self, state: TrainState, wall_s: float) -> None:
        """Write a checkpoint, unless this step has one."""
        step = int(state.step)
        missing = self.where.leader and step not in checkpoint.steps(self.run.checkpoints)
        if not self.where.any(missing):
            return
        whole = self.where.gathered(state)
        if missing:
            checkpoint.save(self.run.checkpoints, step, whole, {"wall_s": wall_s, "config": self.settings})

    def begin(self, state: TrainState, wall_s: float) -> dict[str, Any]:
        """The metrics at the first state of this process; rows that belong after it are made again."""
        step, every = int(state.step), self.job.every
        rows = self.run.truncate_metrics(step)
        # only the leader has rows, and all take part in what it measures
        if self.where.any(self.where.leader and (not rows or rows[-1]["step"] < step)):
            row = self.recorder.metrics(state, wall_s)
            row |= self.measured(state) if np.isfinite(row["train.loss"]) else {}
            self.run.append_metrics(row)
            rows.append(row)
        elif self.where.processes > 1:  # the others have no rows and take the losses now, which needs all
            row = self.recorder.metrics(state, wall_s)
            rows = rows or [row]
        if not self.where.leader:
            return rows[-1]
        if lost := -(-step // every) + 1 - len(rows):
            self.say(f"metrics.jsonl has lost {lost} rows: its curves will have a gap, training does not depend on it.")
        # read back, a number that is not finite is null
        return {name: np.nan if value is None else value for name, value in rows[-1].items()}

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
            **{name: value for name, value in row.items() if not isinstance(value, list)},
            "wall_s": wall_s,
            "train.n": len(split.train.x),
            "test.n": len(split.test.x),
            "error.kind": "root mean squared error" if split.train.task == "regression" else "share of wrong classes",
        }

    def finish(self, state: TrainState, row: dict[str, Any], status: str, wall_s: float) -> dict[str, Any]:
        """Write portrait, closing diagnostics and summary."""
        if row["step"] > 0:  # stopped before the first step there is nothing to see
            self.run.write_arrays("portrait", portrait(self.job.state.model, state.model, self.job.split))
        summary = self.summary(row, status, wall_s)
        if row["step"] > 0:
            closing, arrays = self.recorder.closing(state, self.run.metrics())
            if arrays:
                self.run.write_arrays("diagnostics", arrays)
            share = {"diagnostics.share": row.get("diagnostics_s", 0.0) / wall_s}
            summary |= closing | share | {"wall_s": wall_s + closing["closing_s"]}
        self.run.write_summary(summary)
        if status == "interrupted":
            self.say(f"interrupted at step {row['step']}: go on with {self.run.how_to_resume}")
        return summary

    def diverged(self, state: TrainState, row: dict[str, Any], step: int, wall_s: float) -> dict[str, Any]:
        """Write and say what happened, why, and what to change; ``state`` is the last good one."""
        message = f"training diverged at step {step}: {likely_cause(self.job, state, row['train.loss'])}"
        if np.isfinite(row["train.loss"]):
            message += f" The last good checkpoint is step {int(state.step)}."
            self.run.write_arrays("portrait", portrait(self.job.state.model, state.model, self.job.split))
        self.say(message)
        summary = self.summary(row, "diverged", wall_s) | {"diverged.step": step, "diverged.message": message}
        self.run.write_summary(summary)
        return summary
