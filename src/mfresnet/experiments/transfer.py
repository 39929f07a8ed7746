"""Does the best learning rate stay the same where depth and width grow?

Two scalings of one network are compared, with the same draws of (w, b) and the same optimiser:

mean-field    z + alpha/(L M) sum_m u_m sigma0(w_m.z + b_m),    f = beta/K sum_k a_k sigma0(w_k.z_L + b_k),
              all parameters N(0, 1); a particle moves with its gradient per unit of mass, L M (K in the head) times the
              plain gradient.
standard      z + sum_m u_m sigma0(w_m.z + b_m),                f = sum_k a_k sigma0(w_k.z_L + b_k),
              u ~ N(0, 1/M), a ~ N(0, 1/K) (fan-in), w, b ~ N(0, 1); no factor of depth; particles move with the plain
              gradient.

Adam moves each parameter by about the learning rate whatever the scale of its gradient, so under it the two differ by
what such a step does to the function: L M times more in the standard network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, ClassVar

import numpy as np

from ..errors import MfresnetError
from ..stats import student
from .experiment import Plot, Result, Row, divergence_notes
from .settings import TransferSettings
from .training import TrainingExperiment, check_grid

SCALINGS = ("mean-field", "standard")
AXES = ("depth", "width")
TINY = 1e-30  # a loss of 0 has no logarithm


class Transfer(TrainingExperiment):
    """Training loss at the end over a grid of learning rates, for each size, horizon, decay and scaling.

    Depth runs at the width ``model.width`` and width (M and K together) at the depth ``model.depth``. The best rate of
    a size is where the mean over seeds of the logarithm of the training loss is least; a rate at which any seed
    diverged is out. Passed: under the mean-field scaling, for each horizon and decay, the best rates of all depths, and
    those of all widths, lie within one step of the grid. Failed: the seeds exclude it in one series, as no two
    neighbouring rates hold, for each of its sizes, one that is not told apart from the best (95 %, Student's over
    matched seeds, of the difference of log loss). Neither: they move further, but the seeds do not exclude it; or a
    best rate lies at the edge of the grid, a size has none, or a series has one size.
    """

    name = "transfer"
    question = "Does the best learning rate carry over to deeper and wider networks?"
    settings: TransferSettings
    owned: ClassVar = {
        "model.head_width": "give --width",
        "train.learning_rate": "give --rates",
        "train.steps": "give --horizons",
        "train.decay": "give --decays",
    }

    def __init__(self, settings: TransferSettings):
        super().__init__(settings)
        if settings.train.rule == "gradient-flow":
            raise MfresnetError("the gradient flow has no learning rate to transfer: set --train.rule to an optimiser.")
        if "standard" in settings.scalings:
            own = _scaling_settings({"scaling": "standard", "model.depth": 1, "model.width": 1})
            self.refuse(dict.fromkeys(own, "leave it out, or set --scalings mean-field"))

    def cells(self) -> list[dict[str, Any]]:
        s = self.settings
        sizes = [("depth", depth, s.model.width) for depth in s.depth]
        sizes += [("width", s.model.depth, width) for width in s.width]
        ways = product(dict.fromkeys(s.scalings), dict.fromkeys(s.decays), s.horizons)
        return check_grid(
            [
                {
                    "scaling": scaling,
                    "axis": axis,
                    "model.depth": depth,
                    "model.width": width,
                    "train.decay": decay,
                    "train.steps": steps,
                    "train.learning_rate": rate,
                    "seed": seed,
                }
                for (scaling, decay, steps), (axis, depth, width), rate, seed in product(
                    ways, sizes, s.rates, s.seed_range()
                )
            ]
        )

    def config(self, cell):
        return super().config({**cell, **_scaling_settings(cell)})

    def analyse(self, rows: Sequence[Row]) -> Result:
        rates = sorted({row["train.learning_rate"] for row in rows})
        ways = list(dict.fromkeys((row["scaling"], row["train.decay"], row["train.steps"]) for row in rows))
        points, moves, notes, curves = [], [], [], {}
        for scaling, decay, steps in ways:
            for axis in AXES:
                best, alike = [], []
                sizes = sorted({row[f"model.{axis}"] for row in rows if row["axis"] == axis})
                for size in sizes:
                    here = [
                        row
                        for row in rows
                        if (row["scaling"], row["train.decay"], row["train.steps"]) == (scaling, decay, steps)
                        and (row["axis"], row[f"model.{axis}"]) == (axis, size)
                    ]
                    losses = [_loss([row for row in here if row["train.learning_rate"] == rate]) for rate in rates]
                    moved = int(np.argmin(losses)) if np.isfinite(losses).any() else None
                    best.append(moved)
                    alike.append(_alike(here, rates, losses, moved))
                    curves[scaling, decay, steps, axis, size] = losses
                    points.append(
                        {
                            "scaling": scaling,
                            "decay": decay,
                            "horizon": steps,
                            "axis": axis,
                            "size": size,
                            "best_rate": None if moved is None else rates[moved],
                            "loss": None if moved is None else float(losses[moved]),
                            "loss_95": None if moved is None else _interval(here, rates[moved]),
                            "rates_95": [rates[place] for place in sorted(alike[-1])],
                            "at_edge": moved in (0, len(rates) - 1),
                        }
                    )
                there = [place for place in best if place is not None]
                step = max(there) - min(there) if len(there) == len(best) else None
                excluded = step is not None and not any(
                    all(here & {place, place + 1} for here in alike) for place in range(len(rates))
                )
                moves.append(
                    {"scaling": scaling, "decay": decay, "horizon": steps, "axis": axis}
                    | {"steps_moved": step, "excluded": excluded}
                )
        for scaling in dict.fromkeys(way[0] for way in ways):
            own = [point["at_edge"] for point in points if point["scaling"] == scaling]
            if any(own):
                notes.append(
                    f"{sum(own)} of {len(own)} best rates of the {scaling} scaling lie at the edge of the grid, and "
                    "how far they move is not known: widen --rates."
                )
        passed = judge([p for p in points if p["scaling"] == "mean-field"], moves)
        said = []
        for scaling in dict.fromkeys(way[0] for way in ways):
            moved = [move["steps_moved"] for move in moves if move["scaling"] == scaling]
            known = [step for step in moved if step is not None]
            lost = len(moved) - len(known)
            word = f"by at most {max(known)} step{'s' * (max(known) != 1)} of the grid" if known else "no size trained"
            said.append(f"{scaling}: {word}" + (f" ({lost} of {len(moved)} series without a rate)" if lost else ""))
        return Result(
            verdict="the best learning rate moves over depth and width under " + "; ".join(said),
            passed=passed,
            fit={
                "moves": {f"{m['scaling']}, {m['decay']}, {m['horizon']}, {m['axis']}": m["steps_moved"] for m in moves}
            },
            points=points,
            figures=[
                _figure(rates, curves, scaling, axis) for scaling in dict.fromkeys(w[0] for w in ways) for axis in AXES
            ],
            notes=[*notes, *divergence_notes(rows)],
        )


def judge(points: Sequence[Mapping[str, Any]], moves: Sequence[Mapping[str, Any]]) -> bool | None:
    """Whether each series of the mean-field scaling has its best rates within one step; None where it cannot say.

    It cannot where a size has no best rate inside the grid, a series has a single size, or the seeds do not decide.
    """
    own = [move for move in moves if move["scaling"] == "mean-field"]
    steps = [move["steps_moved"] for move in own]
    sizes = Counter((point["decay"], point["horizon"], point["axis"]) for point in points)
    if not steps or any(point["at_edge"] or point["best_rate"] is None for point in points) or min(sizes.values()) < 2:
        return None
    if all(step <= 1 for step in steps):
        return True
    return False if any(move["excluded"] for move in own) else None


def _alike(rows: Sequence[Row], rates: Sequence[float], losses: Sequence[float], best: int | None) -> set[int]:
    """The places of the rates whose loss is not told apart from the best one's; of one seed all that trained."""
    if best is None:
        return set()

    def logs(place: int) -> np.ndarray:
        own = sorted((row for row in rows if row["train.learning_rate"] == rates[place]), key=lambda row: row["seed"])
        return np.log([max(row["train.loss"], TINY) for row in own])

    places = {best}
    for place in np.flatnonzero(np.isfinite(losses)):
        mean, half = student(logs(int(place)) - logs(best))
        if not mean - half > 0:  # NaN: one seed
            places.add(int(place))
    return places


