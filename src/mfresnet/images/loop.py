"""The loop of image training: all rules of a job side by side, from any state to the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from .ensemble import States
from .job import ImageJob
from .recording import diverged_seeds, epoch_rows
from .training import ImageState

STRETCH_SECONDS = 2.0  # about the time between looks at the clock and at a request to stop

Row = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """What a callback sees: the end of an epoch under a rule.

    Args:
        step, epoch: steps and whole epochs so far.
        rule: the name of the block rule.
        row: the numbers of the epoch; lists run over seeds, those of families over (seed, stage).
        state: networks, coordinates, statistics and optimiser of all seeds; the next step uses it up, so copy what you
            keep.
    """

    step: int
    epoch: int
    rule: str
    row: Mapping[str, Any]
    state: ImageState


Callback = Callable[[Record], Any]


@dataclass
class Progress:
    """How far a training is. Everything but the pace is a function of the states, so that it resumes to the bit.

    Rules advance side by side; one whose seeds have all diverged ends with its epoch, and the others go on.

    Args:
        job: what is trained.
        states: of each rule; they are used up.
        history: a row for each epoch of each rule.
    """

    job: ImageJob
    states: States
    history: list[Row]
    begun: float = field(init=False)
    pace: float = field(default=1.0, init=False)  # steps that take `STRETCH_SECONDS`

    def __post_init__(self) -> None:
        self.begun = time.perf_counter() - max((row.get("wall_s") or 0.0 for row in self.history), default=0.0)

    @property
    def wall_s(self) -> float:
        """Seconds of training, those before the last row of an earlier process included."""
        return time.perf_counter() - self.begun

    @property
    def step(self) -> int:
        """Steps so far, of the rules that go on."""
        return max(int(state.step[0]) for state in self.states.values())

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.job.networks.shared.steps

    @property
    def epoch(self) -> int:
        """Whole epochs so far."""
        return self.step // self.job.networks.shared.per_epoch

    @property
    def between_epochs(self) -> bool:
        """Whether an epoch has just ended."""
        return self.step % self.job.networks.shared.per_epoch == 0

    @property
    def active(self) -> list[str]:
        """The rules that are not at their end."""
        return [name for name in self.job.trainers if not self._is_over(self.states[name])]

    def _is_over(self, state: ImageState) -> bool:
        step, shared = int(state.step[0]), self.job.networks.shared
        return step == shared.steps or (bool(diverged_seeds(state).all()) and step % shared.per_epoch == 0)

    def advance(self) -> list[str]:
        """Some steps within the epoch, to the end on the device; returns the rules that were active."""
        networks, active = self.job.networks, self.active
        rest = networks.shared.per_epoch - self.step % networks.shared.per_epoch
        count = int(np.clip(self.pace, 1, min(rest, networks.max_steps)))
        begun = time.perf_counter()
        self.states = self.states | networks.advance({name: self.states[name] for name in active}, count)
        jax.block_until_ready([self.states[name].step for name in active])
        self.pace = max(1.0, count * STRETCH_SECONDS / max(time.perf_counter() - begun, 1e-6))
        return active


class Recorder:
    """Where rows and states go besides the memory; this one keeps nothing. `mfresnet.runs` has one that writes."""

    @property
    def stopping(self) -> bool:
        """Whether the training should stop here."""
        return False

    def restore(self, first: States) -> tuple[States, list[Row]]:
        """The states and rows to go on from, given the first states."""
        return first, []

    def update(self, progress: Progress, rows: Sequence[Row]) -> None:
        """Take note of some steps, and of the rows of the epoch that has ended with them."""

    def save(self, progress: Progress) -> None:
        """Keep states and rows: called every ``record.checkpoint_seconds``, at a stop and at the end."""


def train(job: ImageJob, recorder: Recorder | None = None, callback: Callback | None = None) -> Progress:
    """Train every rule of a job from where the recorder has it to the end, or to a stop.

    Args:
        job: what is trained.
        recorder: where rows and states go (default: nowhere).
        callback: sees the `Record` of each rule at the end of each epoch; a true value ends the training.
    """
    recorder = recorder or Recorder()
    states, history = recorder.restore(job.init())
    progress = Progress(job, job.replicate(states), history)
    saved, stop = time.perf_counter(), recorder.stopping
    while progress.active and not stop:
        names, rows = progress.advance(), []
        if progress.between_epochs:
            ended = set(names) - set(progress.active)
            rows = epoch_rows(job, {name: progress.states[name] for name in names}, ended)
            rows = [row | {"wall_s": progress.wall_s} for row in rows]
            history.extend(rows)
        recorder.update(progress, rows)
        stop = any([_tell(callback, progress, row) for row in rows]) or recorder.stopping
        if stop or not progress.active or time.perf_counter() - saved >= job.config.record.checkpoint_seconds:
            recorder.save(progress)
            saved = time.perf_counter()
    return progress


def _tell(callback: Callback | None, progress: Progress, row: Row) -> bool:
    """Whether the callback asks for a stop."""
    if callback is None:
        return False
    state = progress.states[row["rule"]]
    return bool(callback(Record(row["step"], row["epoch"], row["rule"], row, state)))
