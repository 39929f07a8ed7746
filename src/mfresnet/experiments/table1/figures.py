"""The figures of the table: errors, and how the depths of the blocks moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..experiment import Plot, Row

COLOURS = 10


def errors(points: Sequence[Row]) -> Plot:
    """The error of each rule in each row, with its interval over seeds and the reported figure."""
    data: list[dict[str, Any]] = []
    for index, rule in enumerate(dict.fromkeys(point["rule"] for point in points)):
        own = [point for point in points if point["rule"] == rule]
        rows, colour = [point["row"] for point in own], f"@class-{index}"
        half = [None if p["low"] is None else p["high"] - p["mean"] for p in own]
        marker = {"color": colour, "size": 10}
        data.append(
            {"x": rows, "y": [p["mean"] for p in own], "error_y": {"type": "data", "array": half}, "mode": "markers"}
            | {"name": rule, "offsetgroup": rule, "marker": marker}
        )
        if any(point["reported"] is not None for point in own):
            reported = [point["reported"] for point in own]
            data.append(
                {"x": rows, "y": reported, "mode": "markers", "name": f"{rule}, reported", "offsetgroup": rule}
                | {"marker": marker | {"symbol": "line-ew-open", "size": 14}}
            )
    axes = {"scattermode": "group", "xaxis": {"type": "category"}, "yaxis": {"title": {"text": "test error, %"}}}
    return Plot("test error of each rule, 95 % interval over seeds", data, {**axes, "showlegend": True})


def movements(rows: Sequence[Row]) -> list[Plot]:
    """Of each row and rule whose blocks move: depths of the first seed, stage by stage, and swaps of every seed."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["row"], row["rule"]), []).append(row)
    plots = []
    for (name, rule), seeds in groups.items():
        depths = seeds[0].get("t_by_epoch") or []
        for stage in range(len(depths[0]) if depths else 0):
            blocks = [
                _line(f"block {block + 1}", block, [epoch[stage][block] for epoch in depths])
                for block in range(len(depths[0][stage]))
            ]
            title = f"{name}, {rule}: depth t of the blocks of stage {stage + 1}, seed {seeds[0]['seed']}"
            if blocks:
                plots.append(Plot(title, blocks, _axes("t", range=[0, 1])))
        if any(row.get("swaps_by_epoch") for row in seeds):
            lines = [
                _line(f"seed {row['seed']}", index, row.get("swaps_by_epoch") or []) for index, row in enumerate(seeds)
            ]
            plots.append(Plot(f"{name}, {rule}: swaps of neighbours in an epoch", lines, _axes("", rangemode="tozero")))
    return plots


def _line(name: str, index: int, values: Sequence[float]) -> dict[str, Any]:
    colour = f"@class-{index % COLOURS}"
    points = {
        "x": list(range(1, len(values) + 1)),
        "y": list(values),
        "mode": "lines" if len(values) > 1 else "markers",
    }
    return points | {"name": name, "line": {"color": colour, "width": 1.5}, "marker": {"color": colour}}


def _axes(y: str, **more: Any) -> dict[str, Any]:
    return {"xaxis": {"title": {"text": "epoch"}}, "yaxis": {"title": {"text": y}, **more}, "showlegend": True}