def _interval(rows: Sequence[Row], rate: float) -> tuple[float, float]:
    """Student's 95 % interval over seeds of the geometric mean of the training loss at a rate."""
    mean, half = student([np.log(max(row["train.loss"], TINY)) for row in rows if row["train.learning_rate"] == rate])
    return float(np.exp(mean - half)), float(np.exp(mean + half))


def _scaling_settings(cell: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that make the network of a cell, see the module."""
    depth, width = cell["model.depth"], cell["model.width"]
    if cell["scaling"] == "mean-field":
        return {"model.head_width": width}
    return {
        "model.head_width": width,
        "model.alpha": float(depth * width),
        "model.beta": float(width),
        "model.initial.u": width**-0.5,
        "model.initial.a": width**-0.5,
        "train.encoder_rate": 1 / (depth * width),
        "train.head_rate": 1 / width,
    }


def _loss(rows: Sequence[Row]) -> float:
    """Geometric mean of the training loss over seeds, infinite where one diverged."""
    if not rows or any(row["status"] == "diverged" for row in rows):
        return np.inf
    return float(np.exp(np.mean(np.log([max(row["train.loss"], TINY) for row in rows]))))


def _figure(rates, curves, scaling: str, axis: str) -> Plot:
    """Loss against rate for each size, at the longest horizon and the first decay."""
    own = {key: losses for key, losses in curves.items() if (key[0], key[3]) == (scaling, axis)}
    decay, horizon = next(iter(own))[1], max(key[2] for key in own)
    data = [
        {
            "x": rates,
            "y": [loss if np.isfinite(loss) else None for loss in losses],
            "mode": "lines+markers",
            "name": f"{'L' if axis == 'depth' else 'M'} = {key[4]}",
            "line": {"color": f"@class-{place % 10}"},
        }
        for place, (key, losses) in enumerate((k, v) for k, v in own.items() if (k[1], k[2]) == (decay, horizon))
    ]
    axes = {
        "xaxis": {"title": {"text": "learning rate"}, "type": "log"},
        "yaxis": {"title": {"text": "training loss"}, "type": "log"},
    }
    return Plot(f"{scaling}, {axis}: {horizon} steps, decay {decay}", data, {**axes, "showlegend": True})
