"""The (alpha, beta) diagram of lazy training and feature learning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..diagnostics import regime
from ..diagnostics.divergence import model_displacement
from ..diagnostics.record import draw_rows, last_state
from ..diagnostics.regime import FEATURES_ABOVE, LAZY_BELOW, verdict
from ..kernels import gram
from ..stats import student
from .experiment import Plot, Result, Row, completed_rows, divergence_notes
from .settings import PhaseSettings
from .training import TrainingExperiment, check_grid
from .vectorised import Outcome, Training

POINTS = 128  # of the Gram matrices


class Phase(TrainingExperiment):
    """Each cell trains at one (alpha, beta) and compares the end with the start.

    kernel_change      |G(t) - G(0)|_F / |G(0)|_F on at most `POINTS` training points, in float64
    alignment          <G, y y^T> / (|G|_F |y|^2), at the end and at the start
    displacement.*     root mean squared distance of the encoder's and the head's particles from their starts
    features           largest |z_L(x, t) - z_L(x, 0)|

    The verdict on a cell is that on its kernel change, see `mfresnet.diagnostics.regime`; the diagram takes the mean
    over seeds.
    """

    name = "phase"
    question = "Where is training lazy, and where does it learn features?"
    settings: PhaseSettings
    owned: ClassVar = {"model.alpha": "give --alpha", "model.beta": "give --beta"}

    def cells(self) -> list[dict[str, Any]]:
        alphas, betas = self.settings.alpha, self.settings.beta
        return check_grid(
            [
                {"model.alpha": alpha, "model.beta": beta, "seed": seed}
                for alpha in alphas
                for beta in betas
                for seed in self.settings.seed_range()
            ]
        )

    def measure(self, training: Training, outcome: Outcome) -> dict[str, Any]:
        data = training.split.train
        rows = draw_rows(len(data.x), POINTS, training.config.seed)
        x, y = data.x[rows], data.y[rows]
        start, end = outcome.start, outcome.end
        change = regime(gram(start, x, hold="total").total, gram(end, x, hold="total").total, y)
        moved = np.linalg.norm(last_state(end, x) - last_state(start, x), axis=-1)
        head = {}
        if start.head is not None and end.head is not None:
            head = {"displacement.head": model_displacement(start.head, end.head)}
        return {
            "kernel_change": change.kernel_change,
            "alignment": change.alignment,
            "alignment_start": change.alignment_start,
            "regime": change.verdict,
            "displacement.encoder": model_displacement(start.encoder, end.encoder),
            **head,
            "features": float(moved.max()),
        }

    def analyse(self, rows: Sequence[Row]) -> Result:
        good = completed_rows(rows)
        alphas, betas = (sorted({row[name] for row in rows}) for name in ("model.alpha", "model.beta"))
        names = ("kernel_change", "displacement.encoder", "displacement.head", "features", "train.loss", "test.error")
        points = []
        for alpha in alphas:
            for beta in betas:
                here = [row for row in good if (row["model.alpha"], row["model.beta"]) == (alpha, beta)]
                means = {name: _mean(here, name) for name in names if any(name in row for row in good)}
                word = verdict(means["kernel_change"]) if here else "diverged"
                _, half = student([row["kernel_change"] for row in here])
                agreeing = sum(verdict(row["kernel_change"]) == word for row in here)
                spread = {"kernel_change_half_width_95": half, "seeds": len(here), "seeds_agreeing": agreeing}
                points.append({"alpha": alpha, "beta": beta, **means, **spread, "regime": word})
        split = sum(point["seeds_agreeing"] < point["seeds"] for point in points)
        counts = {word: sum(point["regime"] == word for point in points) for word in _WORDS}
        said = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        return Result(
            verdict=f"of {len(points)} points (alpha, beta): {said}",
            fit={f"share_{word.replace(' ', '_')}": count / len(points) for word, count in counts.items()},
            points=points,
            figures=[
                _map("relative change of the kernel", alphas, betas, points, "kernel_change"),
                _map("largest movement of a feature |z(1)|", alphas, betas, points, "features"),
            ]
            if good
            else [],
            notes=[
                *divergence_notes(rows),
                f"Lazy: the kernel changed by less than {LAZY_BELOW:g}; feature learning: by more than "
                f"{FEATURES_ABOVE:g} (Frobenius norm, relative to the start).",
                *(
                    [f"At {split} of {len(points)} points the seeds disagree; the word is that of their mean."]
                    * bool(split)
                ),
            ],
        )


_WORDS = ("lazy", "between", "feature learning", "diverged")


def _mean(rows: Sequence[Row], name: str) -> float:
    return float(np.mean([row[name] for row in rows])) if rows else float("nan")


def _map(title: str, alphas, betas, points, name: str) -> Plot:
    values = {(point["alpha"], point["beta"]): point for point in points}
    table = np.array([[values[alpha, beta][name] for beta in betas] for alpha in alphas], float)
    with np.errstate(divide="ignore"):
        shade = np.where(table > 0, np.log10(table), np.nan)
    words = [
        [f"{values[alpha, beta][name]:.3g} ({values[alpha, beta]['regime']})" for beta in betas] for alpha in alphas
    ]
    data = {
        "type": "heatmap",
        "x": [f"{beta:g}" for beta in betas],
        "y": [f"{alpha:g}" for alpha in alphas],
        "z": shade,
        "text": words,
        "texttemplate": "%{text}",
        "hovertemplate": "alpha %{y}, beta %{x}: %{text}<extra></extra>",
        "colorscale": [[0, "@panel"], [1, "@class-0"]],
        "colorbar": {"title": {"text": "log10"}},
    }
    category = {"type": "category"}
    return Plot(
        title,
        [data],
        {"xaxis": {"title": {"text": "beta"}, **category}, "yaxis": {"title": {"text": "alpha"}, **category}},
    )
