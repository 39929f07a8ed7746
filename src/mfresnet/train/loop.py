"""The training loop of one network: a job advances from record to record, until its end, a divergence or a stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np

from ..flow import TrainState, first_bad_step
from .devices import Devices
from .job import Job
from .measurements import Measurements

Row = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """What a callback sees.

    Args:
        step: number of steps made.
        row: metrics and the diagnostics that fall on this step, by name.
        state: network, probes and optimiser state.
        is_snapshot: whether this is one of the recorded times that are kept.

    >>> from mfresnet import Config, fit
    >>> config = Config(data={"n": 16, "n_test": 8}, model={"depth": 2, "width": 4}, train={"rule": "adam"})
    >>> fit(config, callback=lambda record: record.step >= 30).status
    'interrupted'
    """

    step: int
    row: Mapping[str, Any]
    state: TrainState
    is_snapshot: bool


Callback = Callable[[Record], Any]


@runtime_checkable
class Recorder(Protocol):
    """Where rows and states go: into memory (`mfresnet.train.fit`) or into a run directory (`mfresnet.runs`)."""

    @property
    def rows(self) -> Sequence[Row]:
        """Every row recorded so far."""
        ...

    @property
    def snapshots(self) -> Mapping[int, TrainState]:
        """The states at the recorded times, by step."""
        ...

    def begin(self, state: TrainState, wall_s: float, measure: Callable[..., Row]) -> Row:
        """Start recording at ``state``; returns its row, by ``measure`` unless it is known already.

        ``measure(False)`` computes the metrics alone. Every process must call it, or none.
        """
        ...

    def record(self, state: TrainState, row: Row, wall_s: float, *, stopping: bool) -> None:
        """Record a row and its state; ``stopping`` tells that a stop was asked for."""
        ...

    def close(self, state: TrainState, wall_s: float) -> None:
        """Keep the last good state."""
        ...


@runtime_checkable
class Stopping(Protocol):
    """A rule that stops training early, such as `mfresnet.train.certifying.Watch`."""

    @property
    def over(self) -> bool:
        """Whether training should stop."""
        ...

    @property
    def reason(self) -> str:
        """Why, in one clause."""
        ...

    def see(self, state: TrainState) -> None:
        """Take the state at a recorded time into account."""
        ...


@dataclass(frozen=True)
class End:
    """How the loop ended.

    Args:
        state: the last good one, whole, on this process's device.
        row: the last one recorded.
        status: completed, interrupted or diverged.
        wall_s: seconds of training.
        bad_step: the step at which training diverged, or None.
        early: whether a `Stopping` rule ended it.
    """

    state: TrainState
    row: Row
    status: str
    wall_s: float
    bad_step: int | None = None
    early: bool = False


@dataclass
class Loop:
    """Advances a job and tells a recorder, a stopping rule and a callback what happens.

    Args:
        job: what is trained.
        measurements: what is measured of it.
        recorder: where records go.
        devices: where training computes.
        stopping: a rule that may end training at a recorded time.
        stop: asked before every chunk of steps; true ends training with the status "interrupted".
        callback: sees every record; a true value ends training like ``stop``.
    """

    job: Job
    measurements: Measurements
    recorder: Recorder
    devices: Devices = field(default_factory=Devices)
    stopping: Stopping | None = None
    stop: Callable[[], bool] = lambda: False
    callback: Callback | None = None

    def run(self, state: TrainState, wall_s: float = 0.0) -> End:
        """Train from ``state`` on; ``wall_s`` seconds were spent before."""
        job, devices, recorder = self.job, self.devices, self.recorder
        steps, every, done = job.steps, job.every, int(state.step)
        begun = time.perf_counter() - wall_s

        def elapsed() -> float:
            return time.perf_counter() - begun

        data = self.measurements.data
        trainer, key, state = devices.place_trainer(job.trainer), devices.place(job.key), devices.place(state)
        row = recorder.begin(state, elapsed(), lambda whole=True: self._first_row(state, elapsed(), whole))
        start_loss = row["train.loss"]
        if done > 0:
            start_loss = self.measurements.metrics(devices.place(job.state), 0.0)["train.loss"]
        bad = None if np.isfinite(row["train.loss"]) else 0
        asked = self._tell(row, state, done in job.kept)
        while bad is None and done < steps and not devices.any(asked or self.stop()) and not self._over:
            count = min(every, steps - done)
            after, losses = trainer.advance(state, data[0], key, devices.place(jnp.asarray(count)), every)
            after, losses = devices.place((after, losses))
            ahead = self.measurements.metrics(after, elapsed())
            bad = first_bad_step(np.append(np.asarray(losses)[:count], ahead["train.loss"]), start_loss)
            if bad is not None:
                break
            state, row, done = after, ahead | self._diagnostics(after), done + count
            asked = self._tell(row, state, done in job.kept)
            if self.stopping is not None and done in job.kept:
                self.stopping.see(devices.fetch(state))
            recorder.record(state, row, elapsed(), stopping=asked or self.stop())
        recorder.close(state, elapsed())
        state = devices.fetch(state)
        self.fetch_start()
        early = bad is None and done < steps and self._over
        status = "diverged" if bad is not None else "completed" if done == steps or early else "interrupted"
        return End(state, row, status, elapsed(), None if bad is None else done + bad, early)

    @property
    def _over(self) -> bool:
        return self.stopping is not None and self.stopping.over

    def _tell(self, row: Row, state: TrainState, is_snapshot: bool) -> bool:
        """Whether the callback asks for a stop."""
        return self.callback is not None and bool(self.callback(Record(row["step"], row, state, is_snapshot)))

    def _first_row(self, state: TrainState, wall_s: float, whole: bool) -> Row:
        row = self.measurements.metrics(state, wall_s)
        return row | (self._diagnostics(state) if whole and np.isfinite(row["train.loss"]) else {})

    def _diagnostics(self, state: TrainState) -> Row:
        """The diagnostics that are due, computed by one process on one device."""
        if not self.measurements.due(int(state.step)):
            return {}
        self.fetch_start()
        state = self.devices.fetch(state)
        return self.measurements.diagnostics(state) if self.devices.leader else {}

    def fetch_start(self) -> None:
        """Bring the start, with which diagnostics compare, to the device of this process where they are computed."""
        self.job = self.measurements.job = self.devices.fetch_start(self.job)
