"""The sections of a sweep's page: its verdict with figures and fit, every cell, the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from ..digits import format_with_error
from ..errors import MfresnetError
from ..experiments import entry
from .headline import STATES, Headline, Number
from .parts import Facts, Figure, Fold, Notes, Section, Table
from .reading import Run, flat, number
from .tables import format_value, reproduction

MOST_LETTERS = 160  # of a verdict that heads the page
MOST_ROWS = 400  # of a table in the page; cells.csv has them all


def sweep_headline(run: Run) -> Headline:
    """What was swept, how it ended, how many cells there are."""
    name, summary = str(run.record.get("experiment")), run.summary
    total, done, bad, seconds = (number(summary.get(key)) for key in ("cells", "done", "diverged", "seconds"))
    numbers = []
    if done >= 0:
        numbers.append(Number("cells done", f"{done:g}", remark=f"of {total:g}; {bad:g} diverged"))
    fit = run.result.get("fit")
    for key in ("slope", "slope_head", "slope_encoder"):
        if isinstance(fit, Mapping) and isinstance(fit.get(key), int | float):
            half = number(fit.get(key.replace("slope", "half_width_95")))
            numbers.append(Number(key.replace("_", " "), format_with_error(fit[key], half)))
    if seconds >= 0:
        numbers.append(Number("wall clock", f"{seconds:.3g}", "s"))
    status = run.status if run.status in STATES else "unfinished"
    verdict = str(run.result.get("verdict") or "").replace("+-", "±")
    finding = verdict[:1].upper() + verdict[1:] if len(verdict) <= MOST_LETTERS else ""
    return Headline(f"{name}: {_summary(name)}", "", status, f"{STATES[status]}.", tuple(numbers), finding)


def _summary(name: str) -> str:
    try:
        return entry(name).summary
    except MfresnetError:
        return "an experiment of another version"


def result(run: Run) -> Section | None:
    """Verdict, figures, fitted numbers and the points behind them."""
    stored = run.result
    if not stored:
        return None
    figures = [
        Figure(plot["title"], plot["data"], plot["layout"], aspect=plot.get("aspect"), height=420, wide=True)
        for plot in stored.get("figures", [])
    ]
    facts = [(name.replace("_", " "), format_value(_short(value))) for name, value in flat(stored.get("fit", {}))]
    parts: list[Any] = [*figures, *([Facts(facts)] if facts else [])]
    if stored.get("notes"):
        parts.append(Notes([str(note) for note in stored["notes"]]))
    if stored.get("points"):
        parts.append(Fold(f"The {len(stored['points'])} points", _table(stored["points"])))
    return Section("Result", str(stored.get("verdict", "")), parts)


def cells(run: Run) -> Section | None:
    """Every cell, as far as a page can hold them."""
    file = run.path / "cells.parquet" if run.path else None
    if file is None or not file.is_file():
        return None
    rows = pl.read_parquet(file).to_dicts()
    more = f"; the first {MOST_ROWS} here, all in cells.csv" if len(rows) > MOST_ROWS else ""
    return Section("Cells", "", [Fold(f"All {len(rows)} cells{more}", _table(rows))])


def settings(run: Run) -> Section | None:
    """What differs from the defaults, then every setting."""
    values = dict(flat(run.part("settings")))
    try:
        defaults = dict(flat(entry(str(run.record.get("experiment"))).settings_type()().model_dump()))
    except MfresnetError:
        defaults = {}
    changed = [
        (name, format_value(value), format_value(defaults.get(name)))
        for name, value in values.items()
        if format_value(defaults.get(name)) != format_value(value)
    ]
    parts: list[Any] = [Table(("setting", "value", "default"), changed, (0, 1, 2))] if changed else []
    rows = [(name, format_value(value)) for name, value in values.items()]
    parts.append(Fold(f"All {len(rows)} settings", Table(("setting", "value"), rows, (0, 1))))
    return Section("Settings", "What differs from the defaults." if changed else "All defaults.", parts)


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    head = list(dict.fromkeys(name for row in rows for name in row))
    return Table(head, [[format_value(_short(row.get(name))) for name in head] for row in rows[:MOST_ROWS]])


def _short(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_short(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


SWEEP_SECTIONS = [result, cells, settings, reproduction]
