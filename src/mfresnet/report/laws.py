"""How far the laws moved: KL to the start with its error band, per layer, and displacements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..digits import format_plain, format_with_error
from .kernel import clock, column, rows_with
from .parts import Facts, Figure, Section, axis, curve
from .reading import Run, number

PARTS = {"head": ("head, KL(τₜ‖τ₀)", "@class-1"), "encoder": ("encoder, KL(νₜ‖ν₀)", "@class-0")}


def laws(run: Run) -> Section | None:
    """KL and displacement over training."""
    rows = rows_with(run, "kl.head.value") or rows_with(run, "kl.encoder.value")
    figures = [figure for figure in (_divergence(rows), _layers(rows), _displacement(run)) if figure]
    if not figures:
        return None
    if rows:
        caption = (
            "KL divergence of the laws to their start, from probe particles carried along by the flow; bands are two "
            "standard errors. The encoder's is the mean over layers."
        )
    else:
        caption = (
            "This rule is not a flow of the laws, so their KL divergence is not known exactly. Shown are displacements "
            "of the network's own particles and a nearest-neighbour estimate, which is biased low."
        )
    facts = _facts(run, rows)
    parts = [*figures, *([Facts(facts)] if facts else [])]
    return Section("How far the laws moved", caption, parts, _finding(rows))


def _finding(rows: list[Mapping[str, Any]]) -> str:
    """KL at the end, or that it cannot be told from zero."""
    known = []
    for part in PARTS if rows else ():
        value, error = (number(rows[-1].get(f"kl.{part}.{key}")) for key in ("value", "stderr"))
        if np.isfinite(value):
            small = f"at most {format_plain(value + 2 * error, 1)}" if abs(value) <= 2 * error else ""
            known.append(f"{small or format_with_error(value, error)} nats in the {part}")
    return f"KL divergence to the start: {' and '.join(known)}." if known else ""


def _divergence(rows: list[Mapping[str, Any]]) -> Figure | None:
    if len(rows) < 2:
        return None
    title, x = clock(rows)
    data: list[dict[str, Any]] = []
    for part, (name, colour) in PARTS.items():
        value, error = column(rows, f"kl.{part}.value"), column(rows, f"kl.{part}.stderr")
        if not np.isfinite(value).any():
            continue
        edge = {"type": "scatter", "mode": "lines", "x": x, "showlegend": False, "hoverinfo": "skip"}
        data += [
            edge | {"y": value + 2 * error, "line": {"width": 0, "color": f"{colour}/20"}},
            edge
            | {
                "y": np.maximum(value - 2 * error, 0),
                "line": {"width": 0, "color": f"{colour}/20"},
                "fill": "tonexty",
                "fillcolor": f"{colour}/20",
            },
            curve(name, x, value, colour, hover="%{y:.2g} ± %{customdata:.1g}", customdata=error),
        ]
    layout = {"xaxis": axis(title), "yaxis": axis("nats", rangemode="tozero"), "hovermode": "x unified"}
    return Figure("KL to the start", data, layout) if data else None


def _layers(rows: list[Mapping[str, Any]]) -> Figure | None:
    rows = [row for row in rows if isinstance(row.get("kl.encoder.layers"), list) and len(row["kl.encoder.layers"]) > 1]
    if len(rows) < 2:
        return None
    title, x = clock(rows)
    values = np.array([[number(v) for v in row["kl.encoder.layers"]] for row in rows]).T
    depth = (np.arange(len(values)) + 0.5) / len(values)
    data = [
        {
            "type": "heatmap",
            "x": x,
            "y": depth,
            "z": values,
            "colorscale": [[i / 4, f"@ramp-{i}"] for i in range(5)],
            "colorbar": {"thickness": 10, "outlinewidth": 0, "title": {"text": "nats", "side": "top"}},
            "hovertemplate": title + " %{x:.3g}, depth %{y:.2f}: %{z:.3g}<extra></extra>",
        }
    ]
    return Figure("KL of each layer", data, {"xaxis": axis(title), "yaxis": axis("depth s")})


def _displacement(run: Run) -> Figure | None:
    rows = rows_with(run, "displacement.encoder") or rows_with(run, "displacement.head")
    if len(rows) < 2:
        return None
    title, x = clock(rows)
    series = {
        "head particles": ("displacement.head", "@class-1", "solid"),
        "encoder particles": ("displacement.encoder", "@class-0", "solid"),
        "states, largest": ("displacement.state", "@class-2", "dash"),
        "bound on states, α√(2 KL)": ("check.features", "@muted", "dot"),
    }
    data = [
        curve(name, x, column(rows, key), colour, dash)
        for name, (key, colour, dash) in series.items()
        if np.isfinite(column(rows, key)).any()
    ]
    layout = {"xaxis": axis(title), "yaxis": axis("", rangemode="tozero"), "hovermode": "x unified"}
    return Figure("Distance from the start", data, layout)


def _facts(run: Run, rows: list[Mapping[str, Any]]) -> list[tuple[str, str]]:
    facts = []
    for part, (name, _) in PARTS.items():
        if rows and np.isfinite(number(rows[-1].get(f"kl.{part}.value"))):
            last = rows[-1]
            value, error = (number(last.get(f"kl.{part}.{key}")) for key in ("value", "stderr"))
            check, spread = (number(last.get(f"kl.{part}.{key}")) for key in ("check", "check_stderr"))
            solver = number(run.summary.get(f"kl.{part}.solver_error"))
            known = f"{format_with_error(value, error)} (standard error of the probes)"
            if np.isfinite(solver):
                known += f", solver error {solver:.1g} (estimated from a coarser solution)"
            if np.isfinite(check):
                known += f"; E exp(−R) = {format_with_error(check, spread)}, which is 1 in theory"
            facts.append((name, known))
        estimate = number(run.summary.get(f"kl.{part}.nearest_neighbour"))
        if np.isfinite(estimate):
            seen = format_plain(estimate) if estimate > 0 else "0: no movement of the law is seen"
            facts.append((f"{name}, nearest neighbours (biased low)", seen))
        distance = number(run.summary.get(f"w2.{part}"))
        if np.isfinite(distance):
            facts.append((f"W₂ between the particles at start and end, {part}", format_plain(distance)))
    checks = {"check.talagrand_head": "Talagrand, head", "check.talagrand_encoder": "Talagrand, encoder"}
    checks |= {"check.features_hold": "movement of the states"}
    for key, name in checks.items():
        values = [row[key] for row in rows if isinstance(row.get(key), bool)]
        if values:
            facts.append((f"inequality: {name}", f"holds at {sum(values)} of {len(values)} recorded times"))
    return facts
