"""An image run on disk: all block rules and seeds side by side; stop, resume to the bit, finish.

A checkpoint holds the states of every rule. A row of ``metrics.jsonl`` is an epoch under a rule, its lists run over
seeds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..config import build
from ..data.images import load_images
from ..errors import MfresnetError, within_memory
from ..image_config import ImageConfig
from ..images.ensemble import Everyone
from ..images.job import ImageJob, assemble_images, check_images, image_facts
from ..images.loop import Loop, lost_seeds
from ..images.rows import epoch_rows, image_summary
from ..messages import Say, print_message
from . import checkpoint
from .directory import RunDirectory
from .environment import environment, tell_changes
from .identity import fingerprint
from .lock import locked
from .stopping import Stop, stoppable

KIND = "image"  # what config.json calls such a run
GENERATED = "synthetic-images"


def train_images(
    config: ImageConfig,
    out: Path,
    *,
    command: str = "",
    overwrite: bool = False,
    quiet: bool = False,
    say: Say = print_message,
    devices: int | None = None,
) -> dict[str, Any]:
    """Train every block rule of a configuration into the directory ``out`` and return the summary.

    Args:
        devices: how many devices share each minibatch. No setting of the run: its result is the same to rounding on
            any number, and it may be resumed on another.

    Raises:
        MfresnetError: bad settings, bad images, a directory in use or one that cannot be written, too few devices, no
            memory left.
    """
    with Stop(say).installed() as stop:
        check_images(config)
        split = _split(config, say)
        job = assemble_images(config, split, devices)
        with RunDirectory.create(out, overwrite=overwrite) as run, stoppable(run.how_to_resume):
            run.write_config(
                {
                    "kind": KIND,
                    "config": job.config.model_dump(),
                    "data": image_facts(split),
                    "command": command,
                    "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                    **environment(),
                    "devices_used": devices or 1,
                }
            )
            for note in split.notes:
                say(note)
            return _Driver(run, job, quiet, say, stop).drive()


def resume_images(
    path: Path, *, quiet: bool = False, say: Say = print_message, devices: int | None = None
) -> dict[str, Any]:
    """Continue an image run; weights, coordinates and statistics equal the uninterrupted run's to the bit.

    On another number of ``devices`` they equal them to rounding.

    Raises:
        MfresnetError: no run there, no sound checkpoint left, or settings or images that are no longer the run's.
    """
    run = RunDirectory.open(path)
    stored = run.config
    summary = run.sound_summary(say)
    if summary.get("status") in ("completed", "diverged"):
        say(f"{str(path)!r} is {summary['status']} already: nothing to do.")
        return summary
    tell_changes(stored, "run", say)
    with locked(path), stoppable(run.how_to_resume), Stop(say).installed() as stop:
        return _Driver(run, stored_job(run, say, devices), quiet, say, stop).drive()


def stored_job(run: RunDirectory, say: Say, devices: int | None = None) -> ImageJob:
    """The job of a run that was begun, on the same images.

    Raises:
        MfresnetError: its settings or images are no longer the run's.
    """
    stored = run.config
    config = build(stored["config"], ImageConfig)
    split = _split(config, say)
    job = assemble_images(config, split, devices)
    if image_facts(split)["sha256"] != stored.get("data", {}).get("sha256"):
        if config.data.name != GENERATED:
            raise MfresnetError(
                f"the images of {config.data.name!r} changed since the run began: put them back as they were, "
                "or train a new run."
            )
        say("the generated images are not the run's to the bit on this machine: numbers may differ.")
    return job


def _split(config: ImageConfig, say: Say) -> Any:
    return load_images(config.data.name, seed=config.seed, n=config.data.n, n_test=config.data.n_test, say=say)


@dataclass
class _Driver:
    """Takes all rules from the newest checkpoint to the end and writes what happens."""

    run: RunDirectory
    job: ImageJob
    quiet: bool
    say: Say
    stop: Stop

    @cached_property
    def settings(self) -> str:
        """The fingerprint of the run's settings as they were written."""
        return fingerprint(self.run.config["config"])

    def drive(self) -> dict[str, Any]:
        """All rules, to the end or to a stop; returns the summary."""
        train = self.job.config.train
        with within_memory(
            f"lower --train.at-once (now {train.at_once or 'as many as fit'}), --seeds (now {train.seeds}), "
            f"--train.batch-size (now {train.batch_size}) or --model.width, set --train.precision bfloat16, or share "
            "minibatches with --devices."
        ):
            return self.train()

    def train(self) -> dict[str, Any]:
        """From the newest checkpoint to the end or to a stop; returns the summary."""
        loop = Loop(self.job, newest(self.run, self.job, self.settings, self.say))
        checkpoint.discard_after(self.run.checkpoints, loop.done)
        rows = self.run.truncate_metrics(loop.done)
        begun = time.perf_counter() - max((row.get("wall_s") or 0.0 for row in rows), default=0.0)
        saved, steps = time.perf_counter(), self.job.networks.first.steps
        bar = tqdm(
            total=steps, initial=loop.done, unit="step", disable=True if self.quiet else None, dynamic_ncols=True
        )
        with bar:
            while loop.going and not self.stop.asked:
                before = {name: lost_seeds(loop.states[name]) for name in loop.going}
                names = loop.advance()
                bar.update(loop.done - bar.n)
                for name in names:
                    self.fallen(name, lost_seeds(loop.states[name]) & ~before[name], loop.done)
                if loop.between_epochs:
                    for row in epoch_rows(self.job, loop, names):
                        self.run.append_metrics(row | {"wall_s": time.perf_counter() - begun})
                        self.show(bar, row)
                    self.tell_ended(loop, names)
                due = time.perf_counter() - saved >= self.job.config.record.checkpoint_seconds
                if due or self.stop.asked or not loop.going:
                    checkpoint.save(self.run.checkpoints, loop.done, loop.states, {"config": self.settings})
                    checkpoint.prune(self.run.checkpoints, set(), newest=2 if loop.going else 1)
                    saved = time.perf_counter()
        summary = image_summary(self.job, self.run.metrics(), "interrupted" if loop.going else "completed")
        summary["wall_s"] = time.perf_counter() - begun
        self.run.write_summary(summary)
        if loop.going:
            self.say(f"interrupted: go on with {self.run.how_to_resume}")
        return summary

    def fallen(self, name: str, lost: np.ndarray, done: int) -> None:
        """Say which seeds have just left the finite numbers, and what to change."""
        if not lost.any():
            return
        seeds = ", ".join(str(seed) for seed, gone in zip(self.job.seeds, lost, strict=True) if gone)
        self.say(
            f"{name}: training of seed {seeds} diverged before step {done}: lower --train.learning-rate "
            f"(now {self.job.config.train.learning_rate:g}), or set --train.clip or --train.warmup."
        )

    def tell_ended(self, loop: Loop, names: list[str]) -> None:
        """Say which rules have no seed left."""
        for name in names:
            if lost_seeds(loop.states[name]).all():
                self.say(f"{name}: no seed is left: the rule ends after epoch {loop.epoch}.")

    @staticmethod
    def show(bar: tqdm, row: Mapping[str, Any]) -> None:
        """Loss and test error of a rule, means over seeds, on the progress bar."""
        shown = {"loss": np.mean(row["train_loss"])}
        if "test_error" in row:
            shown["test"] = np.mean(row["test_error"])
        bar.set_postfix({f"{row['rule']} {name}": f"{value:.4g}" for name, value in shown.items()})


def newest(run: RunDirectory, job: ImageJob, settings: str, say: Say) -> Everyone:
    """The states of the newest checkpoint; those before the first step where there is none.

    Raises:
        MfresnetError: no sound checkpoint is left, or it is of other settings.
    """
    first = job.begin()
    states, facts = checkpoint.latest(run.checkpoints, first, say) or (first, {})
    if facts.get("config", settings) != settings:
        raise MfresnetError(
            f"the settings in {str(run.path / 'config.json')!r} were changed since the run began: "
            "put them back, or train them as a new run."
        )
    return job.spread(states)
