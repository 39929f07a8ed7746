"""An image run on disk: all block rules and seeds side by side; stop, resume to the bit, finish.

A checkpoint holds the states of every rule. A row of ``metrics.jsonl`` is an epoch under a rule, its lists run over
seeds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..config import build
from ..errors import MfresnetError
from ..images.configuration import ImageConfig
from ..images.ensemble import States
from ..images.fitting import fit_job
from ..images.job import ImageJob, assemble_images, check_images, image_facts, load_split
from ..images.loop import Progress, Recorder, Row
from ..images.recording import diverged_seeds
from ..messages import Say, print_message
from . import checkpoint
from .directory import RunDirectory
from .environment import environment, tell_changes
from .identity import fingerprint
from .lock import hold_lock
from .stopping import Stop, stoppable

KIND = "image"  # what config.json calls such a run
GENERATED = "synthetic-images"
STATE = 2  # structure of the states in checkpoints; mfresnet 0.1 wrote none


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
        config: the settings.
        out: the run directory.
        command: for the report, how the run was started.
        overwrite: replace a run that is there.
        quiet: no progress bar.
        say: is told what a user should know.
        devices: how many devices share each minibatch. No setting of the run: its result is the same to rounding on
            any number, and it may be resumed on another.

    Raises:
        MfresnetError: bad settings, bad images, a directory in use or one that cannot be written, too few devices, not
            enough memory.
    """
    with Stop(say).install() as stop:
        check_images(config)
        split = load_split(config, say)
        job = assemble_images(config, split, devices)
        with RunDirectory.create(out, overwrite=overwrite) as run, stoppable(run.how_to_resume):
            run.write_config(
                {
                    "kind": KIND,
                    "state": STATE,
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
            return _train(run, job, quiet, say, stop)


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
    with hold_lock(path), stoppable(run.how_to_resume), Stop(say).install() as stop:
        return _train(run, load_job(run, say, devices), quiet, say, stop)


def load_job(run: RunDirectory, say: Say, devices: int | None = None) -> ImageJob:
    """The job of a run that was begun, on the same images.

    Raises:
        MfresnetError: its settings or images are no longer the run's.
    """
    stored = run.config
    config = build(stored["config"], ImageConfig)
    split = load_split(config, say)
    job = assemble_images(config, split, devices)
    if image_facts(split)["sha256"] != stored.get("data", {}).get("sha256"):
        if config.data.name != GENERATED:
            raise MfresnetError(
                f"the images of {config.data.name!r} changed since the run began: put them back as they were, "
                "or train a new run."
            )
        say("the generated images differ from the run's on this machine: numbers may differ.")
    return job


def _train(run: RunDirectory, job: ImageJob, quiet: bool, say: Say, stop: Stop) -> dict[str, Any]:
    """All rules, from the newest checkpoint to the end or to a stop; returns the summary."""
    train = job.config.train
    advice = (
        f"lower --train.at-once (now {train.at_once or 'as many as fit'}), --seeds (now {train.seeds}), "
        f"--train.batch-size (now {train.batch_size}) or --model.width, set --train.precision bfloat16, or share "
        "minibatches with --devices."
    )
    bar = tqdm(total=job.networks.shared.steps, unit="step", disable=True if quiet else None, dynamic_ncols=True)
    with bar:
        result = fit_job(job, ImageRunRecorder(run, job, say, stop, bar), advice=advice)
    run.write_summary(dict(result.summary))
    if result.status == "interrupted":
        say(f"interrupted: go on with {run.how_to_resume}")
    return dict(result.summary)


@dataclass
class ImageRunRecorder(Recorder):
    """Writes rows and checkpoints into a run directory, and shows how far the training is.

    Args:
        run: the directory.
        job: what is trained.
        say: is told which seeds diverge.
        stop: the user's request to stop.
        bar: the progress bar.
    """

    run: RunDirectory
    job: ImageJob
    say: Say
    stop: Stop
    bar: tqdm
    diverged: dict[str, np.ndarray] = field(default_factory=dict, init=False)  # which seeds, under each rule

    @property
    def stopping(self) -> bool:
        """Whether the user asked to stop."""
        return self.stop.asked

    def restore(self, first: States) -> tuple[States, list[Row]]:
        """The newest checkpoint and the rows up to it; rows after it are dropped, as they are made again."""
        states = newest(self.run, first, self.say)
        step = max(int(state.step[0]) for state in states.values())
        self.diverged = {name: diverged_seeds(state) for name, state in states.items()}
        self.bar.update(step)
        checkpoint.discard_after(self.run.checkpoints, step)
        return states, self.run.truncate_metrics(step)

    def update(self, progress: Progress, rows: Sequence[Row]) -> None:
        """Append the rows; say which seeds have just diverged and which rules have ended with that."""
        self.bar.update(progress.step - self.bar.n)
        for name, state in progress.states.items():
            before, self.diverged[name] = self.diverged[name], diverged_seeds(state)
            if (lost := self.diverged[name] & ~before).any():
                seeds = ", ".join(str(seed) for seed, gone in zip(self.job.seeds, lost, strict=True) if gone)
                self.say(
                    f"{name}: training of seed {seeds} diverged before step {progress.step}: lower "
                    f"--train.learning-rate (now {self.job.config.train.learning_rate:g}), or set --train.clip or "
                    "--train.warmup."
                )
        for row in rows:
            self.run.append_metrics(row)
            shown = {"loss": np.mean(row["train_loss"])}
            if "test_error" in row:
                shown["test"] = np.mean(row["test_error"])
            self.bar.set_postfix({f"{row['rule']} {name}": f"{value:.4g}" for name, value in shown.items()})
            if self.diverged[row["rule"]].all():
                self.say(f"{row['rule']}: every seed has diverged: the rule ends after epoch {row['epoch']}.")

    def save(self, progress: Progress) -> None:
        """Write a checkpoint; keep the one before it until the end."""
        facts = {"config": fingerprint(self.run.config["config"])}
        checkpoint.save(self.run.checkpoints, progress.step, progress.states, facts)
        checkpoint.prune(self.run.checkpoints, set(), newest=2 if progress.active else 1)


def newest(run: RunDirectory, first: States, say: Say) -> States:
    """The states of the newest checkpoint; ``first``, those before the first step, where there is none.

    Raises:
        MfresnetError: no sound checkpoint is left, or it is of another version or of other settings.
    """
    if run.config.get("state") != STATE and checkpoint.steps(run.checkpoints):
        raise MfresnetError(
            f"the checkpoints in {str(run.checkpoints)!r} are of mfresnet 0.1, whose optimiser state this version does "
            "not read: resume the run with mfresnet 0.1, or train it again."
        )
    states, facts = checkpoint.latest(run.checkpoints, first, say) or (first, {})
    settings = fingerprint(run.config["config"])
    if facts.get("config", settings) != settings:
        raise MfresnetError(
            f"the settings in {str(run.path / 'config.json')!r} were changed since the run began: "
            "put them back, or train them as a new run."
        )
    return states
