"""The certificate of networks drawn from the trained laws, with the Gaussian start as prior."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..bounds import Certificate, drawn_certificate
from ..flow import Batch, is_misclassified, predict
from ..model import AbstractResNet
from .problem import Problem


def certify_drawn(problem: Problem) -> Certificate:
    """The PAC-Bayes certificate of drawn sub-networks, minimised over sizes and recorded times.

    It speaks of ``spec.draws`` networks. Which sizes are best at each time is searched with the first few of them: the
    bound holds for all grid points at once, so any search may choose among them.
    """
    data, spec, best = problem.data, problem.spec, problem.best
    certificate = drawn_certificate(
        [best.point],
        len(data.points.x),
        spec.delta,
        grid_size=spec.size,
        density=best.snapshot.density,
        guessing=data.guessing,
    )
    extra: dict[str, Any] = {"step": best.snapshot.step}
    if data.test is not None:
        errors, _ = problem.draws.measure(best.snapshot, best.point.residuals, data.test)
        extra["test_error_of_draws"] = float(errors[:, best.place].mean())
    grid = spec.grid
    extra["grid_of"] = f"{len(grid.steps)} times x {len(grid.heads)} k' x {len(grid.residuals)} N' x {spec.settings}"
    if len(spec.grids) > 1:
        extra["grid_of"] += f", and {len(spec.grids) - 1} grids tried before"
    certificate = replace(certificate, details=certificate.details | extra)
    return certificate.with_hypotheses(*data.hypotheses, guessing=data.guessing)


def course(problem: Problem) -> list[dict[str, Any]]:
    """What the certificate reached at each recorded time, beside the network's own errors."""
    rows = []
    for choice in problem.choices:
        snapshot, point = choice.snapshot, choice.point
        row = {
            "step": snapshot.step,
            "time": snapshot.time,
            "value": choice.value,
            "heads": point.heads,
            "residuals": point.residuals,
            "drawn.train.error": float(np.mean(point.errors)),
            "kl": float(np.mean(point.log_ratios)),
        }
        for part, data in (("train", problem.data.train), ("test", problem.data.test)):
            if data is not None:
                row[f"{part}.error"] = error_of(snapshot.model, data)
        rows.append(row)
    return rows


def error_of(model: AbstractResNet, data: Batch) -> float:
    """Share of the points that a network gets wrong."""
    return count_errors(model, data) / len(data.x)


def count_errors(model: AbstractResNet, data: Batch) -> int:
    """Number of the points that a network gets wrong."""
    return int(np.sum(is_misclassified(np.asarray(predict(model, data.x)), np.asarray(data.y))))
