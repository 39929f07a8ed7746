"""How far the laws move against betabar = beta/n: Theorem 5 of [C24] measured.

The theorem says KL(tau_t || tau_0), KL(nu_t || nu_0) <= C_KL(d, alpha) / (Lambda^2 betabar^2). Beta runs over two
decades, everything else of a seed stays, and training lasts a fixed number of natural units n/beta^2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..diagnostics import kl_to_start
from ..digits import format_with_error
from ..errors import MfresnetError
from ..flow import TrainState
from ..kernels import initial_kernel
from ..model import activation
from ..stats import power_law, student
from ..train.defaults import resolved
from .experiment import Plot, Result, Row, completed_rows, divergence_notes
from .settings import KlSettings
from .training import TrainingExperiment, check_grid
from .vectorised import Outcome, Training

PARTS = ("encoder", "head")
THEORY = -2.0
MARGIN = 0.1  # betabar is finite: the slope is the theory's in the limit only


class Kl(TrainingExperiment):
    """Slope of log KL against log betabar, one fit a seed, Student's interval over seeds.

    A cell records the largest KL over the recorded steps of the flow and the one at the end, of encoder and head, by
    the non-negative estimator E[exp(-R) - 1 + R] over probe particles, and Lambda = lambda_min of the limit kernel at
    the start on its data. C_hat = max KL (Lambda betabar)^2 is what the theorem's constant is at least.
    """

    name = "kl"
    question = "How far do the laws move where the output scale grows?"
    settings: KlSettings
    owned: ClassVar = {"model.beta": "give --betabar"}
    looks_at_states = True

    def __init__(self, settings: KlSettings):
        super().__init__(settings)
        train = settings.train
        if train.rule != "gradient-flow" or min(train.probes, train.head_probes) < 1:
            raise MfresnetError(
                "the KL to the start is known along the flow only, from its probes: set --train.rule gradient-flow, "
                "and --train.probes and --train.head-probes to 1 or more."
            )
        if settings.model.kind == "continuous":
            raise MfresnetError(
                "the KL to the start is that of the law of each layer, which a continuous model does not have: set "
                "--model.kind layered."
            )
        if activation(settings.model.activation).second is None:
            raise MfresnetError(
                "the density of a law changes with the second derivative of the activation, which "
                f"{settings.model.activation!r} does not have: set --model.activation tanh or another smooth one."
            )
        self.looks = train.steps or 20

    def cells(self) -> list[dict[str, Any]]:
        values = self.settings.betabar
        return check_grid([{"betabar": value, "seed": s} for s in self.settings.seed_range() for value in values])

    def training(self, cell) -> Training:
        training = super().training(cell)
        beta = float(cell["betabar"]) * training.n
        model = training.config.model.model_copy(update={"beta": beta})
        return Training(training.config.model_copy(update={"model": model}), training.split)

    def look(self, state: TrainState) -> tuple[float, float]:
        assert state.ensemble is not None, "the constructor asks for probes"
        encoder, head = kl_to_start(state.ensemble)
        return encoder.nonnegative if encoder is not None else float(
            "nan"
        ), head.nonnegative if head is not None else float("nan")

    def measure(self, training: Training, outcome: Outcome) -> dict[str, Any]:
        model, x = training.config.model, training.split.train.x
        lambda0 = initial_kernel(x, model.activation).lambda_min.value
        seen = np.array(outcome.seen)
        beta = resolved(model.beta)
        row: dict[str, Any] = {"model.beta": beta, "lambda0": lambda0}
        for place, part in enumerate(PARTS if model.head else PARTS[:1]):
            largest = float(seen[:, place].max())
            constant = largest * (lambda0 * beta / training.n) ** 2
            row |= {f"kl_{part}": largest, f"kl_{part}_end": float(seen[-1, place]), f"C_{part}": constant}
        return row

    def analyse(self, rows: Sequence[Row]) -> Result:
        good = completed_rows(rows)
        seeds, values = sorted({row["seed"] for row in good}), sorted({row["betabar"] for row in good})
        fit: dict[str, Any] = {}
        sentences, passed = [], []
        for part in PARTS:
            if not any(f"kl_{part}" in row for row in good):
                continue
            slopes = {name: [_slope(good, seed, f"kl_{part}{name}") for seed in seeds] for name in ("", "_end")}
            mean, half = student([s for s in slopes[""] if np.isfinite(s)])
            end, end_half = student([s for s in slopes["_end"] if np.isfinite(s)])
            fit |= {
                f"slope_{part}": mean,
                f"half_width_95_{part}": half,
                f"slope_{part}_end": end,
                f"half_width_95_{part}_end": end_half,
                f"C_hat_{part}": max(row[f"C_{part}"] for row in good),
            }
            sentences.append(f"max KL of the {part} ~ betabar^({format_with_error(mean, half, '+-')})")
            passed.append(judge(mean, half))
        points = [
            {
                "betabar": value,
                **{
                    name: float(np.mean([row[name] for row in good if row["betabar"] == value]))
                    for name in ("kl_encoder", "kl_head", "kl_encoder_end", "kl_head_end", "train.loss")
                    if any(name in row for row in good)
                },
            }
            for value in values
        ]
        return Result(
            verdict="; ".join(sentences) + " (Theorem 5: at most betabar^-2)" if sentences else "no cell completed",
            passed=False if False in passed else (None if None in passed or not passed else True),
            fit=fit,
            points=points,
            figures=[_figure(points)] if len(points) > 1 else [],
            notes=[
                *divergence_notes(rows),
                f"Passed: the intervals of both slopes of the largest KL lie below {THEORY + MARGIN:g}: KL falls at "
                "least as fast as the bound. Failed: one lies above. Neither: the seeds do not decide.",
            ],
        )


def judge(mean: float, half: float) -> bool | None:
    """Whether a slope with the half-width of its interval is at most the theory's; None where it may be either.

    >>> judge(-2.0, 0.05), judge(-1.8, 0.05), judge(-2.0, 0.3), judge(-2.0, float("nan"))
    (True, False, None, None)
    """
    if mean + half <= THEORY + MARGIN:
        return True
    return False if mean - half > THEORY + MARGIN else None


def _slope(rows: Sequence[Row], seed: int, name: str) -> float:
    own = [(row["betabar"], row[name]) for row in rows if row["seed"] == seed and row[name] > 0]
    return power_law(*np.array(own).T).slope if len(own) > 1 else float("nan")


def _figure(points: Sequence[dict[str, Any]]) -> Plot:
    x = [point["betabar"] for point in points]
    data = [
        {"x": x, "y": [p[f"kl_{part}"] for p in points], "mode": "lines+markers", "name": part, "line": {"color": c}}
        for part, c in (("encoder", "@class-0"), ("head", "@class-1"))
        if f"kl_{part}" in points[0]
    ]
    start = max(trace["y"][0] for trace in data)
    bound = [start * (value / x[0]) ** THEORY for value in x]
    data.append({"x": x, "y": bound, "mode": "lines", "name": "slope -2", "line": {"color": "@muted", "dash": "dot"}})
    axes = {
        "xaxis": {"title": {"text": "beta / n"}, "type": "log"},
        "yaxis": {"title": {"text": "max KL"}, "type": "log"},
    }
    return Plot("largest KL along training against beta/n", data, {**axes, "showlegend": True})
