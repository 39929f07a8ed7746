"""An image run on disk: one block rule after the other, all seeds of a rule at once; stop, resume to the bit, finish.

Checkpoints lie in ``checkpoints/RULE``. A row of ``metrics.jsonl`` is an epoch under a rule, its lists run over
seeds; "step" counts on from rule to rule, so that a resumed run knows which rows it makes again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..config import build
from ..data.images import load_images
from ..errors import MfresnetError, within_memory
from ..image_config import ImageConfig
from ..images import ImageState, ImageTrainer
from ..images.job import ImageJob, assemble_images, check_images, image_facts
from . import checkpoint
from .console import Say, Stop, say_aloud, stoppable
from .directory import RunDirectory
from .environment import environment, tell_changes
from .identity import fingerprint
from .image_rows import block_sensitivity, epoch_row, image_summary

KIND = "image"  # what config.json calls such a run
GENERATED = "synthetic-images"
BREATH = 2.0  # seconds between looks at the clock and at Ctrl-C


def train_images(
    config: ImageConfig,
    out: Path,
    *,
    command: str = "",
    overwrite: bool = False,
    quiet: bool = False,
    say: Say = say_aloud,
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
        run = RunDirectory.create(out, overwrite=overwrite)
        with stoppable(run.how_to_resume):
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
    path: Path, *, quiet: bool = False, say: Say = say_aloud, devices: int | None = None
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
    config = build(stored["config"], ImageConfig)
    with stoppable(run.how_to_resume), Stop(say).installed() as stop:
        split = _split(config, say)
        job = assemble_images(config, split, devices)
        if image_facts(split)["sha256"] != stored.get("data", {}).get("sha256"):
            if config.data.name != GENERATED:
                raise MfresnetError(
                    f"the images of {config.data.name!r} changed since the run began: put them back as they were, "
                    "or train a new run."
                )
            say("the generated images are not the run's to the bit on this machine: numbers may differ.")
        return _Driver(run, job, quiet, say, stop).drive()


def _split(config: ImageConfig, say: Say) -> Any:
    return load_images(config.data.name, seed=config.seed, n=config.data.n, n_test=config.data.n_test, say=say)


@dataclass
class _Driver:
    """Takes each rule from its newest checkpoint to the end and writes what happens."""

    run: RunDirectory
    job: ImageJob
    quiet: bool
    say: Say
    stop: Stop
    pace: float = field(default=1.0, init=False)  # steps that fill a breath

    @cached_property
    def settings(self) -> str:
        """The fingerprint of the run's settings as they were written."""
        return fingerprint(self.run.config["config"])

    def drive(self) -> dict[str, Any]:
        """All rules, to the end or to a stop; returns the summary."""
        train = self.job.config.train
        with within_memory(
            f"lower --seeds (now {train.seeds}), --train.batch-size (now {train.batch_size}) or --model.width, set "
            "--train.precision bfloat16, or share minibatches with --devices."
        ):
            return self.rules()

    def rules(self) -> dict[str, Any]:
        """One rule after the other, and the summary."""
        begun, found = time.perf_counter(), self.run.sound_summary(lambda message: None).get("sensitivity")
        sensitivity = dict(found or {})  # of the rules that were at their end when the run was stopped
        spent = max((row.get("wall_s") or 0.0 for row in self.run.metrics()), default=0.0)
        finished = True
        for index, name in enumerate(self.job.trainers):
            state, finished = self.rule(index, name, spent + time.perf_counter() - begun)
            if not finished:
                break
            wanted = self.job.config.record.sensitivity and name not in sensitivity
            if wanted and not lost_seeds(state)[0]:  # it is of the first seed
                sensitivity[name] = block_sensitivity(self.job, name, state)
        status = "completed" if finished else "interrupted"
        summary = image_summary(self.job, self.run.metrics(), status)
        summary["wall_s"] = spent + time.perf_counter() - begun
        if sensitivity:
            summary["sensitivity"] = sensitivity
        self.run.write_summary(summary)
        if status == "interrupted":
            self.say(f"interrupted: go on with {self.run.how_to_resume}")
        return summary

    def rule(self, index: int, name: str, wall_s: float) -> tuple[ImageState, bool]:
        """One rule from its newest checkpoint; returns its last state, and whether it is at its end (`ended`)."""
        trainer, config = self.job.trainers[name], self.job.config
        folder, base = self.run.checkpoints / name, index * self.job.trainers[name].steps
        first = self.job.begin(name)
        found = checkpoint.latest(folder, first, self.say)
        state, facts = found or (first, {})
        if facts.get("config", self.settings) != self.settings:
            raise MfresnetError(
                f"the settings in {str(self.run.path / 'config.json')!r} were changed since the run began: "
                "put them back, or train them as a new run."
            )
        state, done, lost = self.job.spread(state), int(state.step[0]), lost_seeds(state)
        if not ended(trainer, done, lost) or not any(row.get("rule") == name for row in self.run.metrics()):
            checkpoint.discard_after(folder, done)
            self.run.truncate_metrics(base + done)
        begun, saved = time.perf_counter() - wall_s, time.perf_counter()
        row: dict[str, Any] = {}
        bar = tqdm(
            total=trainer.steps, initial=done, unit="step", desc=name, disable=True if self.quiet else None,
            dynamic_ncols=True,
        )  # fmt: skip
        with bar:
            while not ended(trainer, done, lost) and not self.stop.asked:
                state, count = self.advance(trainer, state, done)
                done += count
                bar.update(count)
                before, lost = lost, lost | lost_seeds(state)
                if (lost & ~before).any():
                    self.diverged(name, lost & ~before, done)
                if done % trainer.per_epoch == 0:
                    epoch = done // trainer.per_epoch
                    tested = epoch % config.record.test_every == 0 or epoch == trainer.epochs
                    row = epoch_row(self.job, name, state, epoch, tested or bool(lost.all()))
                    self.run.append_metrics({"step": base + done} | row | {"wall_s": time.perf_counter() - begun})
                    self.show(bar, row)
                due = time.perf_counter() - saved >= config.record.checkpoint_seconds
                over = ended(trainer, done, lost)
                if due or self.stop.asked or over:
                    checkpoint.save(folder, done, state, {"config": self.settings})
                    checkpoint.prune(folder, set(), newest=1 if over else 2)
                    saved = time.perf_counter()
        if lost.all() and not self.stop.asked:
            self.say(f"{name}: no seed is left: the rule ends after epoch {done // trainer.per_epoch}.")
        return state, ended(trainer, done, lost)

    def advance(self, trainer: ImageTrainer, state: ImageState, done: int) -> tuple[ImageState, int]:
        """About one breath of steps, within the epoch, to the end on the device."""
        rest = trainer.per_epoch - done % trainer.per_epoch
        count = int(np.clip(self.pace, 1, rest))
        begun = time.perf_counter()
        state = trainer.advance(state, self.job.train, count)
        state.step.block_until_ready()
        self.pace = max(1.0, count * BREATH / max(time.perf_counter() - begun, 1e-6))
        return state, count

    def diverged(self, name: str, lost: np.ndarray, done: int) -> None:
        """Say which seeds left the finite numbers, and what to change."""
        seeds = ", ".join(str(seed) for seed, gone in zip(self.job.seeds, lost, strict=True) if gone)
        self.say(
            f"{name}: training of seed {seeds} diverged before step {done}: lower --train.learning-rate "
            f"(now {self.job.config.train.learning_rate:g}), or set --train.clip or --train.warmup."
        )

    @staticmethod
    def show(bar: tqdm, row: Mapping[str, Any]) -> None:
        """Loss and test error, means over seeds, on the progress bar."""
        shown = {"loss": np.mean(row["train_loss"])}
        if "test_error" in row:
            shown["test"] = np.mean(row["test_error"])
        bar.set_postfix({name: f"{value:.4g}" for name, value in shown.items()})


def lost_seeds(state: ImageState) -> np.ndarray:
    """Which seeds left the finite numbers: a network that did never comes back."""
    return ~np.isfinite(np.asarray(state.tally.loss))


def ended(trainer: ImageTrainer, done: int, lost: np.ndarray) -> bool:
    """Whether a rule is at its end: all steps done, or an epoch done and no seed left."""
    return done == trainer.steps or (bool(lost.all()) and done % trainer.per_epoch == 0)
