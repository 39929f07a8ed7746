"""A run into an experiment tracker: the one small interface, and TensorBoard, MLflow, Weights & Biases and Trackio."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ..errors import MfresnetError, unknown_name
from ..train.loop import Record
from .directory import RunDirectory

Numbers = Mapping[str, float]


class Tracker(Protocol):
    """Where rows of numbers go. A tracker of your own is any object with these methods."""

    def begin(self, name: str, config: Mapping[str, Any]) -> None:
        """Start a run of that name with its settings, flat."""
        ...

    def log(self, step: int, row: Numbers) -> None:
        """Take the numbers of a step."""
        ...

    def close(self, summary: Numbers) -> None:
        """End the run with its final numbers."""
        ...


class TensorBoard:
    """Event files for TensorBoard, by the package tensorboardX."""

    def __init__(self, out: Path) -> None:
        self.writer = _package("tensorboardX", "tensorboard").SummaryWriter(str(out))

    def begin(self, name: str, config: Mapping[str, Any]) -> None:
        self.writer.add_text("config", "\n".join(f"    {key} = {value}" for key, value in config.items()))

    def log(self, step: int, row: Numbers) -> None:
        for key, value in row.items():
            self.writer.add_scalar(key.replace(".", "/"), value, step)

    def close(self, summary: Numbers) -> None:
        for key, value in summary.items():
            self.writer.add_scalar(f"summary/{key.replace('.', '/')}", value, 0)
        self.writer.close()


class Mlflow:
    """A run of the MLflow experiment "mfresnet", in a local database or wherever MLFLOW_TRACKING_URI points."""

    def __init__(self, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.package = _package("mlflow", "mlflow")
        self.client = self.package.MlflowClient(tracking_uri=f"sqlite:///{(out / 'mlflow.db').resolve()}")
        self.artifacts = (out / "artifacts").resolve().as_uri()

    def begin(self, name: str, config: Mapping[str, Any]) -> None:
        known = self.client.get_experiment_by_name("mfresnet")
        number = known.experiment_id if known else self.client.create_experiment("mfresnet", self.artifacts)
        self.run = self.client.create_run(number, run_name=name).info.run_id
        for key, value in config.items():
            self.client.log_param(self.run, key, value)

    def log(self, step: int, row: Numbers) -> None:
        metric = self.package.entities.Metric
        self.client.log_batch(self.run, [metric(key, value, 0, step) for key, value in row.items()])

    def close(self, summary: Numbers) -> None:
        for key, value in summary.items():
            self.client.log_metric(self.run, f"summary.{key}", value)
        self.client.set_terminated(self.run)


class Wandb:
    """A run of Weights & Biases, offline until `wandb sync`."""

    def __init__(self, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.package, self.options = _package("wandb", "wandb"), {"dir": str(out), "mode": "offline"}

    def begin(self, name: str, config: Mapping[str, Any]) -> None:
        self.run = self.package.init(project="mfresnet", name=name, config=dict(config), **self.options)

    def log(self, step: int, row: Numbers) -> None:
        self.run.log(dict(row), step=step)

    def close(self, summary: Numbers) -> None:
        self.run.log({f"summary.{key}": value for key, value in summary.items()})
        self.run.finish()


class Trackio(Wandb):
    """A run of Trackio, which has the functions of wandb, in a database under ``out`` (or ``TRACKIO_DIR``)."""

    def __init__(self, out: Path) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(out))  # read when the package is imported
        self.package, self.options = _package("trackio", "trackio"), {}

    def log(self, step: int, row: Numbers) -> None:
        # "time" is a name of its own there
        super().log(step, {"flow.time" if key == "time" else key: value for key, value in row.items()})


TRACKERS = {
    "tensorboard": TensorBoard,
    "mlflow": Mlflow,
    "wandb": Wandb,
    "trackio": Trackio,
}


def tracker(name: str, out: Path) -> Tracker:
    """The tracker of that name, writing to the folder ``out``; its package is imported here.

    Raises:
        MfresnetError: an unknown name, or a package that is not installed.
    """
    if name not in TRACKERS:
        raise unknown_name("tracker", name, TRACKERS)
    return TRACKERS[name](out)


def track(to: Tracker, name: str = "fit", config: Mapping[str, Any] | None = None) -> Any:
    """A callback of `mfresnet.fit` that sends every record to a tracker as training goes on; close it afterwards.

    >>> class Printed:
    ...     def begin(self, name, config): print(name)
    ...     def log(self, step, row): print(step, sorted(row)[:2])
    ...     def close(self, summary): pass
    >>> from mfresnet import Config, fit
    >>> config = Config(data={"n": 8, "n_test": 4}, model={"depth": 1, "width": 2}, train={"rule": "adam", "steps": 1})
    >>> result = fit(config, callback=track(Printed(), "toy"))
    toy
    0 ['diagnostics_s', 'displacement.encoder']
    1 ['diagnostics_s', 'displacement.encoder']
    """
    to.begin(name, config or {})

    def see(record: Record) -> None:
        to.log(record.step, numbers(record.row))

    return see


def export(run: Path, to: str | Tracker, out: Path | None = None) -> Path:
    """Send the rows, settings and summary of a run directory to a tracker.

    Args:
        run: the run directory, finished or not.
        to: a name of `TRACKERS`, or a tracker.
        out: where a local tracker writes (default: a folder of its name in the run).

    Returns:
        That folder.

    Raises:
        MfresnetError: no run, an unknown tracker, or one whose package is not installed.
    """
    directory = RunDirectory.open(run)
    place = out or run / (to if isinstance(to, str) else "export")
    target = tracker(to, place) if isinstance(to, str) else to
    target.begin(run.name, flat(directory.config["config"]))
    for row in directory.metrics():
        target.log(int(row["step"]), numbers(row))
    target.close(numbers(directory.summary))
    return place


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The entries that are single finite numbers.

    >>> numbers({"step": 3, "loss": 0.5, "holds": True, "layers": [1.0], "error": None})
    {'loss': 0.5, 'holds': 1.0}
    """
    kept = {key: value for key, value in row.items() if key != "step" and isinstance(value, int | float)}
    return {key: float(value) for key, value in kept.items() if abs(value) < float("inf")}


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted name.

    >>> flat({"model": {"depth": 3}, "seed": 0})
    {'model.depth': 3, 'seed': 0}
    """
    settings: dict[str, Any] = {}
    for key, value in tree.items():
        settings |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return settings


def _package(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MfresnetError(f"{extra} needs the package {name}: install it, with pip install {name}.") from error
