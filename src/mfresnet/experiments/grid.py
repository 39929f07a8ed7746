"""Any settings of the configuration against each other, on any data set."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from itertools import product
from operator import attrgetter
from typing import Any, ClassVar

import numpy as np

from ..config import DataConfig, ModelConfig, TrainConfig, leaves
from ..digits import format_with_error
from ..errors import MfresnetError
from ..fields import split_list
from ..stats import student
from .experiment import Plot, Result, Row, completed_rows, divergence_notes
from .settings import GridSettings
from .training import TrainingExperiment, check_grid

SECTIONS = {"data": DataConfig, "model": ModelConfig, "train": TrainConfig}
MEASURES = ("train.loss", "train.error", "test.loss", "test.error")


class Grid(TrainingExperiment):
    """The product of the values of each ``--set NAME=VALUE,VALUE``, times the seeds.

    The compared number is a mean over seeds with Student's 95 % interval; the least one is named.
    """

    name = "grid"
    question = "Which settings are best?"
    settings: GridSettings
    measures: ClassVar[tuple[str, ...]] = MEASURES

    def __init__(self, settings: GridSettings):
        super().__init__(settings)
        if settings.measure not in self.measures:
            raise MfresnetError(
                f"measure = {settings.measure!r} is not allowed: give one of {', '.join(self.measures)}."
            )

    def axes(self) -> dict[str, list[Any]]:
        """The values of each ``--set``, as given.

        Raises:
            MfresnetError: an unknown setting, one given twice, or an empty grid.
        """
        names = [f"{part}.{name}" for part, kind in SECTIONS.items() for name, _ in leaves(kind)]
        axes: dict[str, list[Any]] = {}
        for text in self.settings.set:
            name, equals, values = text.partition("=")
            name = name.strip().replace("-", "_")
            if not equals:
                raise MfresnetError(f"set = {text!r} is not allowed: give NAME=VALUE,VALUE such as model.depth=4,8.")
            if name not in names:
                close = difflib.get_close_matches(name, names, n=2, cutoff=0.6)
                hint = f"did you mean {' or '.join(close)}?" if close else "see `mfresnet sweep grid --help`."
                raise MfresnetError(f"unknown setting {name!r} in --set: {hint}")
            if name in axes:
                raise MfresnetError(f"the setting {name!r} is given twice in --set: give all its values once.")
            axes[name] = list(dict.fromkeys(split_list(values)))
            if not axes[name]:
                raise MfresnetError(f"set = {text!r} is an empty grid: give at least one value.")
        if not axes:
            raise MfresnetError("the grid is empty: give settings and values, such as --set model.depth=4,8.")
        return axes

    def cells(self) -> list[dict[str, Any]]:
        axes = self.axes()
        self.refuse(dict.fromkeys(axes, "its values are those of --set"))
        points: list[dict[str, Any]] = []
        for values in product(*axes.values()):
            values = dict(zip(axes, values, strict=True))
            config = self.config(values)  # the values as numbers, or a sentence about the one that is not allowed
            typed = {name: attrgetter(name)(config) for name in axes}
            if typed not in points:  # 1 and 1.0 are one value
                points.append(typed)
        return check_grid([{**typed, "seed": seed} for typed in points for seed in self.settings.seed_range()])

    def analyse(self, rows: Sequence[Row]) -> Result:
        axes = list(self.axes())
        measure, points = self.settings.measure, []
        for values in dict.fromkeys(tuple(row[name] for name in axes) for row in rows):
            here = [row for row in rows if tuple(row[name] for name in axes) == values]
            good = [row[measure] for row in completed_rows(here)]
            mean, half = student(good) if good else (float("nan"), float("nan"))
            lost = len(here) - len(good)
            points.append(
                {**dict(zip(axes, values, strict=True)), measure: mean, "half_width_95": half, "diverged": lost}
            )
        whole = [point for point in points if np.isfinite(point[measure]) and not point["diverged"]]
        best = min(whole, key=lambda point: point[measure]) if whole else None
        if best is None:
            verdict = "no point of the grid completed with every seed"
        else:
            where = ", ".join(f"{name} = {best[name]}" for name in axes)
            half = best["half_width_95"]
            least = f"{best[measure]:.4g}" if np.isnan(half) else format_with_error(best[measure], half, "+-")
            verdict = f"least {measure}: {least} at {where}"
        notes = divergence_notes(rows)
        if measure.startswith("test"):
            notes.append("The best point was chosen on the test set: its own error is an optimistic estimate.")
        return Result(verdict, None, {"best": best} if best else {}, points, [_figure(axes, points, measure)], notes)


def _figure(axes: Sequence[str], points: Sequence[dict[str, Any]], measure: str) -> Plot:
    """The measure against the first setting, a line for each combination of the others."""
    first, *others = axes
    lines: dict[tuple, list[dict[str, Any]]] = {}
    for point in points:
        lines.setdefault(tuple(point[name] for name in others), []).append(point)
    data = [
        {
            "x": [str(point[first]) for point in own],
            "y": [point[measure] for point in own],
            "error_y": {"type": "data", "array": [point["half_width_95"] for point in own]},
            "mode": "lines+markers",
            "name": ", ".join(f"{name} = {value}" for name, value in zip(others, key, strict=True)) or measure,
            "line": {"color": f"@class-{place % 10}"},
        }
        for place, (key, own) in enumerate(lines.items())
    ]
    axis = {"xaxis": {"title": {"text": first}, "type": "category"}, "yaxis": {"title": {"text": measure}}}
    return Plot(f"{measure} against {first}", data, {**axis, "showlegend": bool(others)})
