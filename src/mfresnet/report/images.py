"""The sections of an image run's page: errors under each rule, depths and swaps of the blocks, what blocks matter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..digits import format_share
from .headline import STATES, Headline, Number
from .parts import Figure, Section, Table, axis, class_colour, log_axis, plain
from .reading import Run, number
from .tables import configuration, data, reproduction

FEW = 2000  # test images of all seeds, below which digits follow the binomial error
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def is_images(run: Run) -> bool:
    """Whether this is a run of image networks."""
    return run.record.get("kind") == "image"


def image_headline(run: Run) -> Headline:
    """The network and the test error of each rule."""
    config = run.part("config")
    parts = {name: config.get(name) for name in ("model", "train")}
    model, train = ({} if not isinstance(part, Mapping) else part for part in parts.values())
    numbers = []
    for name, rule in rules(run).items():
        mean = rule.get("test_error", {})
        if math.isfinite(number(mean.get("mean"))):
            tested = number(run.part("data").get("n_test")) * number(mean.get("seeds"))
            shown = f"{100 * mean['mean']:.2f}"
            if tested < FEW:
                shown = format_share(mean["mean"], tested).removesuffix(" %")
            numbers.append(Number(f"test error, {name}", shown, "%", interval(mean)))
    wall = run.last("wall_s")
    if math.isfinite(wall):
        numbers.append(Number("wall clock", f"{wall:.3g}", "s"))
    status = run.status if run.status in STATES else "unfinished"
    reason = run.summary.get(f"{run.status}.message")
    sentence = f"{STATES[status]}." + (f" {reason}" if reason else "")
    counts = [
        f"{count} {word}{'' if count == 1 else 's'}" for word in ("epoch", "seed") if (count := train.get(f"{word}s"))
    ]
    network = ", ".join([str(model.get("name", "")), *counts])
    errors = [(one.name.removeprefix("test error, "), f"{one.value}\u00a0%") for one in numbers if one.unit == "%"]
    finding = f"Test error: {', '.join(f'{value} with {name} blocks' for name, value in errors)}." if errors else ""
    title = str(run.part("data").get("name") or run.name)
    return Headline(title, network, status, sentence, tuple(numbers), finding if run.status == "completed" else "")


def rules(run: Run) -> Mapping[str, Mapping[str, Any]]:
    """What the summary says of each rule."""
    summaries = run.summary.get("rules")
    return summaries if isinstance(summaries, Mapping) else {}


def interval(values: Mapping[str, Any], unit: str = "%") -> str:
    """The interval over seeds in words, of an error (per cent) or of a difference (points)."""
    count = f"{values.get('seeds')} seeds" if values.get("seeds") != 1 else "one seed"
    if values.get("low") is None:
        return count
    return f"{count}; 95 % interval {100 * values['low']:.2f} to {100 * values['high']:.2f} {unit}"


def rows_of(run: Run) -> dict[str, list[Mapping[str, Any]]]:
    """The rows of each rule, in order."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in run.metrics:
        if isinstance(row.get("rule"), str):
            groups.setdefault(row["rule"], []).append(row)
    return groups


def errors(run: Run) -> Section | None:
    """Test error and training loss over epochs, every seed a line, and the table of errors and paired differences."""
    by_rule = rows_of(run)
    if not by_rule:
        return None
    figures = [
        _curves("Test error, %", by_rule, "test_error", 100),
        _curves("Training loss", by_rule, "train_loss", 1, log=True),
    ]
    table = [
        (name, _percent(rule["test_error"], "%"), str(rule.get("tested", "")), interval(rule["test_error"]))
        for name, rule in rules(run).items()
    ]
    paired = run.summary.get("paired")
    if isinstance(paired, Mapping):
        table += [
            (
                name,
                _percent(difference, "points"),
                str(difference.get("epoch", "")),
                f"{interval(difference, 'points')}: {difference['verdict']}",
            )
            for name, difference in paired.items()
        ]
    parts: list[Any] = [figure for figure in figures if figure]
    if table:
        parts.append(Table(("rule", "test error", "epoch", "over seeds"), table))
    caption = "A line is a seed; rules with the same seed share their start, their minibatches and their augmentation."
    return Section("Errors", caption, parts)


def depths(run: Run) -> Section | None:
    """The depth coordinate of each block over training, and how often blocks swapped places."""
    figures: list[Figure] = []
    for name, rows in rows_of(run).items():
        moving = [row for row in rows if row.get("t")]
        for stage in range(len(moving[0]["t"][0]) if moving else 0):
            figures += _trajectories(name, stage, moving)
        if any("swaps" in row for row in rows):
            figures += [
                _measure(f"Swaps of neighbours in an epoch, {name}", rows, "swaps", np.sum),
                _measure(f"Distance to the order of the start, {name}", rows, "distance", np.mean),
                _measure(f"Entropy of the places of a block, {name}", rows, "entropy", np.mean),
            ]
    if not figures:
        return None
    caption = (
        "Depth t of each block of the first seed: blocks are swept in this order, and the gap to the next is the step. "
        "Swaps, Kendall's distance (1: reversed) and entropy (0: at rest, 1: anywhere equally) of every seed."
    )
    return Section("Depth of the blocks", caption, figures)


