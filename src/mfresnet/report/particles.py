"""Particles that moved: from their random start to where training left them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..digits import format_plain
from .parts import Figure, Section, axis, diverging, square
from .reading import Run

RAMP = [[i / 4, f"@ramp-{i}"] for i in range(5)]


def particles(run: Run) -> Section | None:
    """Start and end of encoder and head particles, and how far each layer moved."""
    figures = [figure for figure in (_encoder(run), _head(run), _displacement(run)) if figure]
    if not figures:
        return None
    caption = (
        "Each line runs from where a particle started to where it ended, seen through its input weights w; "
        "larger marks have larger output weights. Encoder particles are coloured by their depth, head particles "
        "by a. Short lines mean lazy training, long ones feature learning."
    )
    if _state(run) > 2:
        caption += " The axes are those of the picture of the states above."
    moved = {part: run.last(f"displacement.{part}") for part in ("encoder", "head")}
    finding = " and ".join(f"{format_plain(v)} in the {part}" for part, v in moved.items() if np.isfinite(v) and v > 0)
    return Section(
        "Particles", caption, figures, f"Particles moved by {finding} (root mean square)." if finding else ""
    )


def _pair(run: Run, part: str, title: str, marker: dict[str, Any], hover: str) -> Figure | None:
    arrays = run.arrays(f"particles.{part}.start.w", f"particles.{part}.end.w", f"particles.{part}.end.out")
    if not arrays:
        return None
    start, end, out = arrays
    size = np.abs(out) / (np.nanmax(np.abs(out), initial=0) or 1.0)
    gaps = np.full_like(start, np.nan)
    line = np.stack([start, end, gaps], axis=1).reshape(-1, 2)
    marker = {
        "size": np.round(3 + 7 * size, 1),
        "line": {"color": "@panel", "width": 0.5},
        "colorbar": {"thickness": 10, "outlinewidth": 0, "len": 0.9, "title": {"text": hover, "side": "top"}},
    } | marker
    few = len(start) <= 60
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "path",
            "x": line[:, 0],
            "y": line[:, 1],
            "line": {"color": "@ink/45" if few else "@ink/18", "width": 1.2 if few else 0.8},
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "start",
            "x": start[:, 0],
            "y": start[:, 1],
            "marker": {"color": "@muted", "size": 4 if few else 2.5, "symbol": "circle-open", "opacity": 0.8},
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "end",
            "x": end[:, 0],
            "y": end[:, 1],
            "marker": marker,
            "customdata": marker["color"],
            "hovertemplate": hover + " = %{customdata:.3g}<extra></extra>",
        },
    ]
    return Figure(title, traces, square("w₁", "w₂") if _state(run) > 1 else square("w", "b"), aspect=0.96)


def _state(run: Run) -> int:
    return run.figures.get("depth.axes", np.eye(2)).shape[1]


def _encoder(run: Run) -> Figure | None:
    s = run.figures.get("particles.encoder.s")
    if s is None:
        return None
    return _pair(run, "encoder", "Encoder", {"color": s, "colorscale": RAMP, "cmin": 0, "cmax": 1}, "s")


def _head(run: Run) -> Figure | None:
    a = run.figures.get("particles.head.end.out")
    if a is None:
        return None
    reach = float(np.nanmax(np.abs(a), initial=0)) or 1.0
    if not np.nanmin(a, initial=0) < 0:  # several outputs: only the length of a is drawn
        colours = {"color": a, "colorscale": RAMP, "cmin": 0, "cmax": reach}
        return _pair(run, "head", "Head", colours, "|a|")
    colours = {"color": a, "colorscale": diverging(), "cmin": -reach, "cmax": reach}
    return _pair(run, "head", "Head", colours | {"line": {"color": "@muted", "width": 0.8}}, "a")


def _displacement(run: Run) -> Figure | None:
    moved = run.figures.get("displacement.encoder")
    if moved is None or not moved.size:
        return None
    s = (np.arange(len(moved)) + 0.5) / len(moved)
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines+markers" if len(moved) <= 60 else "lines",
            "name": "encoder",
            "x": s,
            "y": moved,
            "line": {"color": "@class-0", "width": 2, "shape": "linear"},
            "marker": {"color": "@class-0", "size": 5},
            "hovertemplate": "s = %{x:.3g}: %{y:.3g}<extra></extra>",
        }
    ]
    head = run.figures.get("displacement.head")
    if head is not None and head.size:
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": "head",
                "x": [0, 1],
                "y": [float(head.flat[0])] * 2,
                "line": {"color": "@class-1", "width": 2, "dash": "dash"},
                "hovertemplate": "head: %{y:.3g}<extra></extra>",
            }
        )
    layout = {
        "xaxis": axis("depth s", range=[0, 1]),
        "yaxis": axis("", rangemode="tozero"),
    }
    return Figure("Root mean square displacement of (output, w, b)", traces, layout, wide=True, height=280)
