"""The Gram matrices over training: smallest eigenvalues, spectra, the loss under its certificate, the regime."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..digits import format_plain, format_share, format_with_error
from .parts import Facts, Figure, Section, axis, curve
from .reading import Run, number
from .training import clocks

LOG = {"type": "log", "dtick": 1, "exponentformat": "power"}
PARTS = {"total": ("G = α²G₁ + G₂", "@ink"), "head": ("G₂, head", "@class-1"), "encoder": ("G₁, encoder", "@class-0")}


def kernel(run: Run) -> Section | None:
    """Gram matrices of the run, where they were measured."""
    rows = rows_with(run, "gram.lambda_min.total")
    if len(rows) == 0:
        return None
    points = run.summary.get("gram.points")
    lowest = _lowest(run, rows)
    caption = "Gram matrices of encoder and head, in float64. "
    if lowest:
        caption += (
            "Bars are error bounds of the smallest eigenvalues. "
            "An eigenvalue that cannot be told from zero is drawn at its bound."
        )
    else:
        caption += "No smallest eigenvalue was above its error bound at any recorded time."
    if run.summary.get("regime.verdict"):
        caption += " The kernel change is |G − G(0)|/|G(0)|, the encoder's share that of the dissipation."
    if run.summary.get("gram.whole") is False and points:
        caption += f" Taken on {points} of the training points: those of the whole set are not larger."
    caption += "".join(f" Note: {note}." for note in run.summary.get("gram.notes") or ())
    if assumption := run.summary.get("convergence.assumption"):
        caption += f" The bound of the loss assumes that {assumption}."
    figures = [figure for figure in (lowest, _certificate(run, rows), _spectrum(rows), _change(rows)) if figure]
    facts = _facts(run)
    parts = [*figures, *([Facts(facts)] if facts else [])]
    return Section("Gram matrices and regime", caption, parts, _finding(run))


def _finding(run: Run) -> str:
    """The regime, and whether the smallest eigenvalue is above its error."""
    verdict, change = run.summary.get("regime.verdict"), run.last("regime.kernel_change")
    lowest, error = (run.last(f"gram.{key}.total") for key in ("lambda_min", "error"))
    parts = []
    if verdict and math.isfinite(change):
        parts.append(f"The Gram matrix changed by {100 * change:.0f} % ({verdict})")
    if math.isfinite(lowest) and math.isfinite(error):
        known = format_with_error(lowest, error) if lowest > error else "zero within its error"
        parts.append(f"its smallest eigenvalue is {known}" if parts else f"The smallest eigenvalue of G is {known}")
    return "; ".join(parts) + "." if parts else ""


def rows_with(run: Run, key: str) -> list[Mapping[str, Any]]:
    """The rows that hold a key."""
    return [row for row in run.metrics if row.get(key) is not None]


def clock(rows: list[Mapping[str, Any]]) -> tuple[str, np.ndarray]:
    """Training time where the rule has one, else steps: (axis title, values)."""
    key = "time" if all("time" in row for row in rows) else "step"
    return ("training time" if key == "time" else "step"), np.array([number(row.get(key)) for row in rows])


def column(rows: list[Mapping[str, Any]], key: str) -> np.ndarray:
    """One key over these rows, NaN where absent."""
    return np.array([number(row.get(key)) for row in rows])


def _lowest(run: Run, rows: list[Mapping[str, Any]]) -> Figure | None:
    """Smallest eigenvalues of the parts for which at least one is above its error; the others are rounding."""
    title, x = clock(rows)
    data = []
    for part, (name, colour) in PARTS.items():
        value, error = column(rows, f"gram.lambda_min.{part}"), column(rows, f"gram.error.{part}")
        if not np.any((error > 0) & (value > error)):
            continue
        data.append(
            curve(
                name,
                x,
                np.maximum(value, error),
                colour,
                size=5,
                hover="%{customdata:.3g}",
                customdata=value,
                error_y={"array": error, "visible": True, "width": 2, "thickness": 1},
            )
        )
    if not data:
        return None
    layout: dict[str, Any] = {"xaxis": axis(title), "yaxis": axis("", **LOG), "hovermode": "x unified"}
    limit, error = (number(run.summary.get(f"gram.limit.{key}")) for key in ("lambda_min", "error"))
    if limit > (error if math.isfinite(error) else 0):
        line = {"type": "scatter", "mode": "lines", "name": "G₂ of the limit at the start", "x": x[[0, -1]]}
        data.append(line | {"y": [limit, limit], "line": {"color": "@muted", "dash": "dot", "width": 1.5}})
    return Figure("Smallest eigenvalues", data, layout)


def _certificate(run: Run, rows: list[Mapping[str, Any]]) -> Figure | None:
    bound = run.summary.get("convergence.certificate")
    if not isinstance(bound, list) or len(bound) != len(rows):
        return None
    title, x = clock(rows)
    _, against = clocks(run)["training time"]
    data = [
        curve("training loss", against, run.column("train.loss"), "@class-0"),
        curve("certificate", x, np.array([number(b) for b in bound]), "@ink", "dash", width=1.5, size=4),
        *(curve(name, xs, ys, colour, "dot", width=1.5) for name, xs, ys, colour in _comparisons(run)),
    ]
    layout = {"xaxis": axis(title), "yaxis": axis("", **LOG), "hovermode": "x unified"}
    return Figure("Loss under its certificate", data, layout)


def _comparisons(run: Run) -> list[tuple[str, np.ndarray, np.ndarray, str]]:
    comparisons = []
    linear = run.extra
    if "linear.time" in linear:
        comparisons.append(("linearised at the start", linear["linear.time"], linear["linear.train_loss"], "@class-2"))
    if run.control:
        time = np.array([number(row.get("time")) for row in run.control])
        loss = np.array([number(row.get("train.loss")) for row in run.control])
        if np.isfinite(time).any():
            comparisons.append(("encoder frozen (control)", time, loss, "@class-1"))
    return comparisons


def _spectrum(rows: list[Mapping[str, Any]]) -> Figure | None:
    rows = [row for row in rows if isinstance(row.get("gram.spectrum.total"), list)]
    if len(rows) < 2:
        return None
    spectra = np.array([[number(v) for v in row["gram.spectrum.total"]] for row in rows])
    floor = max(np.nanmax(spectra) * 1e-16, 1e-300)
    shown = sorted({0, len(rows) // 3, 2 * len(rows) // 3, len(rows) - 1})
    share = np.linspace(0, 1, spectra.shape[1])
    title, x = clock(rows)
    data = [
        curve(
            f"{title} {format_plain(x[i])}",
            share,
            np.maximum(spectra[i], floor),
            f"@ramp-{min(4, round(4 * j / max(1, len(shown) - 1)))}",
        )
        for j, i in enumerate(shown)
    ]
    layout = {"xaxis": axis("share of eigenvalues below"), "yaxis": axis("", **(LOG | {"dtick": 3}))}
    return Figure("Spectrum of G", data, layout)


def _change(rows: list[Mapping[str, Any]]) -> Figure | None:
    title, x = clock(rows)
    series = {
        "kernel change": ("regime.kernel_change", "@class-0", "solid"),
        "alignment with y yᵀ": ("regime.alignment", "@class-1", "dash"),
        "encoder's share": ("gram.encoder_share", "@class-2", "dot"),
    }
    data = [
        curve(name, x, column(rows, key), colour, dash, size=4)
        for name, (key, colour, dash) in series.items()
        if np.isfinite(column(rows, key)).any()
    ]
    layout = {"xaxis": axis(title), "yaxis": axis("", rangemode="tozero"), "hovermode": "x unified"}
    return Figure("Kernel change, alignment, encoder's share", data, layout) if data else None


def _facts(run: Run) -> list[tuple[str, str]]:
    summary, facts = run.summary, []
    if summary.get("regime.verdict"):
        facts.append(("regime", f"{summary['regime.verdict']} (kernel change below 0.1 is lazy, above 0.5 features)"))
    texts = {
        "gram.limit.lower_bound": "lower bound of λ_min(G₂) at the start (Lemma 4)",
        "gram.r_max": "largest head movement with λ_min(G₂) ≥ λ₀/2",
        "landscape.lowest_encoder": "most negative first variation, encoder",
        "landscape.lowest_head": "most negative first variation, head",
        "paths.first_order_share": "share of f − f₀ explained by single-block paths",
        "linearised.test.error": "test error of the linearised model",
        "control.test.error": "test error with the encoder frozen",
    }
    for key, text in texts.items():
        value = number(summary.get(key))
        if math.isfinite(value) and (value > 0 or key != "gram.limit.lower_bound"):  # a bound of 0 is none
            errors = run.classification and key.endswith("test.error")
            shown = format_share(value, number(summary.get("test.n"))) if errors else format_plain(value)
            facts.append((text, "none" if value < 0 and key.endswith("share") else shown))
    residuals = [number(row.get("gram.residual")) for row in run.metrics if row.get("gram.residual") is not None]
    if residuals:
        facts.append(("largest residual of the dissipation identity", f"{max(residuals):.1e}"))
    share = number(summary.get("diagnostics.share"))
    if math.isfinite(share):
        facts.append(("share of the wall clock spent on diagnostics", f"{100 * share:.0f} %"))
    return facts
