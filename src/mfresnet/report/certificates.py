"""What the run is certified for: bounds beside the test error, their terms, their course over training time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

import numpy as np

from ..digits import format_bound, format_plain, format_share, format_with_error
from .parts import Figure, Fold, Notes, Section, Table, axis, curve, log_axis, plain
from .reading import Run, number

NAMES = {
    "path": "path of the Langevin chain, all points",
    "pac_bayes": "PAC-Bayes, prior without data",
    "held_out_part": "held-out part of the training points",
    "pac_bayes_learned": "PAC-Bayes, prior from a part of the data",
    "gibbs": "PAC-Bayes, mean over Q",
    "kl_ball": "KL ball (Rademacher)",
    "theorem6": "Theorem 6, constant measured",
    "kernel": "kernel at the start",
    "held_out": "held-out test points",
}


def certificates(run: Run) -> Section | None:
    """The section of ``certificates.json``, where the run has one."""
    record = run.certificates
    entries = record.get("certificates")
    if not isinstance(entries, Mapping) or not (entries or record.get("refused")):
        return None
    ordered = [(name, entries[name]) for name in NAMES if isinstance(entries.get(name), Mapping)]
    parts: list[Any] = []
    if ordered:
        parts.append(_table(record, ordered))
        parts += _tightness(record)
    parts += [
        _waterfall(NAMES[name], one)
        for name, one in ordered
        if name.startswith(("path", "pac_bayes")) and one.get("terms")
    ]
    if course := _course(record):
        parts.append(course)
    notes = [f"{NAMES[name]}: {one.get('reading')}" for name, one in ordered]
    refused = record.get("refused")
    if isinstance(refused, Mapping):
        notes += [f"{NAMES.get(name, name)} is refused: {reason}" for name, reason in refused.items()]
    parts.append(Notes(notes))
    parts += [Fold(f"Hypotheses: {NAMES[name]}", _hypotheses(one)) for name, one in ordered]
    delta = number(record.get("delta"))
    caption = (
        f"Upper bounds of the error on new data, each with probability {100 * (1 - delta):g} %. A bound at or above "
        "guessing is vacuous. Test points chose nothing: only the held-out row and the test errors use them."
    )
    return Section("Certificates", caption, parts, _finding(ordered))


def _finding(entries: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """The sharpest bound that is better than guessing, beside held-out points that of the training points, and how
    many bounds are vacuous."""
    informative = [(number(one.get("value")), name, one) for name, one in entries if not one.get("vacuous")]
    if not informative:
        return "No bound is better than guessing." if entries else ""
    kinds = ([e for e in informative if (e[1] == "held_out") == held_out] for held_out in (False, True))
    best = sorted(min(kind, key=lambda entry: entry[:2]) for kind in kinds if kind)
    said = ", ".join(map(_say, best))
    rest = len(entries) - len(informative)
    vacuous = f"; {rest} of {len(entries)} bounds are vacuous" if rest else ""
    return f"Error on new data at most {said}{vacuous}."


def _say(entry: tuple[float, str, Mapping[str, Any]]) -> str:
    value, name, one = entry
    return f"{format_bound(value)} ({NAMES[name]}{', estimated' if one.get('status') == 'estimated' else ''})"


def _table(record: Mapping[str, Any], entries: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    rows = []
    for name, one in entries:
        found_details = one.get("details")
        details = found_details if isinstance(found_details, Mapping) else {}
        own = number(details.get("test_error_of_draws"))
        one_chain = name == "path" and details.get("chains") == 1
        if not math.isfinite(own) and (one_chain or name in ("kl_ball", "theorem6", "held_out")):
            own = number(record.get("test.error"))
        rows.append(
            (
                NAMES[name],
                format_bound(number(one.get("value")), 3),
                format_share(own, number(record.get("test.n")) if "test.n" in record else math.nan),
                "vacuous" if one.get("vacuous") else "informative",
                str(one.get("status") or one.get("standing") or ""),
                str(one.get("certifies", "")),
            )
        )
    return Table(("bound", "error at most", "test error", "verdict", "hypotheses", "of what"), rows)


def _tightness(record: Mapping[str, Any]) -> list[Table]:
    """How far the bound of the head's KL ball is from the number that it bounds, where both are there."""
    details = (record["certificates"].get("kl_ball") or {}).get("details") or {}
    bound, exact, error = (number(details.get(f"rademacher.head{end}")) for end in ("", ".exact", ".exact.error"))
    if not (math.isfinite(bound) and exact > 0):
        return []
    row = (format_plain(bound), format_with_error(exact, error), format_plain(bound / exact))
    return [Table(("Rademacher complexity of the head's KL ball: bound", "exact, by duality", "ratio"), [row])]


def _waterfall(title: str, one: Mapping[str, Any]) -> Figure:
    names = ["<br>".join(wrap(plain(name), 14)) for name, _ in one["terms"]]
    values = [100 * number(value) for _, value in one["terms"]]
    data = [
        {
            "type": "waterfall",
            "x": [*names, "certificate"],
            "y": [*values, 0],
            "measure": ["relative"] * len(values) + ["total"],
            "text": [f"{v:.3g}" for v in [*values, sum(values)]],
            "textposition": "outside",
            "cliponaxis": False,
            "connector": {"line": {"color": "@muted", "width": 1}},
            "increasing": {"marker": {"color": "@class-0"}},
            "decreasing": {"marker": {"color": "@class-2"}},
            "totals": {"marker": {"color": "@ink"}},
            "hovertemplate": "%{x}: %{y:.3g} %<extra></extra>",
            "showlegend": False,
        }
    ]
    top = max(np.cumsum(values).max(), 1e-9)
    layout = {
        "margin": {"b": 72},
        "xaxis": axis("", type="category", tickangle=0),
        "yaxis": axis("error, %", range=[0, 1.15 * top]),
    }
    return Figure(f"Terms: {title}", data, layout)


def _course(record: Mapping[str, Any]) -> Figure | None:
    rows = [row for row in record.get("over_time") or [] if isinstance(row, Mapping)]
    if len(rows) < 2:
        return None
    series = {
        "certificate": ("value", "@ink", "solid"),
        "drawn networks": ("drawn.train.error", "@class-2", "dot"),
        "training": ("train.error", "@class-0", "solid"),
        "held out": ("test.error", "@class-1", "dash"),
    }
    x = [number(row.get("time")) for row in rows]
    sizes = [f"k′ = {number(row.get('heads')):g}, N′ = {number(row.get('residuals')):g}" for row in rows]
    data = [
        curve(
            name,
            x,
            [100 * number(row.get(key)) for row in rows],
            colour,
            dash,
            size=4,
            hover="%{y:.3g} %" + (" (%{customdata})" if key == "value" else ""),
            customdata=sizes,
        )
        for name, (key, colour, dash) in series.items()
    ]
    layout = {
        "xaxis": log_axis("training time", x),
        "yaxis": axis("error, %", rangemode="tozero"),
        "hovermode": "x unified",
    }
    return Figure("PAC-Bayes certificate over training time", data, layout)


def _hypotheses(one: Mapping[str, Any]) -> Table:
    rows = []
    for h in one.get("hypotheses") or []:
        error = number(h.get("error"))
        rows.append(
            (
                str(h.get("statement", "")),
                str(h.get("status", "")),
                f"{error:.2g}" if math.isfinite(error) else "",
                str(h.get("note", "")),
            )
        )
    return Table(("hypothesis", "status", "error", "note"), rows)
