"""The rate experiment of [C24]: test error against the number of training points (section 5 of arXiv 2403.09889).

Two spirals of one turn, d = 2, L = 10, tanh, M = K = 20, alpha = 10, beta = 20, Adam 0.01, full batch, 1000 steps,
n_test = 1024. A power of n is fitted to the errors of each seed; the slope is the mean over seeds with Student's
interval over them. The theory bounds the error by n^(-1/2). [C24] fits the means over seeds and reports the slope -1.02
(p = 9e-6; figures recalled from the paper, which decide nothing here); that fit is given beside ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..digits import format_with_error
from ..stats import PowerLaw, finite_values, power_law, student
from .experiment import Plot, Result, Row, completed_rows, divergence_notes
from .settings import RateSettings
from .training import TrainingExperiment, check_grid

RECALLED = {"slope": -1.02, "p": 9e-6, "source": "[C24], recalled from the paper, not read again"}


class Rate(TrainingExperiment):
    """The slope of log error against log n, with Student's 95 % interval over the slopes of the seeds.

    A cell of a classification without a single mistake on its n_test test points counts as half a mistake, that is, an
    error of 1/(2 n_test); how many cells that was is in the result. Passed: the interval lies below 0, the error falls;
    failed: it lies above 0; neither: it holds 0, or one seed has none.
    """

    name = "rate"
    question = "How does the test error fall with the number of training points?"
    settings: RateSettings
    owned: ClassVar = {"data.n": "give --n"}

    def cells(self) -> list[dict[str, Any]]:
        sizes = self.settings.n
        return check_grid([{"data.n": n, "seed": seed} for n in sizes for seed in self.settings.seed_range()])

    def measure(self, training, outcome) -> dict[str, Any]:
        task = training.split.train.task
        return {"test.n": len(training.split.test.x), "task": task}

    def analyse(self, rows: Sequence[Row]) -> Result:
        good = completed_rows(rows)
        sizes = sorted({row["data.n"] for row in good})
        seeds = sorted({row["seed"] for row in good})
        if not good:
            return Result("Every cell diverged: nothing can be fitted.", None, notes=divergence_notes(rows))
        regression = good[0]["task"] == "regression"
        # one row a seed, one column a size; NaN where a cell diverged
        table = np.full((len(seeds), len(sizes)), np.nan)
        for row in good:
            table[seeds.index(row["seed"]), sizes.index(row["data.n"])] = row["test.error"]
        floor = 0.0 if regression else 1 / (2 * good[0]["test.n"])
        zeros = int(np.sum(table == 0))
        counted = np.where(table == 0, floor, table)
        mean, spread = _mean(counted), np.nanstd(counted, axis=0)
        of_means = _fit(sizes, mean)
        slopes = finite_values([_fit(sizes, row).slope for row in counted])
        slope, half = student(slopes)
        points = [
            {"data.n": n, "test.error": float(m), "std": float(s), "zeros": int(np.sum(column == 0))}
            for n, m, s, column in zip(sizes, mean, spread, table.T, strict=True)
        ]
        notes = divergence_notes(rows)
        if zeros and regression:
            notes.append(f"{zeros} of {len(good)} cells have an error of exactly 0, which enters the mean as it is.")
        elif zeros:
            notes.append(
                f"{zeros} of {len(good)} cells made no mistake on {good[0]['test.n']} test points and count as half a "
                f"mistake, {floor:.3g}."
            )
        s, plain = self.settings, RateSettings()
        papers = (s.data, s.model, s.train) == (plain.data, plain.model, plain.train)
        return Result(
            verdict=_sentence(slope, half, len(slopes))
            + (f"; [C24] reports {RECALLED['slope']}, as recalled" if papers and len(slopes) else ""),
            passed=bool(slope < 0) if abs(slope) > half else None,
            fit={
                "slope": slope,
                "half_width_95": half,
                "interval_95": [slope - half, slope + half],
                "seeds": len(slopes),
                "fit_of_means": {name: getattr(of_means, name) for name in ("slope", "intercept", "stderr", "p")},
                "zero_cells": zeros,
                **({"reported": RECALLED} if papers else {}),
            },
            points=points,
            figures=[_figure(sizes, seeds, counted, mean, of_means, regression)],
            notes=notes,
        )


def _mean(table: np.ndarray) -> np.ndarray:
    """Mean over seeds, NaN where no seed is left."""
    there = np.isfinite(table)
    total = np.where(there, table, 0.0).sum(axis=0)
    return np.divide(total, there.sum(axis=0), out=np.full(table.shape[1], np.nan), where=there.any(axis=0))


def _fit(sizes: Sequence[int], mean: np.ndarray) -> PowerLaw:
    there = np.isfinite(mean) & (mean > 0)
    return power_law(np.asarray(sizes, float)[there], mean[there])


def _sentence(slope: float, half: float, seeds: int) -> str:
    """The power of n, as far as the cells determine it."""
    if not seeds:
        return "no power of n can be fitted: it takes a seed with two sizes or more and test errors above 0"
    if seeds == 1:
        return f"test error ~ n^{slope:.3f}, of one seed, which has no interval"
    return f"test error ~ n^({format_with_error(slope, half, '+-')}), 95 % over {seeds} seeds"


def _figure(sizes, seeds, table, mean, fit, regression: bool) -> Plot:
    line, name = fit(np.asarray(sizes, float)), f"n^{fit.slope:.2f} (fit of means)"
    word = "root mean squared test error" if regression else "test error"
    data = [
        {"x": sizes, "y": row, "mode": "markers", "name": f"seed {seed}", "marker": {"color": "@muted", "size": 6}}
        for seed, row in zip(seeds, table, strict=True)
    ]
    data += [
        {"x": sizes, "y": mean, "mode": "markers", "name": "mean", "marker": {"color": "@class-0", "size": 10}},
        {
            "x": sizes,
            "y": line,
            "mode": "lines",
            "name": name,
            "line": {"color": "@class-1"},
        },
    ]
    return Plot(
        f"{word} against the number of training points",
        data,
        {
            "xaxis": {"title": {"text": "training points n"}, "type": "log"},
            "yaxis": {"title": {"text": word}, "type": "log"},
            "showlegend": True,
        },
    )
