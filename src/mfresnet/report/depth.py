"""Data moving through depth, with a slider over s."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..digits import format_plain
from .parts import Figure, Frames, Section, class_colour, class_symbol, diverging, plain, square
from .reading import Run
from .regions import WHEN
from .regions import field as signed_field

TRAILS = 60  # paths drawn behind the points: more would hide them


def depth(run: Run) -> Section | None:
    """The states z(s) of the training points, from the input at s = 0 to what the head reads at s = 1."""
    if not run.arrays("depth.s", "depth.label"):
        return None
    figures = [figure for when, title in WHEN.items() if (figure := _panel(run, when, title))]
    if not figures:
        return None
    axes = run.figures.get("depth.axes", np.eye(2))
    caption = (
        "Each point is a training input on its way through the layers: move the slider, or play. "
        "Faint lines: the whole path of some of them."
    )
    if axes.shape[1] > 2:
        caption += f" Drawn along the first two principal axes of the states of dimension {axes.shape[1]}."
    if axes.shape[1] == 1:
        caption += " The state has one dimension; the target spreads the points vertically."
    if "depth.end.read" in run.figures:
        caption += " Shaded: what the head reads off a state once it has arrived at s = 1."
    moved = run.last("displacement.state")
    finding = f"Training moved the last states by up to {format_plain(moved)}." if np.isfinite(moved) else ""
    return Section("Data moving through depth", caption, figures, finding)


def _panel(run: Run, when: str, title: str) -> Figure | None:
    arrays = run.arrays("depth.s", "depth.label", f"depth.{when}.state")
    if not arrays or arrays[2].ndim != 3 or not arrays[2].size:
        return None
    s, label, z = arrays
    traces: list[dict[str, Any]] = []
    read = run.arrays(f"depth.{when}.first", f"depth.{when}.second", f"depth.{when}.read")
    count = int(np.nanmax(label, initial=0)) + 1 if run.classification else 1
    if read and count <= 2:
        traces += [trace | {"hoverinfo": "skip"} for trace in signed_field(*read, line=run.classification)]
    for trace in traces:
        trace.pop("hovertemplate", None)
        trace["showscale"] = False
    groups = _groups(run, label, count)
    for mine, colour, _ in groups:
        traces.append(_trails(z[:, mine], colour if isinstance(colour, str) else "@muted"))
    moving: list[int] = []
    for k, (mine, colour, name) in enumerate(groups):
        marker = {"color": colour, "size": 5.5, "symbol": class_symbol(k), "line": {"color": "@panel", "width": 0.6}}
        if not isinstance(colour, str):
            marker |= {"colorscale": diverging(), "cmid": 0, "showscale": False}
        moving.append(len(traces))
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": z[-1, mine, 0],
                "y": z[-1, mine, 1],
                "marker": marker,
                "hoverinfo": "name",
                "showlegend": run.classification,
            }
        )
    layout = square("first state coordinate", "second state coordinate")
    if run.figures.get("depth.axes", np.eye(2)).shape[1] > 2:
        layout = square("first principal axis of the states", "second principal axis")
    for i, ax in enumerate(("xaxis", "yaxis")):
        layout[ax] |= {"range": _window(z)[i], "constrain": "domain"}
    if run.figures.get("depth.axes", np.eye(2)).shape[1] == 1:
        layout["xaxis"] |= {"range": None, "autorange": True}
        layout["yaxis"] |= {"range": None, "autorange": True, "scaleanchor": None, "title": {"text": "target"}}
    frames = Frames(
        "depth s",
        s,
        moving,
        [z[:, mine, 0] for mine, _, _ in groups],
        [z[:, mine, 1] for mine, _, _ in groups],
    )
    return Figure(title, traces, layout, aspect=1.0, frames=frames)


def _groups(run: Run, label: np.ndarray, count: int) -> list[tuple[np.ndarray, Any, str]]:
    """(which points, their colour, their name): one group per class, or one coloured by target."""
    if not run.classification:
        return [(np.ones(len(label), bool), label, "training point")]
    names = run.classes(count)
    return [(label == k, class_colour(k), plain(names[k], 24)) for k in range(count)]


def _trails(z: np.ndarray, colour: str) -> dict[str, Any]:
    """Some paths as one line with gaps, at half the frames: they are background."""
    every = max(1, z.shape[1] // TRAILS)
    paths = z[:, ::every]
    gaps = np.full((1, *paths.shape[1:]), np.nan)
    line = np.concatenate([paths, gaps]).transpose(1, 0, 2).reshape(-1, 2)
    return {
        "type": "scatter",
        "mode": "lines",
        "x": line[:, 0],
        "y": line[:, 1],
        "line": {"color": f"{colour}/28", "width": 1},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _window(z: np.ndarray) -> list[list[float]]:
    """Ranges that hold every state at every depth, at one scale."""
    finite = z[np.isfinite(z).all(axis=-1)]
    if not len(finite):
        return [[-1.0, 1.0], [-1.0, 1.0]]
    low, high = finite.min(axis=0), finite.max(axis=0)
    centre, half = (low + high) / 2, max(float((high - low).max()) * 0.56, 1e-6)
    return [[float(c - half), float(c + half)] for c in centre]
