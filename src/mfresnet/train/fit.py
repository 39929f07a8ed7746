"""Training in memory: from a configuration or arrays to a `Result`, without a file and without a word printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import diffrax
import numpy as np
import optax

from .. import html
from ..certify import Certificates, Problem
from ..certify import run as run_pipeline
from ..config import Config
from ..data import Split, split_of
from ..errors import MfresnetError, unknown_name
from ..flow import Ensemble, Loss, Solver, TrainState
from ..messages import Say
from ..model import AbstractResNet
from .certifying import certify_by_test_points, problem_of, why_no_laws
from .defaults import map_share
from .devices import Devices
from .divergence import likely_cause
from .job import Job, assemble, load_split, precision
from .langevin import LANGEVIN
from .loop import Callback, End, Loop, Recorder, Row, Stopping
from .measurements import Measurements
from .objects import Objects
from .path import acceptance_of, describe_chains, path_certificates


@dataclass(frozen=True, eq=False)
class Result:
    """A training and what was recorded of it.

    Args:
        job: configuration with its defaults filled in, data, trainer and start.
        state: the last good state: network, probes with their log-density ratios, optimiser state.
        status: completed, interrupted or diverged.
        history: the recorded rows, in order of the steps: losses, errors and diagnostics by name.
        snapshots: the states at the recorded times (`mfresnet.train.schedule.snapshot_steps`), by step.
        summary: the last row, and what is computed once at the end: eigenvalues, regime, transport, landscape.
        arrays: curves of the model linearised at the start, where it was solved.
        messages: what a user should know, one sentence each.

    >>> train = {"rule": "adam", "steps": 4}
    >>> result = fit(Config(data={"n": 16, "n_test": 8}, model={"depth": 2, "width": 4}, train=train))
    >>> result.model.depth, result.column("step").tolist()
    (2, [0.0, 1.0, 2.0, 3.0, 4.0])
    """

    job: Job
    state: TrainState
    status: str
    history: tuple[Mapping[str, Any], ...]
    snapshots: Mapping[int, TrainState]
    summary: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    messages: tuple[str, ...] = ()

    @property
    def model(self) -> AbstractResNet:
        """The trained network."""
        return self.state.model

    @property
    def start(self) -> AbstractResNet:
        """The network before training."""
        return self.job.state.model

    @property
    def laws(self) -> Ensemble | None:
        """Probe particles of the trained laws, where they started, and the change of their log-density."""
        return self.state.ensemble

    @property
    def config(self) -> Config:
        """The configuration, complete."""
        return self.job.config

    @property
    def split(self) -> Split:
        """Training and test data, and the map of the inputs."""
        return self.job.split

    def column(self, name: str) -> np.ndarray:
        """One quantity over the history; NaN where a row lacks it."""
        values = [row.get(name) for row in self.history]
        return np.array([np.nan if value is None else value for value in values], np.float64)

    def problem(self, **changes: Any) -> Problem:
        """What `mfresnet.certify` certifies: the laws at the recorded times.

        Args:
            changes: see `mfresnet.train.certifying.problem_of`.
        """
        with precision(self.config):
            return problem_of(
                self.job, [self.snapshots[step] for step in self.job.kept[1:] if step in self.snapshots], **changes
            )

    def _repr_html_(self) -> str:
        """Table and loss curves for a notebook."""
        names = (
            "train.loss",
            "train.error",
            "test.error",
            "gram.lambda_min.total",
            "kl.encoder.value",
            "kl.head.value",
        )
        rows = [(name, float(value)) for name in names if isinstance(value := self.summary.get(name), int | float)]
        shown = {name: self.column(name).tolist() for name in ("train.loss", "test.loss")}
        return html.table(f"{self.status}, step {int(self.state.step)}", rows) + html.curves(shown)

    def certificates(self, names: str | Sequence[str] | None = None, **changes: Any) -> Certificates:
        """What `mfresnet.certify` returns: of the laws of a flow, of the chain of the rule langevin, or of another
        rule's network by the test points alone.

        Args:
            names: which; None for all that apply.
            changes: see `mfresnet.train.certifying.problem_of`; for langevin, delta and settings.

        Raises:
            MfresnetError: what was trained cannot be certified, or a name that does not apply.
        """
        if reason := why_no_laws(self.config):
            if names not in (None, "held_out", ["held_out"], ("held_out",)):
                raise MfresnetError(reason)
            return certify_by_test_points(self.job, self.state, reason, changes.get("delta"))
        if self.config.train.rule != LANGEVIN:
            return run_pipeline(self.problem(**changes), names)
        if self.status != "completed":
            raise MfresnetError(f"this chain is {self.status}: train it to the end, for which its certificate is.")
        if unknown := sorted(set(changes) - {"delta", "settings"}):
            raise MfresnetError(f"{unknown[0]} has no meaning for a Langevin chain: give delta or settings.")
        made = path_certificates(self.job, self.state, **changes)
        names = [names] if isinstance(names, str) else names
        for name in names or ():
            if name not in made:
                raise unknown_name("certificate", name, made)
        return Certificates({name: made[name] for name in names or made})

    def __repr__(self) -> str:
        numbers = {name: self.summary.get(name) for name in ("train.loss", "train.error", "test.error")}
        shown = ", ".join(f"{name}={value:.4g}" for name, value in numbers.items() if value is not None)
        return f"Result({self.status}, step={int(self.state.step)}, {shown})"


@dataclass
class MemoryRecorder:
    """Keeps rows and the states at the recorded times in memory."""

    steps: Sequence[int]
    rows: list[Row] = field(default_factory=list)
    snapshots: dict[int, TrainState] = field(default_factory=dict)

    def begin(self, state: TrainState, wall_s: float, measure: Callable[..., Row]) -> Row:
        """Keep the first state and its row."""
        row = measure()
        self.record(state, row, wall_s)
        return row

    def record(self, state: TrainState, row: Row, wall_s: float, *, stopping: bool = False) -> None:
        """Keep a row, and the state at a recorded time."""
        self.rows.append(row)
        if row["step"] in self.steps:
            self.snapshots[row["step"]] = state

    def close(self, state: TrainState, wall_s: float) -> None:
        """Nothing: the result holds the last state."""


def fit(
    config: Config | None = None,
    data: Any = None,
    *,
    loss: Loss | None = None,
    solver: Solver | diffrax.AbstractSolver[Any] | None = None,
    optimiser: optax.GradientTransformation | None = None,
    callback: Callback | None = None,
    stopping: Callable[[Job], Stopping] | None = None,
    say: Say | None = None,
    devices: int | None = None,
    particle_devices: int | None = None,
) -> Result:
    """Train a configuration in memory.

    The numbers equal, to the bit, those that `mfresnet train` writes for the same configuration.

    Args:
        config: settings (default: all defaults).
        data: instead of the data that ``config.data`` names: a pair (x, y) of arrays, a data frame of polars or pandas
            whose column ``config.data.target`` is the target, or a `mfresnet.Split` (`mfresnet.data.split_of`).
        loss, solver, optimiser: objects instead of names: a function of (predictions, targets, weights), a Diffrax
            solver that estimates its error, an Optax transformation with its learning rate.
        callback: sees every `Record`, the first state's too; a true value ends training.
        stopping: makes, from the job, a rule that ends training early, such as `mfresnet.train.certifying.Watch`.
        say: is told every message at once; all are in the result.
        devices, particle_devices: how many devices share the points and the particles (`Devices.of`).

    Raises:
        MfresnetError: settings that contradict each other or the data, or do not fit into memory.

    >>> config = Config(data={"n": 16, "n_test": 8}, model={"depth": 2, "width": 4}, train={"rule": "adam", "steps": 4})
    >>> result = fit(config)
    >>> result.status, sorted(result.snapshots), len(result.history)
    ('completed', [0, 1, 2, 3, 4], 5)
    >>> x = np.linspace(-1, 1, 60).reshape(30, 2)
    >>> fit(config, (x, x[:, 0] > 0), optimiser=optax.adamw(0.01)).split.train
    Dataset('arrays', n=16, d=2, C=1, binary)
    """
    config = config or Config()
    objects = Objects(loss, solver, optimiser)
    messages: list[str] = []

    def note(message: str) -> None:
        messages.append(message)
        if say is not None:
            say(message)

    check_in_memory(config, stopping is not None)
    with precision(config):
        where = Devices.of(devices, particle_devices)
        where.check(config)
        if data is None:
            split = load_split(config)
        else:
            split = split_of(data, config.data, config.seed, map_share=map_share(config))
            name = {"name": split.train.name}
            config = config.model_copy(update={"data": config.data.model_copy(update=name)})
        job = where.place_start(assemble(config, split, objects))
        for message in job.split.notes:
            note(message)
        recorder = MemoryRecorder(job.kept)
        rule = None if stopping is None else stopping(where.fetch_start(job))
        result = train_job(job, recorder, devices=where, stopping=rule, callback=callback, say=note)
    return replace(result, messages=tuple(messages))


def check_in_memory(config: Config, stops: bool) -> None:
    """Refuse settings that `fit` alone cannot follow: they train more than one network, or need a rule as an object.

    Raises:
        MfresnetError: naming what to call instead.
    """
    if config.certify.tune:
        raise MfresnetError(
            "certify.tune trains many networks and fit one: choose the configuration with "
            "mfresnet.train.certifying.tune_config."
        )
    if config.diagnostics.control:
        raise MfresnetError(
            "diagnostics.control = true trains a second network: call fit again with train.freeze = 'encoder'."
        )
    if config.certify.patience and not stops:
        raise MfresnetError(
            f"certify.patience = {config.certify.patience} needs the rule that stops: give fit the argument "
            "stopping=mfresnet.train.certifying.Watch."
        )


def train_job(
    job: Job,
    recorder: Recorder,
    *,
    state: TrainState | None = None,
    devices: Devices | None = None,
    stopping: Stopping | None = None,
    stop: Callable[[], bool] = lambda: False,
    callback: Callback | None = None,
    say: Say = lambda message: None,
    wall_s: float = 0.0,
    spent: float = 0.0,
) -> Result:
    """Train a job from ``state`` (default: its start) and summarise what came out; call it in the job's precision.

    Args:
        job: whose start lies where training needs it (`Devices.place_start`).
        recorder: where records go.
        devices: where it computes (default: one device).
        stopping, stop, callback: what may end training early (`Loop`).
        say: is told what cannot be measured, and why training diverged or stopped early.
        wall_s, spent: seconds of training, and of diagnostics, before ``state``.
    """
    where = devices or Devices()
    measurements = Measurements(job, say, spent, (where.share(job.train), where.share(job.test)))
    loop = Loop(job, measurements, recorder, where, stopping, stop, callback)
    end = loop.run(job.state if state is None else state, wall_s)
    job, rows = loop.job, recorder.rows
    summary, arrays = describe_end(job, end), {}
    if end.early and stopping is not None:
        say(f"stopped at step {end.row['step']}: {stopping.reason}.")
    if end.bad_step is not None:
        summary |= describe_divergence(job, end)
        say(summary["diverged.message"])
    elif end.status == "completed" and job.config.train.rule == LANGEVIN:
        for sentence in acceptance_of(job.config, rows):
            say(sentence)
    if end.bad_step is None and where.leader and end.row["step"] > 0:  # before the first step there is nothing to see
        closing, arrays = measurements.summary(end.state, rows)
        # an interrupted run is to end at once; on many devices one of them alone would solve the flow again
        if job.config.diagnostics.solver_error and end.status == "completed" and where.count == 1:
            closing |= measurements.solver_error(end.state)
        share = {"diagnostics.share": end.row.get("diagnostics_s", 0.0) / end.wall_s}
        wall_s = end.wall_s + closing["closing_s"] + closing.get("solver_s", 0.0)
        summary |= closing | share | {"wall_s": wall_s}
    return Result(job, end.state, end.status, tuple(rows), recorder.snapshots, summary, arrays)


def describe_end(job: Job, end: End) -> dict[str, Any]:
    """What every summary has: the status, the last row, and how many points there were."""
    train, test = job.split.train, job.split.test
    chains = describe_chains(job, end.state) if job.config.train.chains > 1 else None
    return {
        "status": end.status,
        **{name: value for name, value in end.row.items() if not isinstance(value, list)},
        "wall_s": end.wall_s,
        "train.n": len(train.x),
        "test.n": len(test.x),
        "error.kind": "root mean squared error" if train.task == "regression" else "share of wrong classes",
        **({} if chains is None else {"chains": chains}),
    }


def describe_divergence(job: Job, end: End) -> dict[str, Any]:
    """When training diverged, why as far as can be told, and what to change."""
    loss = end.row["train.loss"]
    message = f"training diverged at step {end.bad_step}: {likely_cause(job, end.state, loss)}"
    if np.isfinite(loss):
        message += f" The last good state is that of step {int(end.state.step)}."
    return {"diverged.step": end.bad_step, "diverged.message": message}
