"""The annealed Langevin chain of a run: errors and certificate, inverse temperature and acceptance, the price."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..digits import format_plain, format_share
from .parts import Figure, Section, axis, curve, log_axis
from .reading import Run, number

ERRORS = {
    "chain.bound": ("certificate if fixed to end here", "@ink", "solid"),
    "test.error": ("held out", "@class-1", "dash"),
    "train.error": ("training", "@class-0", "solid"),
}


def chain(run: Run) -> Section | None:
    """The section of a run of the rule langevin."""
    if not np.isfinite(run.column("chain.c")).any():
        return None
    step, gamma, price = (run.column(name) for name in ("step", "chain.gamma", "chain.c"))
    errors = [
        curve(label, step, 100 * run.column(name), colour, dash) for name, (label, colour, dash) in ERRORS.items()
    ]
    accepted = np.diff(run.column("chain.acceptance") * step) / np.diff(step)
    warm = gamma > 0
    log = {"type": "log", "exponentformat": "power", "dtick": 1}
    levels = log_axis("error, %", np.concatenate([line["y"] for line in errors]))
    figures = [
        Figure("Errors and certificate, %", errors, _axes("step", "") | {"yaxis": levels}),
        Figure(
            "Price c against inverse temperature",
            [curve("price c, nats", gamma[warm], price[warm], "@ink")],
            _axes("inverse temperature", "c, nats", x=log) | {"margin": {"b": 52}},
        ),
        Figure(
            "Inverse temperature",
            [curve("inverse temperature", step[warm], gamma[warm], "@class-0")],
            _axes("step", "", y=log),
        ),
        Figure(
            "Acceptance since the previous row, %",
            [curve("acceptance, %", step[1:], 100 * accepted, "@class-0")],
            _axes("step", "", y={"range": [0, 100]}),
        ),
    ]
    caption = (
        "The network starts at a draw of the prior and is annealed: at each inverse temperature the loss competes with "
        "the prior. c is the exact log-density ratio of the path so far, which the certificate pays for."
    )
    return Section("Langevin chain", caption, figures + _several(run), _finding(run))


def _finding(run: Run) -> str:
    """What the chain paid, and what for; of several chains the figures show it."""
    c, error = run.last("chain.c"), run.last("train.error")
    if not np.isfinite([c, error]).all() or "chains" in run.summary:
        return ""
    reached = format_share(error, number(run.summary.get("train.n")))
    return f"The chain paid c = {format_plain(c)} nats for a training error of {reached}."


def _several(run: Run) -> list[Figure]:
    """Price and errors over the chains, where there are several."""
    chains = run.summary.get("chains")
    if not isinstance(chains, Mapping):
        return []
    price, *errors = (np.array(chains.get(name, []), np.float64) for name in ("c", "train.error", "test.error"))
    finite = price[np.isfinite(price)]
    if len(finite) < 2:
        return []
    counts, edges = np.histogram(finite, bins="auto")
    bars = {
        "type": "bar",
        "name": "chains",
        "x": (edges[:-1] + edges[1:]) / 2,
        "width": np.diff(edges),
        "y": counts,
        "marker": {"color": "@class-0"},
    }
    figures = [Figure("Price c over the chains", [bars], _axes("c, nats", "chains"))]
    points = [
        curve(label, price, 100 * error, colour) | {"mode": "markers"}
        for error, (label, colour, _) in zip(errors, (ERRORS["train.error"], ERRORS["test.error"]), strict=True)
        if error.shape == price.shape
    ]
    return [*figures, Figure("Errors of the chains, %", points, _axes("c, nats", "error, %"))]


def _axes(x_title: str, y_title: str, *, x: Any = (), y: Any = ()) -> dict[str, Any]:
    return {"xaxis": axis(x_title, **dict(x)), "yaxis": axis(y_title, **dict(y)), "hovermode": "x unified"}
