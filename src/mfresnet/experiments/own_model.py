"""``mfresnet sweep own-transfer``: the best learning rate of a user's own model, scaled by the rules or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import MfresnetError
from ..registry import Registry
from ..scaling import Growth
from .experiment import Cell, Experiment, Plot, Pulse, Result, Row, completed_rows, divergence_notes
from .own_transfer import FLAT, Factory, Task, coordinates_of, losses_of, slope, task_of
from .settings import OwnTransferSettings

FACTORIES: Registry[Factory] = Registry("factory", "mfresnet.factories", {})
SCALINGS = ("scaled", "plain")


class OwnTransfer(Experiment):
    """The last training loss over a grid of learning rates, for each size; a cell holds all rates of a size and seed.

    Passed where, with the rules of `mfresnet.scaling`, the best rate (geometric mean of the loss over seeds) moves by
    at most one step of the grid between the sizes. Neither where a best rate lies at the edge of the grid.
    """

    name = "own-transfer"
    question = "Does the best learning rate of your own model carry over to deeper or wider ones?"
    settings: OwnTransferSettings

    def __init__(self, settings: OwnTransferSettings):
        super().__init__(settings)
        if not settings.factory:
            raise MfresnetError("no factory: give --factory package.module:FUNCTION.")
        self.factory = FACTORIES[settings.factory]
        if len(set(settings.sizes)) < 2:
            raise MfresnetError(f"sizes = {settings.sizes} has one value: give two or more.")

    def cells(self) -> list[dict[str, Any]]:
        s = self.settings
        return [
            {"scaling": scaling, "size": size, "seed": seed}
            for scaling in SCALINGS
            for size in s.sizes
            for seed in s.seed_range()
        ]

    def run(self, cells: Sequence[Cell], pulse: Pulse = lambda share: None) -> list[dict[str, Any]]:
        """Train every rate of each cell as one program."""
        s, rows = self.settings, []
        for done, cell in enumerate(cells):
            task, base = (self._task(size, cell["seed"]) for size in (cell["size"], s.sizes[0]))
            if cell["size"] != s.sizes[0] and _count(task) == _count(base):
                raise MfresnetError(
                    f"factory {s.factory!r} makes {_count(task)} parameters at {s.axis} {cell['size']} and "
                    f"{s.sizes[0]}: it ignores its {s.axis}."
                )
            growth = Growth(**{s.axis: cell["size"] / s.sizes[0]}) if cell["scaling"] == "scaled" else Growth()
            losses = losses_of(task, growth, s.rates, steps=s.steps, optimiser=s.optimiser)
            features, updates = coordinates_of(task, growth, s.rates[len(s.rates) // 2], optimiser=s.optimiser)
            values = {f"loss.{rate:g}": float(loss) for rate, loss in zip(s.rates, losses, strict=True)}
            rows.append(
                {
                    "status": "completed" if np.isfinite(losses).any() else "diverged",
                    "features": features,
                    "updates": updates,
                    **values,
                }
            )
            pulse((done + 1) / len(cells))
        return rows

    def analyse(self, rows: Sequence[Row]) -> Result:
        notes, rows = divergence_notes(rows), completed_rows(rows)
        s, points, moved, figures = self.settings, [], {}, []
        for scaling in SCALINGS:
            best, data = [], []
            for size in s.sizes:
                own = [row for row in rows if (row["scaling"], row["size"]) == (scaling, size)]
                losses = np.array([[_number(row.get(f"loss.{rate:g}")) for rate in s.rates] for row in own])
                logs = np.log(np.maximum(losses, 1e-30)).mean(axis=0) if own else np.full(len(s.rates), np.nan)
                place = int(np.argmin(logs)) if np.isfinite(logs).any() else None
                best.append(place)
                points.append(
                    {"scaling": scaling, "size": size, "best_rate": None if place is None else s.rates[place]}
                    | {"loss": None if place is None else float(np.exp(logs[place]))}
                    | {"at_edge": place in (0, len(s.rates) - 1)}
                )
                shown = [float(np.exp(v)) if np.isfinite(v) else None for v in logs]
                data.append({"x": list(s.rates), "y": shown, "mode": "lines+markers", "name": f"{s.axis} {size}"})
            known = [place for place in best if place is not None]
            moved[scaling] = max(known) - min(known) if len(known) == len(best) else None
            axes = {"xaxis": {"title": {"text": "learning rate"}, "type": "log"}}
            axes |= {"yaxis": {"title": {"text": "training loss"}, "type": "log"}}
            figures.append(Plot(f"{scaling}: {s.steps} steps of {s.optimiser}", data, {**axes, "showlegend": True}))
        edges = [point["at_edge"] or point["best_rate"] is None for point in points if point["scaling"] == "scaled"]
        said = [f"{name}: {'unknown' if step is None else f'{step} steps of the grid'}" for name, step in moved.items()]
        step, coordinates = moved["scaled"], {scaling: self._coordinates(rows, scaling) for scaling in SCALINGS}
        return Result(
            verdict=f"over {s.axis} {s.sizes[0]} to {s.sizes[-1]} the best learning rate moves by " + ", ".join(said),
            passed=None if step is None or any(edges) else step <= 1,
            fit={"steps_moved": moved, "coordinates": coordinates},
            points=points,
            figures=figures,
            notes=[
                *notes,
                *(["A best rate lies at the edge of the grid: widen --rates."] if any(edges) else []),
                *(_say(scaling, s.axis, check) for scaling, check in coordinates.items()),
            ],
        )

    def _coordinates(self, rows: Sequence[Row], scaling: str) -> dict[str, Any]:
        """Slopes of features and of their change after 4 steps at the middle rate, and whether both are flat."""
        slopes: dict[str, float | None] = {}
        for name in ("features", "updates"):
            means = [
                np.mean(
                    [_number(row.get(name)) for row in rows if (row["scaling"], row["size"]) == (scaling, size)]
                    or [np.nan]
                )
                for size in self.settings.sizes
            ]
            usable = all(np.isfinite(mean) and mean > 0 for mean in means)
            slopes[name] = slope(self.settings.sizes, [float(mean) for mean in means]) if usable else None
        known = [value for value in slopes.values() if value is not None]
        return slopes | {"stable": len(known) == 2 and all(abs(value) < FLAT for value in known)}

    def _task(self, size: int, seed: int) -> Task:
        s = self.settings
        sizes = (size, s.other) if s.axis == "depth" else (s.other, size)
        return task_of(self.factory, *sizes, seed, f"factory {s.factory!r}")


def _say(scaling: str, axis: str, check: dict[str, Any]) -> str:
    slopes = [f"{'unknown' if check[name] is None else f'{check[name]:.2f}'}" for name in ("features", "updates")]
    verdict = "sizes are stable" if check["stable"] else "sizes are not stable"
    growth = f"features grow as {axis}^{slopes[0]}, their updates as {axis}^{slopes[1]}"
    return f"Coordinate check, {scaling}: {growth}; {verdict}."


def _count(task: Task) -> int:
    import jax

    return sum(leaf.size for leaf in jax.tree.leaves(task.params))


def _number(value: Any) -> float:
    """A loss as it comes back from a file, where infinity is no number."""
    return np.inf if value is None or isinstance(value, str) else float(value)
