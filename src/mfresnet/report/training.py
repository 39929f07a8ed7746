"""Loss and errors over training."""

from __future__ import annotations

import numpy as np

from ..digits import format_plain, format_share
from .parts import Figure, Section, axis, log_axis
from .reading import Run, number

UNITS = {"1/beta2": "1/β²", "n/beta2": "n/β²", "plain": "1"}
LINES = {"train": ("@class-0", "solid"), "test": ("@class-1", "dash")}


def training(run: Run) -> Section | None:
    """Loss and error of both parts against steps, training time or the clock."""
    figures = [figure for what in ("loss", "error") if (figure := _curves(run, what))]
    if not figures:
        return None
    caption = "Training points solid, held-out points dashed."
    errors = np.concatenate([run.column("train.error"), run.column("test.error")])
    if run.classification and np.any(errors == 0):
        caption += " On the logarithmic axis an error of zero is drawn at half of one point."
    return Section("Training", caption, figures, _finding(run))


def _finding(run: Run) -> str:
    """How far the errors, or of a regression the losses, fell."""
    what = "error" if run.classification else "loss"
    parts = []
    for part, word in (("train", "training"), ("test", "held-out")):
        column = run.column(f"{part}.{what}")
        column = column[np.isfinite(column)]
        if len(column) > 1:
            count = number(run.part("data").get("n" if part == "train" else "n_test"))
            first, last = (format_share(v, count) if what == "error" else format_plain(v) for v in column[[0, -1]])
            parts.append(f"The {word} {what} went from {first} to {last}" if not parts else f"the {word} one to {last}")
    return ", ".join(parts) + "." if parts else ""


def clocks(run: Run) -> dict[str, tuple[str, np.ndarray]]:
    """What may run along the horizontal axis: option -> (axis title, values)."""
    train = run.part("config").get("train")
    unit = UNITS.get(str(train.get("time_unit")) if isinstance(train, dict) else "", "")
    choices = {
        "step": ("step", run.column("step")),
        "training time": (f"training time, in {unit}" if unit else "training time", run.column("time")),
        "wall clock": ("wall clock, seconds", run.column("wall_s")),
    }
    return {name: (title, x) for name, (title, x) in choices.items() if np.isfinite(x).sum() > 1}


def _curves(run: Run, what: str) -> Figure | None:
    columns = {part: run.column(f"{part}.{what}") for part in LINES}
    columns = {part: y for part, y in columns.items() if np.isfinite(y).any()}
    x = clocks(run) or {"row": ("recorded row", np.arange(len(run.metrics), dtype=float))}
    if not columns:
        return None
    percent = what == "error" and run.classification
    shown = {part: 100 * y if percent else y for part, y in columns.items()}
    floors = {part: _floor(run, part) if percent else 0.0 for part in columns}
    first = next(iter(x.values()))
    data = [
        {
            "type": "scatter",
            "mode": "lines" if len(run.metrics) > 1 else "markers",
            "name": "training" if part == "train" else "held out",
            "x": first[1],
            "y": np.maximum(y, floors[part]),
            "customdata": y,
            "hovertemplate": "%{customdata:.3g}" + (" %" if percent else ""),
            "line": {"color": LINES[part][0], "dash": LINES[part][1], "width": 2},
            "marker": {"color": LINES[part][0]},
        }
        for part, y in shown.items()
    ]
    linear = {"type": "linear", "tickmode": "auto"}
    log = log_axis("", np.concatenate([np.maximum(y, floors[part]) for part, y in shown.items()]))
    straight = [{"y": y} for y in shown.values()]
    lifted = [{"y": np.maximum(y, floors[part])} for part, y in shown.items()]
    return Figure(
        title="Loss" if what == "loss" else "Error, %" if percent else "Root mean squared error",
        data=data,
        layout={
            "xaxis": axis(first[0]),
            "yaxis": log,
            "hovermode": "x unified",
        },
        choices={
            "against": {
                name: {"layout": {"xaxis": axis(title)}, "data": [{"x": values}] * len(data)}
                for name, (title, values) in x.items()
            },
            "axes": {
                "log": {"layout": {"xaxis": linear, "yaxis": log}, "data": lifted},
                "log–log": {"layout": {"xaxis": {"type": "log"}, "yaxis": log}, "data": lifted},
                "linear": {"layout": {"xaxis": linear, "yaxis": linear | {"rangemode": "tozero"}}, "data": straight},
            },
        },
    )


def _floor(run: Run, part: str) -> float:
    """Where a logarithmic axis draws an error of zero: at half of one point, in percent."""
    count = number(run.part("data").get("n" if part == "train" else "n_test"))
    return 50.0 / count if count > 0 else 0.0
