"""The rate experiment of [C24]: test error against the number of training points (theory, section 13).

Two spirals of one turn, d = 2, L = 10, tanh, M = K = 20, alpha = 10, beta = 20, Adam 0.01, full batch, 1000 steps,
n_test = 1024. The mean test error over seeds is fitted by a power law of n; [C24] reports the slope -1.02
(p = 9e-6), and the theory bounds the error by n^(-1/2).

Two intervals of the slope say different things: Student's of the one fit to the means (are they on a line?) and
Student's over the slopes of the single seeds (would other seeds give another slope?). A percentile bootstrap over so
few seeds would cover less than it says: about 75 % for 95 % at 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..stats import PowerLaw, bootstrap, power_law, student
from .experiment import Plot, Result, Row, completed, diverged
from .settings import RateSettings
from .training import TrainingExperiment, check_grid

REPORTED = {"slope": -1.02, "p": 9e-6}  # of [C24], as recalled


class Rate(TrainingExperiment):
    """Error against n: slope with standard error, p-value, and intervals.

    A cell of a classification without a single mistake on its n_test test points counts as half a mistake, that is, an
    error of 1/(2 n_test), before the mean over seeds is taken; how many cells that was is in the result. Passed: the
    error falls with p < 0.05; failed: it grows with p < 0.05; neither: p is larger, or there are too few sizes for it.
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
        good = completed(rows)
        sizes = sorted({row["data.n"] for row in good})
        seeds = sorted({row["seed"] for row in good})
        if not good:
            return Result("Every cell diverged: nothing can be fitted.", None, notes=diverged(rows))
        regression = good[0]["task"] == "regression"
        # one row a seed, one column a size; NaN where a cell diverged
        table = np.full((len(seeds), len(sizes)), np.nan)
        for row in good:
            table[seeds.index(row["seed"]), sizes.index(row["data.n"])] = row["test.error"]
        floor = 0.0 if regression else 1 / (2 * good[0]["test.n"])
        zeros = int(np.sum(table == 0))
        counted = np.where(table == 0, floor, table)
        mean, spread = _mean(counted), np.nanstd(counted, axis=0)
        fit = _fit(sizes, mean)
        low, high = bootstrap(
            lambda chosen: _fit(sizes, _mean(counted[chosen])).slope,
            len(seeds),
            self.settings.bootstrap,
            self.settings.seed,
        )
        each = [_fit(sizes, row).slope for row in counted]
        over_seeds, half = student([slope for slope in each if np.isfinite(slope)])
        points = [
            {"data.n": n, "test.error": float(m), "std": float(s), "zeros": int(np.sum(column == 0))}
            for n, m, s, column in zip(sizes, mean, spread, table.T, strict=True)
        ]
        t_low, t_high = fit.interval()
        notes = diverged(rows)
        if zeros and regression:
            notes.append(f"{zeros} of {len(good)} cells have an error of exactly 0, which enters the mean as it is.")
        elif zeros:
            notes.append(
                f"{zeros} of {len(good)} cells made no mistake on {good[0]['test.n']} test points and count as half a "
                f"mistake, {floor:.3g}."
            )
        if 1 < len(seeds) < 20:
            notes.append(f"bootstrap_95 resamples {len(seeds)} seeds only and is too narrow (at 3 it covers 75 %).")
        s, plain = self.settings, RateSettings()
        papers = (s.data, s.model, s.train) == (plain.data, plain.model, plain.train)
        between = f"; over seeds {over_seeds:.3f} +- {half:.2g} (Student, 95 %)" if np.isfinite(half) else ""
        return Result(
            verdict=_sentence(fit) + between + (f" ([C24] reports {REPORTED['slope']})" if papers else ""),
            passed=bool(fit.slope < 0) if fit.p < 0.05 else None,
            fit={
                "slope": fit.slope,
                "intercept": fit.intercept,
                "stderr": fit.stderr,
                "p": fit.p,
                "student_95": [t_low, t_high],
                "slope_over_seeds": over_seeds,
                "half_width_95_over_seeds": half,
                "bootstrap_95": [low, high],
                "zero_cells": zeros,
                **({"reported": REPORTED} if papers else {}),
            },
            points=points,
            figures=[_figure(sizes, seeds, counted, mean, fit, regression)],
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


def _sentence(fit: PowerLaw) -> str:
    """The power of n, as far as the sizes fix it."""
    if not np.isfinite(fit.slope):
        return "no power of n can be fitted: it takes two sizes or more with a test error above 0"
    if not np.isfinite(fit.p):
        return f"test error ~ n^{fit.slope:.3f}, of two sizes, which leave no error to estimate"
    return f"test error ~ n^({fit.slope:.3f} +- {fit.stderr:.2g}), p = {fit.p:.2g}"


def _figure(sizes, seeds, table, mean, fit, regression: bool) -> Plot:
    line = fit(np.asarray(sizes, float))
    word = "root mean squared test error" if regression else "test error"
    data = [
        {"x": sizes, "y": row, "mode": "markers", "name": f"seed {seed}", "marker": {"color": "@muted", "size": 6}}
        for seed, row in zip(seeds, table, strict=True)
    ]
    data += [
        {"x": sizes, "y": mean, "mode": "markers", "name": "mean", "marker": {"color": "@class-0", "size": 10}},
        {"x": sizes, "y": line, "mode": "lines", "name": f"n^{fit.slope:.2f}", "line": {"color": "@class-1"}},
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
