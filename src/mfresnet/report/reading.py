"""What a report may know: the files of a run directory, read once and leniently.

A run that was killed, that diverged or that is still going has files missing or cut off. Each such
fault becomes a sentence in ``problems``; none of them stops the report.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load

from ..errors import MfresnetError

PARTS = ("config.json", "metrics.jsonl", "summary.json")


@dataclass(frozen=True)
class Run:
    """A run directory in memory.

    Args:
        name: the directory's name.
        record: ``config.json``: config, versions, platform, command, created, data.
        metrics: rows of ``metrics.jsonl``.
        summary: ``summary.json``.
        figures: arrays of ``arrays/portrait.safetensors`` by dotted name.
        extra: arrays of ``arrays/diagnostics.safetensors`` (the linearised model), empty where absent.
        control: rows of ``control/metrics.jsonl``, the run with a frozen encoder, empty where absent.
        certificates: ``certificates.json``, empty where absent.
        result: ``result.json`` of a sweep, empty where absent.
        problems: what is missing or could not be read, one sentence each.
        path: the directory, for sections that read further arrays.

    >>> Run("r", metrics=({"step": 0, "train.loss": 1.0}, {"step": 5, "train.loss": None})).column("train.loss")
    array([ 1., nan])
    """

    name: str
    record: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[Mapping[str, Any], ...] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, np.ndarray] = field(default_factory=dict)
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)
    control: tuple[Mapping[str, Any], ...] = ()
    certificates: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    path: Path | None = None

    @classmethod
    def read(cls, path: str | Path) -> Run:
        """The run in this directory.

        Raises:
            MfresnetError: there is no such directory, or nothing in it is a run's.
        """
        path = Path(path)
        if not any((path / part).is_file() for part in PARTS):
            raise MfresnetError(f"{str(path)!r} is no run directory: it holds none of {', '.join(PARTS)}.")
        problems: list[str] = []
        if (_optional(path / "config.json", _object, []) or {}).get("experiment"):
            return cls(
                name=path.resolve().name,
                record=_object(path / "config.json", problems),
                summary=_object(path / "summary.json", problems),
                result=_optional(path / "result.json", _object, problems) or {},
                problems=tuple(problems),
                path=path,
            )
        return cls(
            name=path.resolve().name,
            record=_object(path / "config.json", problems),
            metrics=_merge_measured(
                _rows(path / "metrics.jsonl", problems),
                _optional(path / "measure.jsonl", _rows, problems) or (),
            ),
            summary=_object(path / "summary.json", problems),
            figures=_arrays(path / "arrays" / "portrait.safetensors", problems),
            extra=_optional(path / "arrays" / "diagnostics.safetensors", _arrays, problems) or {},
            control=_optional(path / "control" / "metrics.jsonl", _rows, problems) or (),
            certificates=_optional(path / "certificates.json", _object, problems) or {},
            problems=tuple(problems),
            path=path,
        )

    def column(self, key: str) -> np.ndarray:
        """One key over all rows of the metrics, float64; what is absent, null or no number is NaN."""
        return np.array([number(row.get(key)) for row in self.metrics], np.float64)

    def last(self, key: str) -> float:
        """The summary's value of a key, else the last finite one of the metrics, else NaN."""
        value = number(self.summary.get(key))
        if math.isfinite(value):
            return value
        column = self.column(key)
        finite = column[np.isfinite(column)]
        return float(finite[-1]) if len(finite) else math.nan

    def part(self, name: str) -> Mapping[str, Any]:
        """A part of ``config.json`` ("config", "data", ...); empty where it is absent."""
        value = self.record.get(name)
        return value if isinstance(value, Mapping) else {}

    def arrays(self, *names: str) -> list[np.ndarray] | None:
        """Arrays of the figures by name, or None unless all are there."""
        return [self.figures[name] for name in names] if all(name in self.figures for name in names) else None

    @property
    def kind(self) -> str:
        """ "sweep" for the directory of a sweep, else "run"."""
        return "sweep" if self.record.get("experiment") else "run"

    @property
    def status(self) -> str:
        """completed, interrupted, diverged, or unfinished where no summary was written."""
        return str(self.summary.get("status") or "unfinished")

    @property
    def classification(self) -> bool:
        """Whether the targets are classes."""
        return self.part("data").get("task") != "regression"

    def classes(self, count: int) -> list[str]:
        """Names of ``count`` classes; "class k" where the run names none."""
        names = self.part("data").get("classes")
        names = names if isinstance(names, list) else []
        return [str(names[k]) if k < len(names) else f"class {k}" for k in range(count)]


def number(value: Any) -> float:
    """A JSON value as a float, NaN where it is none.

    >>> number(None), number("0.5"), number(3)
    (nan, nan, 3.0)
    """
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """The leaves of a nested mapping by dotted name.

    >>> list(flat({"model": {"depth": 3}, "seed": 0}))
    [('model.depth', 3), ('seed', 0)]
    """
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _merge_measured(rows: tuple[Mapping[str, Any], ...], again: tuple[Mapping[str, Any], ...]) -> tuple[Mapping, ...]:
    """Rows of training, each with what `mfresnet measure` found at its step (of images: under its rule).

    >>> _merge_measured(({"step": 1, "a": 0},), ({"step": 1, "b": 2},))
    ({'step': 1, 'a': 0, 'b': 2},)
    """
    measured = {(row.get("step"), row.get("rule")): row for row in again}
    merged = tuple({**row, **measured.pop((row.get("step"), row.get("rule")), {})} for row in rows)
    return merged + tuple(row for row in measured.values() if "rule" in row)  # a run of images, stopped amid an epoch


def _optional(path: Path, read: Callable[[Path, list[str]], Any], problems: list[str]) -> Any:
    """What a run need not have: no word where it is absent."""
    return read(path, problems) if path.is_file() else None


def _text(path: Path, problems: list[str]) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        problems.append(f"{path.name} is missing.")
    except OSError as error:
        problems.append(f"{path.name} cannot be read: {error.strerror}.")
    return None


def _object(path: Path, problems: list[str]) -> Mapping[str, Any]:
    text = _text(path, problems)
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, Mapping):
        return value
    problems.append(f"{path.name} is damaged: it is no JSON object.")
    return {}


def _rows(path: Path, problems: list[str]) -> tuple[Mapping[str, Any], ...]:
    """Complete rows; the last line of a run that was killed may be torn and is not counted, others are."""
    lines = [line for line in (_text(path, problems) or "").split("\n") if line.strip()]
    rows, bad = [], 0
    for index, line in enumerate(lines):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, Mapping):
            rows.append(row)
        elif index < len(lines) - 1:
            bad += 1
    if bad:
        problems.append(f"{bad} damaged line{'s' * (bad > 1)} of {path.name} left out.")
    return tuple(rows)


def _arrays(path: Path, problems: list[str]) -> Mapping[str, np.ndarray]:
    try:
        return load(path.read_bytes())
    except FileNotFoundError:
        problems.append(
            "The arrays of the figures (decision regions, data through depth, particles) have not been written."
        )
    except Exception as error:  # safetensors raises its own type, numpy others: all mean a damaged file
        problems.append(f"arrays/{path.name} cannot be read: {type(error).__name__}.")
    return {}
