"""What is measured of a job: metrics at every row, diagnostics at their steps, and the summary at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from ..diagnostics import DIAGNOSTICS, record
from ..diagnostics.convergence import BETWEEN_TIMES, convergence_certificate, radius
from ..diagnostics.landscape import first_order_share, landscape
from ..diagnostics.regime import linearised_predictions, verdict
from ..diagnostics.solver_error import solver_error
from ..errors import MfresnetError
from ..flow import Batch, LangevinMemory, LangevinRule, TrainState, evaluate, mistakes, predict
from ..json_types import plain
from ..kernels.gram import gram
from ..messages import Say
from .job import Job
from .path import bound_so_far

LINEAR_LIMIT = 2048  # most outputs n C for which the linearised model is solved (an n C x n C eigenproblem)


def chain_row(job: Job, state: TrainState) -> dict[str, float]:
    """Inverse temperature, price c and mean acceptance of a Langevin chain so far, and its certificate."""
    rule, memory = job.trainer.rule, state.rule
    assert isinstance(rule, LangevinRule) and isinstance(memory, LangevinMemory)
    step = int(memory.step)
    return {
        "chain.gamma": float(rule.gammas[step - 1]) if step else 0.0,
        "chain.c": memory.c,
        "chain.acceptance": float(memory.accepted) / step if step else 1.0,
        "chain.bound": bound_so_far(job, state),
    }


class Measurements:
    """Metrics and diagnostics of one job.

    Diagnostics fall on fixed steps, Gram matrices by default on those whose states are kept, so an interrupted and
    resumed run records the same rows; what they cost is measured (``diagnostics_s``) and reported.

    Args:
        job: what is trained.
        say: is told, once, what cannot be measured.
        spent: seconds spent on diagnostics before.
        data: training and test points where losses are taken, divided among devices where there are several.
    """

    def __init__(
        self,
        job: Job,
        say: Say,
        spent: float = 0.0,
        data: tuple[Batch, Batch] | None = None,
    ):
        self.job = job
        self.data = data or (job.train, job.test)
        self.say = say
        self.spent = spent
        self.refused: set[str] = set()
        model = job.state.model
        if job.config.train.rule == "gradient-flow" and not model.smooth:
            what = (
                f"sigma0'', which {model.sigma.name} does" if model.two_layer else "second derivatives, which it does"
            )
            say(f"KL: not measured, the density of a law changes with {what} not have.")
        elif job.config.train.rule == "gradient-flow" and job.config.model.kind == "continuous":
            say("KL: not measured, probes belong to a layer, which a continuous model does not have.")

    @cached_property
    def probe(self) -> record.Probe:
        """The points of the Gram matrices, and the start."""
        train = self.job.split.train
        points = max(2, self.job.config.diagnostics.gram_points // train.y.shape[1])
        return record.Probe.create(
            self.job.state.model,
            train.x,
            train.y,
            points=points,
            initial=self.job.initial,
            seed=self.job.config.seed,
        )

    def metrics(self, state: TrainState, wall_s: float) -> dict[str, Any]:
        """Loss and error on both parts of the data."""
        job, config = self.job, self.job.config
        row: dict[str, Any] = {"step": int(state.step), "wall_s": wall_s}
        if config.train.rule == "gradient-flow":
            row["time"] = int(state.step) * config.train.time / job.steps
        for name, data in zip(("train", "test"), self.data, strict=True):
            loss, error = evaluate(state.model, data, job.loss, job.split.train.task)
            row |= {f"{name}.loss": float(loss), f"{name}.error": float(error)}
        if isinstance(state.rule, LangevinMemory):
            row |= chain_row(job, state)
        return row

    def due(self, step: int) -> bool:
        """Whether a diagnostic falls on this step."""
        return any(self._due(step))

    def _due(self, step: int) -> tuple[bool, bool]:
        """Of the laws, and of the Gram matrices."""
        wanted = self.job.config.diagnostics
        laws = wanted.kl_every != 0 and step % (wanted.kl_every or 1) == 0
        if wanted.gram_every is None:
            return laws, step in self.job.kept
        return laws, wanted.gram_every != 0 and step % wanted.gram_every == 0

    def diagnostics(self, state: TrainState, *, everything: bool = False) -> dict[str, Any]:
        """The diagnostics that are due at this step, or all of them."""
        begun = time.perf_counter()
        laws, matrices = self._due(int(state.step))
        row: dict[str, Any] = {}
        if everything or laws:
            row |= self._measure("KL", lambda: record.law_row(state.model, state.ensemble, self.probe))
        if everything or matrices:
            row |= self._measure("Gram matrices", lambda: record.gram_row(state.model, state.ensemble, self.probe))
            for name in self.job.config.diagnostics.also:
                row |= self._measure(name, lambda name=name: self._add(name, state))
        self.spent += time.perf_counter() - begun
        return plain(row | {"diagnostics_s": self.spent}) if row else row

    def _add(self, name: str, state: TrainState) -> dict[str, Any]:
        """The entries of a diagnostic by name."""
        return dict(DIAGNOSTICS[name](state.model, state.ensemble, self.probe))

    def _measure(self, what: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Measure, or say once why it cannot be measured; the rest goes on."""
        if what in self.refused:
            return {}
        try:
            return measure()
        except MfresnetError as error:
            self.refused.add(what)
            self.say(f"{what}: not measured, {error}")
            return {}

    def summary(self, state: TrainState, rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
        """(summary entries, arrays): what is computed once, from the last state and all rows."""
        begun = time.perf_counter()
        summary: dict[str, Any] = {}
        arrays: dict[str, Any] = {}
        grams = [row for row in rows if "gram.lambda_min.total" in row]
        if grams:
            summary |= self._gram_summary(grams)
            summary |= self._measure("limit kernel", lambda: record.initial_row(self.probe))
        train, wanted = self.job.split.train, self.job.config.diagnostics
        if wanted.landscape:
            sample = record.draw_rows(len(train.x), record.LANDSCAPE_POINTS, self.job.config.seed)
            if self.job.loss == "squared":
                values = self._measure(
                    "landscape", lambda: vars(landscape(state.model, train.x[sample], train.y[sample]))
                )
                summary |= {f"landscape.{name}": value for name, value in values.items()}
            summary["paths.first_order_share"] = first_order_share(state.model, train.x[sample])
        summary |= self._measure("transport", lambda: record.transport_row(state.model, state.ensemble, self.probe))
        if grams and self._linear():
            arrays = self._linearise(grams)
            summary["linearised.train.loss"] = float(arrays["linear.train_loss"][-1])
            summary["linearised.test.error"] = float(arrays["linear.test_error"][-1])
        return plain(summary | {"closing_s": time.perf_counter() - begun}), arrays

    def solver_error(self, state: TrainState) -> dict[str, Any]:
        """Summary entries: the estimated error of the solver in loss, predictions and KL."""
        begun = time.perf_counter()
        row = self._measure("solver error", lambda: self._solver_error(state))
        return plain(row | {"solver_s": time.perf_counter() - begun}) if row else {}

    def _solver_error(self, state: TrainState) -> dict[str, Any]:
        job = self.job
        if "KL" in self.refused:
            state = replace(state, ensemble=None)
        error = solver_error(job.trainer, job.state, state, job.train, job.test.x, job.initial)
        if error is None:
            return {}
        row = {"solver.loss": error.loss, "solver.prediction": error.prediction}
        for part, ratios in (("encoder", error.encoder), ("head", error.head)):
            if ratios is not None:
                row |= {f"kl.{part}.solver_error": ratios.kl, f"kl.{part}.solver_rms": ratios.rms}
        return row

    def _gram_summary(self, grams: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Initial and final eigenvalues, the certificate of section 5, r_max and the verdict on the regime."""
        job, first, last = self.job, grams[0], grams[-1]
        summary: dict[str, Any] = {"gram.points": len(self.probe.x), "gram.whole": self.probe.whole}
        for when, row in (("initial", first), ("final", last)):
            for part in ("encoder", "head", "total"):
                summary[f"gram.{when}.lambda_min.{part}"] = row[f"gram.lambda_min.{part}"]
                summary[f"gram.{when}.error.{part}"] = row[f"gram.error.{part}"]
        summary["regime.verdict"] = verdict(last["regime.kernel_change"])
        matrices = self.probe.matrices
        rows = len(matrices.total)
        summary["gram.notes"] = list(matrices.notes) + [
            f"{symbol} has {rows} rows and the {part} {matrices.ranks[part]} parameters, so lambda_min({symbol}) is 0"
            for part, symbol in (("encoder", "G1"), ("head", "G2"))
            if matrices.ranks[part] < rows
        ]
        flow = job.config.train.rule == "gradient-flow"
        if flow:
            moved = [row.get("displacement.head", 0.0) for row in grams]
            summary["gram.r_max"] = radius(
                np.array([row["gram.lambda_min.head"] for row in grams]),
                np.array(moved),
                first["gram.lambda_min.head"],
            )
        of_theory = flow and job.config.train.batch_size is None and job.config.train.loss == "squared"
        if of_theory and self.probe.whole and job.config.train.freeze == "none":
            # with rates the loss falls by r^T (rate_1 alpha^2 G1 + rate_2 G2) r >= min(rates) lambda_min(G) |r|^2
            slowest = min(job.trainer.options.rates)
            bound = convergence_certificate(
                first["train.loss"],
                np.array([row["time"] for row in grams]) * job.unit * slowest,
                np.array([row["gram.lambda_min.total"] for row in grams]),
                np.array([row["gram.error.total"] for row in grams]),
                beta=float(job.state.model.beta),
                n=len(job.split.train.x),
            )
            summary["convergence.certificate"] = bound.tolist()
            summary["convergence.assumption"] = BETWEEN_TIMES
            summary["convergence.holds"] = bool(np.all([g["train.loss"] for g in grams] <= bound * (1 + 1e-6)))
        return summary

    def _linear(self) -> bool:
        """Whether the linearised model is the comparison of this run."""
        train, config = self.job.split.train, self.job.config.train
        return (
            config.rule == "gradient-flow"
            and config.loss == "squared"
            and config.freeze == "none"
            and self.probe.whole
            and train.y.size <= LINEAR_LIMIT
            and len(self.job.split.test.x) <= LINEAR_LIMIT
        )

    def _linearise(self, grams: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Loss and error of the model linearised at the start, at the times of the Gram rows."""
        job = self.job
        train, test, start = job.split.train, job.split.test, job.state.model
        times = np.array([row["time"] for row in grams])
        f, f_test = (np.asarray(predict(start, data.x), np.float64) for data in (job.train, job.test))
        cross = gram(start, test.x, other=train.x, hold="total").total
        fits, guesses = linearised_predictions(
            self.probe.matrices.total, cross, f, f_test, train.y, times * job.unit, beta=float(start.beta)
        )
        wrong = [float(np.mean(mistakes(g, test.y, train.task))) for g in guesses]
        return {
            "linear.time": times,
            "linear.train_loss": 0.5 * np.mean(np.sum((fits - train.y) ** 2, axis=-1), axis=-1),
            "linear.test_error": np.sqrt(wrong) if train.task == "regression" else np.array(wrong),
        }
