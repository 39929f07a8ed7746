"""The summary of an image training: errors of each rule over seeds, and differences on matched seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..json_types import plain
from ..stats import compare_pairs, mean_interval
from .job import ImageJob


def image_summary(job: ImageJob, rows: Sequence[Mapping[str, Any]], status: str) -> dict[str, Any]:
    """Status, errors of each rule over seeds, and paired differences to the plain network, from the recorded rows."""
    rules: dict[str, Any] = {}
    errors: dict[str, dict[int, list[Any]]] = {}  # by rule and epoch
    for name, trainer in job.trainers.items():
        own = [row for row in rows if row.get("rule") == name]
        tested = [row for row in own if "test_error" in row]
        if not tested:
            continue
        errors[name] = {row["epoch"]: row["test_error"] for row in tested}
        diverged = [seed for seed, value in zip(job.seeds, own[-1]["train_loss"], strict=True) if not is_finite(value)]
        rules[name] = {
            "epochs": own[-1]["epoch"],
            "finished": own[-1]["epoch"] == trainer.epochs or len(diverged) == len(job.seeds),
            "tested": tested[-1]["epoch"],
            "test_error": mean_interval(tested[-1]["test_error"]),
            "test_errors": tested[-1]["test_error"],
            "train_loss": mean_interval(own[-1]["train_loss"]),
            "diverged_seeds": diverged,
        }
        if "swaps" in own[-1]:
            rules[name]["swaps"] = mean_interval(
                [float(np.sum([r["swaps"][k] for r in own])) for k in range(len(job.seeds))]
            )
    summary: dict[str, Any] = {
        "status": status,
        "seeds": job.seeds,
        "test.n": len(job.split.test),
        "train.n": len(job.split.train),
        "rules": rules,
    }
    sensitivity = {row["rule"]: row["sensitivity"] for row in rows if "sensitivity" in row}  # the last of each rule
    if sensitivity:
        summary["sensitivity"] = sensitivity
    without = {name: rule["diverged_seeds"] for name, rule in rules.items() if rule["diverged_seeds"]}
    if without and status == "completed":
        summary["status"] = "diverged"
        summary["diverged.message"] = "; ".join(f"{name}: seed {', '.join(map(str, s))}" for name, s in without.items())
    if "plain" in errors:
        summary["paired"] = {
            f"{name} minus plain": _compare(errors["plain"], own)
            for name, own in errors.items()
            if name != "plain" and own.keys() & errors["plain"].keys()
        }
    return plain(summary)


def _compare(first: Mapping[int, list[Any]], second: Mapping[int, list[Any]]) -> dict[str, Any]:
    """The paired difference at the last epoch in which both rules were tested: a run may have stopped between rules."""
    epoch = max(first.keys() & second.keys())
    return {"epoch": epoch, **compare_pairs(first[epoch], second[epoch])}


def is_finite(value: float | None) -> bool:
    """Whether a recorded number is finite; files hold null for one that is not."""
    return value is not None and bool(np.isfinite(value))
