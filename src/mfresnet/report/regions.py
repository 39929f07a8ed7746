"""Decision regions: the network as a function on a plane."""

from __future__ import annotations

from typing import Any

import numpy as np

from .parts import Figure, Section, axis, class_colour, class_symbol, diverging, plain, square
from .reading import Run, number

WHEN = {"start": "At the start", "end": "Trained"}


def regions(run: Run) -> Section | None:
    """The prediction on the plane of the data at both ends of training."""
    if run.arrays("curve.x", "curve.end"):
        caption = "The prediction at the start and after training, with the data it was fitted to and held-out data."
        return Section("Fitted function", caption, [_curve(run)])
    if not run.arrays("grid.first", "grid.second", "plane.axes", "plane.radius"):
        return None
    figures = [figure for when, title in WHEN.items() if (figure := _plane(run, when, title))]
    if not figures:
        return None
    return Section(
        "Decision regions" if run.classification else "Fitted function", _caption(run), figures, _finding(run)
    )


def _finding(run: Run) -> str:
    """How many held-out points lie on the wrong side."""
    error, count = run.last("test.error"), number(run.summary.get("test.n"))
    if not (run.classification and 0 <= error <= 1 and count > 0):
        return ""
    wrong = round(error * count)
    verb = "is" if wrong == 1 else "are"
    return f"{wrong or 'None'} of {count:,.0f} held-out points {verb} on the wrong side."


def prediction(run: Run) -> Figure | None:
    """The trained network over the plane of the data, for the first screen; None where the run has no such arrays."""
    if run.arrays("curve.x", "curve.end"):
        return _curve(run)
    if run.arrays("grid.first", "grid.second", "plane.axes", "plane.radius"):
        return _plane(run, "end", "What the network predicts")
    return None


def _caption(run: Run) -> str:
    axes, radius = run.figures["plane.axes"], run.figures["plane.radius"]
    if axes.shape[1] == 2:
        caption = "The network over the plane of the inputs."
    elif radius[0] > 0:
        caption = (
            f"The network over the first two principal axes of its {axes.shape[1]} inputs. The data lies on a sphere, "
            "so every place of the picture is moved back to the sphere, at the same norm, along the data's mean; "
            "outside the disc there is no such input."
        )
    else:
        caption = (
            f"The network over the plane through the data's mean spanned by the first two principal axes of "
            f"its {axes.shape[1]} inputs; points off the plane are drawn where they project."
        )
    if run.classification:
        line = "the line" if "grid.end.value" in run.figures else "pale"
        caption += f" Strong colour: a clear decision; {line}: the boundary. Rings: wrongly classified."
    return caption + " Filled: training points; open: held out. A click in the legend hides them."


def points(run: Run, count: int, *, marks: bool) -> list[dict[str, Any]]:
    """Training and held-out points as traces, by class, and with ``marks`` a ring around the wrong ones."""
    traces: list[dict[str, Any]] = []
    wrong: list[np.ndarray] = []
    names = run.classes(count)
    for part, word in (("test", "held out"), ("train", "")):
        arrays = run.arrays(f"points.{part}.place", f"points.{part}.label")
        if not arrays:
            continue
        place, label = arrays
        correct = run.figures.get(f"points.{part}.correct")
        if correct is not None:
            wrong.append(place[correct < 0.5])
        for k in range(count):
            mine = place[label == k]
            colour = class_colour(k) if part == "train" else class_colour(k, 75)
            filled = {"color": colour, "size": 5, "symbol": class_symbol(k), "line": {"color": "@panel", "width": 0.6}}
            hollow = {"color": colour, "size": 4.5, "symbol": class_symbol(k) + "-open", "line": {"width": 1}}
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": plain(names[k], 24) if part == "train" else f"{plain(names[k], 24)}, held out",
                    "x": mine[:, 0],
                    "y": mine[:, 1],
                    "marker": filled if part == "train" else hollow,
                    "hoverinfo": "name",
                    "legendgroup": f"class {k}" if part == "train" else word,
                    "showlegend": part == "train",
                }
            )
    if any(not trace["showlegend"] for trace in traces):  # one entry of the legend stands for all held-out points
        key = {"color": "@soft", "size": 6, "symbol": "circle-open", "line": {"width": 1}}
        traces.append(_scatter("held out", np.full((1, 2), np.nan), key) | {"legendgroup": "held out"})
    ring = np.concatenate(wrong) if wrong else np.zeros((0, 2))
    if marks and len(ring):
        marker = {"color": "@ink", "size": 10, "symbol": "circle-open", "line": {"width": 1.2}}
        traces.append(_scatter("wrong", ring, marker))
    return traces


