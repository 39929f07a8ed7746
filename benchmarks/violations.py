"""How many violated certificates binomial chance allows, and tables of what was seen."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import beta, binom

from mfresnet.bounds import clopper_pearson

ALARM, POWER = 1e-3, 0.99


def most_violations(draws: int, delta: float) -> int:
    """More than this has probability `ALARM` at most, where each is violated with probability delta."""
    return int(binom.isf(ALARM, draws, delta))


def detects(draws: int, delta: float) -> float:
    """The smallest share of violations that exceeds `most_violations` with probability `POWER`."""
    return float(beta.ppf(POWER, most_violations(draws, delta) + 1, draws - most_violations(draws, delta)))


def judge(values: np.ndarray, delta: float) -> dict[str, Any]:
    """Violations of one kind, what they may be, and tightness."""
    draws, violated = len(values), int(np.sum(values[:, 0] < values[:, 1]))
    low, high = clopper_pearson(violated, draws, 0.05)
    return {
        "draws": draws,
        "violated": violated,
        "share": violated / draws,
        "interval_95": [low, high],
        "allowed": most_violations(draws, delta),
        "fails": violated > most_violations(draws, delta),
        "detects": detects(draws, delta),
        "informative.share": float(np.mean(values[:, 0] < 0.5)),
        "certificate.mean": float(values[:, 0].mean()),
        "true.mean": float(values[:, 1].mean()),
    }


def summary(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each kind and delta: over all conditions, and the same over pure noise alone."""
    rows = []
    for kind, delta in dict.fromkeys((r["kind"], r["delta"]) for r in records if r["delta"] > 0):
        own = [r for r in records if (r["kind"], r["delta"]) == (kind, delta)]
        pure = [np.array(r["values"]) for r in own if r["noise"] == 0.5]
        row = {"kind": kind, "delta": delta} | judge(np.concatenate([r["values"] for r in own]), delta)
        if pure:
            row["pure_noise"] = {key: judge(np.concatenate(pure), delta)[key] for key in ("draws", "violated", "fails")}
        rows.append(row)
    return rows


def evidence(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean of v exp(-c) and its standard error, 1 by the theorem."""
    rows = []
    for kind in dict.fromkeys(r["kind"] for r in records if r["delta"] == 0):
        own = np.concatenate([np.array(r["values"])[:, 0] for r in records if r["kind"] == kind])
        rows.append(
            {"kind": kind, "draws": len(own), "mean": float(own.mean()), "stderr": float(own.std() / len(own) ** 0.5)}
        )
    return rows


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    (low, high), pure = row["interval_95"], row.get("pure_noise", {"violated": 0, "draws": 0})
    return (
        f"{row['kind']:32} delta {row['delta']:<5} {row['violated']:>4}/{row['draws']:<5} [{low:.4f}, {high:.4f}] "
        f"{'FAILS' if row['fails'] else 'holds'}: up to {row['allowed']} allowed, detects {row['detects']:.3f}; noise "
        f"{pure['violated']}/{pure['draws']}; means {row['certificate.mean']:.3f} over {row['true.mean']:.3f}"
    )
