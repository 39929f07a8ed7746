"""The run directory: plain files, each written once and whole, metrics appended live.

config.json       the complete configuration, versions, platform, data facts, command line
metrics.jsonl     one JSON object a line, flat keys; a torn last line is tolerated
arrays/           data and portrait (safetensors)
checkpoints/      see `runs.checkpoint`
summary.json      status and final numbers
report.html       the picture
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as tensors_bytes

from ..errors import MfresnetError
from .files import plain, read_json, write_bytes, write_json, writing


@dataclass(frozen=True)
class RunDirectory:
    """A run's files."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints lie."""
        return self.path / "checkpoints"

    @property
    def metrics_file(self) -> Path:
        """The live metrics."""
        return self.path / "metrics.jsonl"

    @classmethod
    def create(cls, path: Path, *, overwrite: bool = False) -> RunDirectory:
        """A new, empty run directory.

        Raises:
            MfresnetError: something is there already and ``overwrite`` is off, or it is no run.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            if not (path / "config.json").is_file():
                raise MfresnetError(f"{str(path)!r} exists and is no run directory: choose another --out.")
            if not overwrite:
                raise MfresnetError(
                    f"run directory {str(path)!r} exists: continue it with `mfresnet resume {path}`, "
                    "replace it with --overwrite, or choose another --out."
                )
            with writing(path):
                shutil.rmtree(path)
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            (path / "checkpoints").mkdir(exist_ok=True)
            (path / "arrays").mkdir(exist_ok=True)
        return cls(path)

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
        """The content of ``config.json``."""
        return read_json(self.path / "config.json")

    @property
    def summary(self) -> dict[str, Any]:
        """The content of ``summary.json``, empty while the run has none."""
        file = self.path / "summary.json"
        return read_json(file) if file.exists() else {}

    def write_config(self, value: Mapping[str, Any]) -> None:
        """Write ``config.json``."""
        write_json(self.path / "config.json", value)

    def write_summary(self, value: Mapping[str, Any]) -> None:
        """Write ``summary.json``."""
        write_json(self.path / "summary.json", value)

    def write_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write ``arrays/NAME.safetensors``."""
        data = tensors_bytes({key: np.ascontiguousarray(value) for key, value in arrays.items()})
        write_bytes(self.path / "arrays" / f"{name}.safetensors", data)

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of ``metrics.jsonl``; a torn last line is left out."""
        return read_rows(self.metrics_file)

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Append one row."""
        with writing(self.metrics_file), self.metrics_file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(plain(row)) + "\n")

    def truncate_metrics(self, step: int) -> None:
        """Drop the rows after ``step``: they are made again by a resumed run."""
        rows = [row for row in self.metrics() if row["step"] <= step]
        write_bytes(self.metrics_file, "".join(json.dumps(row) + "\n" for row in rows).encode())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file up to the first torn line; a missing file has none."""
    rows: list[dict[str, Any]] = []
    if not path.exists():
        return rows
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not isinstance(row, dict) or "step" not in row:
            break
        rows.append(row)
    return rows


def fresh_path(parent: Path, name: str) -> Path:
    """``parent/name``, or with the first free number behind it."""
    number, path = 1, parent / name
    while path.exists():
        number += 1
        path = parent / f"{name}-{number}"
    return path