def _scatter(name: str, place: np.ndarray, marker: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": place[:, 0],
        "y": place[:, 1],
        "marker": marker,
        "hoverinfo": "name",
    }


def _plane(run: Run, when: str, title: str) -> Figure | None:
    first, second = run.figures["grid.first"], run.figures["grid.second"]
    layout = square("first input", "second input")
    if run.figures["plane.axes"].shape[1] > 2:
        layout = square("first principal axis", "second principal axis")
    value, label = run.figures.get(f"grid.{when}.value"), run.figures.get(f"grid.{when}.label")
    if value is not None:
        traces = field(first, second, value, line=run.classification)
        count = 2
    elif label is not None:
        count = max(2, int(np.nanmax(label, initial=0)) + 1, len(run.part("data").get("classes") or ()))
        margin = np.maximum(run.figures.get(f"grid.{when}.margin", np.ones_like(label)), 0)
        traces = [_mosaic(first, second, label, margin, count)]
    else:
        return None
    drawn = points(run, count, marks=when == "end") if run.classification else _targets(run)
    for ax, span in (("xaxis", first), ("yaxis", second)):
        layout[ax] |= {"range": [float(span[0]), float(span[-1])], "constrain": "domain"}
    return Figure(title, traces + drawn, layout, aspect=1.0)


def field(first: np.ndarray, second: np.ndarray, value: np.ndarray, *, line: bool) -> list[dict[str, Any]]:
    """A signed function over the plane: a heat map, and with ``line`` its zero line."""
    reach = 1.25 if line else float(np.nanmax(np.abs(value), initial=0)) or 1.0
    heat = {
        "type": "heatmap",
        "x": first,
        "y": second,
        "z": np.round(value, 3),
        "zmin": -reach,
        "zmax": reach,
        "colorscale": diverging(55 if line else 80),
        "showscale": not line,
        "colorbar": {"thickness": 10, "outlinewidth": 0},
        "zsmooth": "best",
        "hovertemplate": "f = %{z:.3g}<extra></extra>",
    }
    if not line:
        return [heat]
    zero = {
        "type": "contour",
        "x": first,
        "y": second,
        "z": np.round(value, 3),
        "contours": {"coloring": "none", "start": 0, "end": 0, "size": 1, "showlabels": False},
        "line": {"color": "@ink", "width": 1.4},
        "showscale": False,
        "showlegend": False,
        "hoverinfo": "skip",
    }
    return [heat, zero]


def _mosaic(first: np.ndarray, second: np.ndarray, label: np.ndarray, margin: np.ndarray, count: int) -> dict[str, Any]:
    """Classes side by side on one scale: band k holds class k, faint to strong with the margin."""
    scale = []
    for k in range(count):
        scale += [[k / count, class_colour(k, 8)], [(k + 0.999) / count if k < count - 1 else 1, class_colour(k, 55)]]
    return {
        "type": "heatmap",
        "x": first,
        "y": second,
        "z": np.round(label + 0.998 * np.tanh(margin), 3),
        "zmin": 0,
        "zmax": count,
        "colorscale": scale,
        "showscale": False,
        "hoverinfo": "skip",
    }


def _targets(run: Run) -> list[dict[str, Any]]:
    """Points of a regression, coloured by their target on the scale of the function."""
    traces = []
    for part, word in (("train", "training"), ("test", "held out")):
        arrays = run.arrays(f"points.{part}.place", f"points.{part}.label")
        if arrays:
            place, label = arrays
            marker = {"color": label, "colorscale": diverging(), "cmid": 0, "size": 5, "showscale": False}
            marker |= {"line": {"color": "@ink/50", "width": 0.5}, "symbol": "circle" if part == "train" else "diamond"}
            traces.append(_scatter(word, place, marker))
    return traces


def _curve(run: Run) -> Figure:
    x = run.figures["curve.x"]
    styles = {"start": ("@muted", "dot", "at the start"), "end": ("@class-1", "solid", "trained")}
    traces: list[dict[str, Any]] = []
    for part, word, symbol in (("test", "held out", "circle-open"), ("train", "training", "circle")):
        arrays = run.arrays(f"points.{part}.place")
        if arrays:
            marker = {"color": "@class-0", "size": 5, "symbol": symbol, "opacity": 0.6}
            traces.append(_scatter(word, arrays[0], marker))
    for when, (colour, dash, name) in styles.items():
        if f"curve.{when}" in run.figures:
            y = run.figures[f"curve.{when}"]
            line = {"color": colour, "dash": dash, "width": 2.2}
            traces.append({"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "line": line})
    layout = {"xaxis": axis("input"), "yaxis": axis("prediction f")}
    return Figure("Prediction", traces, layout, wide=True, height=420)
