"""The run directory: plain files, each written once and whole, metrics appended live.

config.json       the complete configuration, versions, platform, data facts, command line
metrics.jsonl     one JSON object a line, flat keys; a torn last line is tolerated
arrays/           data and figures (`portrait.safetensors`)
checkpoints/      see `runs.checkpoint`
summary.json      status and final numbers
certificates.json bounds of the error on new data, where the run was certified
report.html       the picture
.lock             held by the process that writes
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as tensors_bytes

from ..errors import MfresnetError
from ..json_types import plain
from ..messages import Say
from .files import holds, read_json, write_bytes, write_json, writing
from .lock import NAME as LOCK
from .lock import hold_lock

PARTS = ("config", "versions")  # what every config.json of a run holds


@dataclass(frozen=True)
class RunDirectory:
    """A run's files."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints lie."""
        return self.path / "checkpoints"

    @property
    def how_to_resume(self) -> str:
        """The command that continues the run, for messages."""
        return f"`mfresnet resume {shlex.quote(str(self.path))}`"

    @property
    def metrics_file(self) -> Path:
        """The live metrics."""
        return self.path / "metrics.jsonl"

    @classmethod
    @contextmanager
    def create(cls, path: Path, *, overwrite: bool = False) -> Iterator[RunDirectory]:
        """A new, empty run directory, locked until the context ends.

        Raises:
            MfresnetError: something is there already and ``overwrite`` is off, it is no run, or it is in use.
        """
        cls.check(path, overwrite=overwrite)
        with hold_lock(path):
            cls.check(path, overwrite=overwrite)  # another process may have been faster
            with writing(path):
                if not _is_bare(path):
                    _empty(path)
                (path / "checkpoints").mkdir(exist_ok=True)
                (path / "arrays").mkdir(exist_ok=True)
            yield cls(path)

    @classmethod
    def check(cls, path: Path, *, overwrite: bool = False) -> None:
        """Whether `create` would do, without a trace.

        Raises:
            MfresnetError: something is there already and ``overwrite`` is off, it is no run, or the folder that it
                would be made in cannot be written.
        """
        with writing(path):
            if path.exists() and not (path.is_dir() and _is_bare(path)):
                if not _is_run(path):
                    raise MfresnetError(f"{str(path)!r} exists and is no run directory: choose another --out.")
                if not overwrite:
                    raise MfresnetError(
                        f"run directory {str(path)!r} exists: continue it with {cls(path).how_to_resume}, "
                        "replace it with --overwrite, or choose another --out."
                    )
            nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
            if not nearest.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(nearest))
            if not os.access(nearest, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(nearest))

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """An existing run directory.

        Raises:
            MfresnetError: there is none.
        """
        if not (path / "config.json").is_file():
            raise MfresnetError(f"{str(path)!r} is no run directory: it has no config.json.")
        return cls(path)

    @property
    def config(self) -> dict[str, Any]:
        """The content of ``config.json``.

        Raises:
            MfresnetError: it is damaged.
        """
        value = read_json(self.path / "config.json")
        if not all(isinstance(value.get(part), dict) for part in PARTS):
            raise MfresnetError(f"{str(self.path / 'config.json')!r} is damaged: it needs {' and '.join(PARTS)}.")
        return value

    @property
    def is_images(self) -> bool:
        """Whether this is a run of image networks."""
        return self.config.get("kind") == "image"

    def refuse_images(self, command: str) -> None:
        """Say so where a command for runs on points meets a run of image networks.

        Raises:
            MfresnetError: this is one.
        """
        if self.is_images:
            raise MfresnetError(
                f"{str(self.path)!r} is a run of image networks, which `mfresnet {command}` does not know: "
                "its own report has what was measured."
            )

    @property
    def summary(self) -> dict[str, Any]:
        """The content of ``summary.json``, empty while the run has none."""
        file = self.path / "summary.json"
        return read_json(file) if file.exists() else {}

    def sound_summary(self, say: Say) -> dict[str, Any]:
        """`summary`, or an empty one where it is damaged, which is said: whoever resumes the run makes it again."""
        try:
            return self.summary
        except MfresnetError as error:
            say(f"{error} It is made again.")
            return {}

    def write_config(self, value: Mapping[str, Any]) -> None:
        """Write ``config.json``."""
        write_json(self.path / "config.json", value)

    def write_summary(self, value: Mapping[str, Any]) -> None:
        """Write ``summary.json``."""
        write_json(self.path / "summary.json", value)

    def write_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write ``arrays/NAME.safetensors``."""
        data = tensors_bytes({key: np.asarray(value, order="C") for key, value in arrays.items()})
        write_bytes(self.path / "arrays" / f"{name}.safetensors", data)

    def has_arrays(self, name: str) -> bool:
        """Whether ``arrays/NAME.safetensors`` was written."""
        return (self.path / "arrays" / f"{name}.safetensors").is_file()

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of ``metrics.jsonl``; torn lines are left out."""
        return read_rows(self.metrics_file)

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Append one row."""
        with writing(self.metrics_file), self.metrics_file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(plain(row)) + "\n")

    def truncate_metrics(self, step: int) -> list[dict[str, Any]]:
        """Drop torn lines and the rows after ``step``, which a resumed run makes again; returns the rows left."""
        rows = [row for row in self.metrics() if row["step"] <= step]
        write_bytes(self.metrics_file, "".join(json.dumps(row) + "\n" for row in rows).encode())
        return rows


class Follower(RunDirectory):
    """The run directory as the processes beside the leader have it: whatever is written is the leader's business."""

    def write_config(self, value: Mapping[str, Any]) -> None:
        """Nothing."""

    def write_arrays(self, name: str, arrays: Mapping[str, Any]) -> None:
        """Nothing."""

    def write_summary(self, value: Mapping[str, Any]) -> None:
        """Nothing."""

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Nothing."""

    def metrics(self) -> list[dict[str, Any]]:
        """None."""
        return []

    def truncate_metrics(self, step: int) -> list[dict[str, Any]]:
        """None is dropped and none is left."""
        return []


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file without its torn lines; a missing file has none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise MfresnetError(f"{str(path)!r} cannot be read: {error.strerror or error}.") from error
    rows: list[dict[str, Any]] = []
    for line in text.split("\n"):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def _is_run(path: Path) -> bool:
    """Whether a run lives there: many programs write a file named config.json, and theirs must not be removed."""
    return holds(path / "config.json", PARTS)


def _is_bare(path: Path) -> bool:
    """Whether a directory is empty, or holds no more than a run that was killed before it began."""
    inside = {item.name: item for item in path.iterdir()}
    empty = all(not any(inside[name].iterdir()) for name in ("arrays", "checkpoints") if name in inside)
    return inside.keys() <= {"arrays", "checkpoints", ".config.json.tmp", LOCK} and empty


def _empty(path: Path) -> None:
    """Remove what is in a run directory, config.json last: killed half-way it is still known as a run."""
    for item in sorted(path.iterdir(), key=lambda item: item.name == "config.json"):
        if item.name == LOCK:
            continue
        if item.is_dir() and not item.is_symlink():
            shutil.rmtree(item)
        else:
            item.unlink()


def fresh_path(parent: Path, name: str) -> Path:
    """``parent/name``, or with the first free number behind it."""
    number, path = 1, parent / name
    while path.exists():
        number += 1
        path = parent / f"{name}-{number}"
    return path