def blocks(run: Run) -> Section | None:
    """What removing, swapping and single paths say about the blocks of the first seed, and how that came to be."""
    by_rule = {name: [row for row in rows if row.get("sensitivity")] for name, rows in rows_of(run).items()}
    by_rule = {name: rows for name, rows in by_rule.items() if rows}
    if not by_rule:
        return None
    measured = {name: rows[-1]["sensitivity"] for name, rows in by_rule.items()}
    titles = {
        "removal": ("Test error without the block, less the whole network's, points", 100),
        "swap": ("The same with the block and the one after it swapped, points", 100),
        "gram_share": ("Share of the block in the trace of the Gram matrix, %", 100),
    }
    parts: list[Any] = []
    for key, (title, scale) in titles.items():
        traces = [
            {
                "type": "bar",
                "name": name,
                "x": list(values[key]),
                "y": [scale * number(value) for value in values[key].values()],
                "marker": {"color": class_colour(index)},
            }
            for index, (name, values) in enumerate(measured.items())
            if values.get(key)
        ]
        if traces:
            parts.append(Figure(title, traces, {"xaxis": axis("", type="category"), "yaxis": axis("")}, wide=True))
    if any(len(rows) > 1 for rows in by_rule.values()):
        parts.append(_paths(by_rule))
    shares = [(name, f"{number(values.get('first_order_share')):.3f}") for name, values in measured.items()]
    parts.append(Table(("rule", "share of f - f_0 explained by paths through a single block"), shares))
    caption = (
        "First seed, on at most 1,000 test images, drawn. An ensemble of shallow networks would have a share of 1 and "
        "no block that matters."
    )
    return Section("What the blocks do", caption, parts)


def _percent(values: Mapping[str, Any], unit: str) -> str:
    mean = number(values.get("mean"))
    return f"{100 * mean:.2f} {unit}" if math.isfinite(mean) else "not finite"


def _over_epochs(
    name: str, rows: Sequence[Mapping[str, Any]], y: list[float], colour: int, dash: int | None = None
) -> dict[str, Any]:
    """A line over epochs in the colour and (by default) the dashes of that number."""
    return {
        "type": "scatter",
        "mode": "lines" if len(rows) > 1 else "markers",
        "name": name,
        "x": [row["epoch"] for row in rows],
        "y": y,
        "line": {
            "color": class_colour(colour),
            "dash": DASHES[(colour if dash is None else dash) % len(DASHES)],
            "width": 1.5,
        },
        "marker": {"color": class_colour(colour)},
    }


def _curves(
    title: str, by_rule: Mapping[str, Sequence[Mapping[str, Any]]], key: str, scale: float, log: bool = False
) -> Figure | None:
    traces = []
    for index, (name, rows) in enumerate(by_rule.items()):
        tested = [row for row in rows if row.get(key)]
        for seed in range(len(tested[0][key]) if tested else 0):
            traces.append(
                _over_epochs(plain(name), tested, [scale * number(row[key][seed]) for row in tested], index)
                | {"legendgroup": name, "showlegend": seed == 0}
            )
    values = [value for trace in traces for value in trace["y"]]
    layout = {"xaxis": axis("epoch"), "yaxis": log_axis("", values) if log else axis(""), "showlegend": True}
    return Figure(title, traces, layout) if traces else None


def _paths(by_rule: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """The share of single-block paths over training."""
    traces = [
        _over_epochs(plain(name), rows, [number(row["sensitivity"].get("first_order_share")) for row in rows], index)
        | {"mode": "lines+markers"}
        for index, (name, rows) in enumerate(by_rule.items())
    ]
    layout = {"xaxis": axis("epoch"), "yaxis": axis(""), "showlegend": True}
    return Figure("Share of f - f_0 explained by paths through a single block", traces, layout)


def _trajectories(name: str, stage: int, rows: Sequence[Mapping[str, Any]]) -> list[Figure]:
    count = len(rows[0]["t"][0][stage])
    traces = [
        _over_epochs(
            f"block {block + 1}", rows, [number(row["t"][0][stage][block]) for row in rows], block, block // 10
        )
        for block in range(count)
    ]
    layout = {"xaxis": axis("epoch"), "yaxis": axis("t", range=[0, 1])}
    return [Figure(f"Depth t of the blocks of stage {stage + 1}, {name}", traces, layout)] if traces else []


def _measure(title: str, rows: Sequence[Mapping[str, Any]], key: str, over_stages: Any) -> Figure:
    rows = [row for row in rows if row.get(key)]
    traces = [
        _over_epochs(
            f"seed {seed + 1} of {len(rows[0][key])}",
            rows,
            [float(over_stages([number(value) for value in row[key][seed]])) for row in rows],
            seed,
            0,
        )
        for seed in range(len(rows[0][key]) if rows else 0)
    ]
    return Figure(title, traces, {"xaxis": axis("epoch"), "yaxis": axis("", rangemode="tozero")})


IMAGE_SECTIONS = [errors, depths, blocks, configuration, data, reproduction]
