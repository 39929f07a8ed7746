"""The table of [L20]: test error of image networks, plain and with mean-field training (theory, section 10).

A cell is a seed of a rule in a row; the seeds of a rule are one batch, trained as one program. A batch that is stopped
or killed begins anew when the sweep is resumed: a sweep keeps whole cells, where `mfresnet image` writes checkpoints.
Published figures of one architecture differ by 0.1 to 0.5 points between implementations, so the claim is the
difference on matched seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..data.images import ImageSplit, load_images
from ..errors import within_memory
from ..image_config import ImageConfig
from ..images.job import ImageJob, assemble_images, check_images, image_facts
from ..images.paired import over_seeds, paired
from .experiment import Cell, Experiment, Plot, Pulse, Result, Row, diverged
from .table1_settings import ROWS, Table1Settings


class Table1(Experiment):
    """Mean-field training against the plain network, row by row."""

    name: ClassVar[str] = "table1"
    question: ClassVar[str] = "does a trained depth coordinate lower the test error of an image network?"
    settings: Table1Settings

    def __init__(self, settings: Table1Settings):
        super().__init__(settings)
        self._loaded: dict[tuple, ImageSplit] = {}

    def cells(self) -> list[dict[str, Any]]:
        """Every seed of every rule of every row."""
        names = ImageConfig.model_validate({"blocks": {"rules": self.settings.rules}}).blocks.names
        for row in self.settings.names:
            check_images(self.config({"row": row, "rule": names[0], "seed": 0}, 1))
        seeds = range(self.settings.seed, self.settings.seed + self.settings.seeds)
        return [
            {"row": row, "rule": rule, "seed": seed} for row in self.settings.names for rule in names for seed in seeds
        ]

    def batches(self, cells: Sequence[Cell]) -> list[list[int]]:
        """The seeds of a rule train together."""
        found: dict[tuple[str, str], list[int]] = {}
        for place, cell in enumerate(cells):
            found.setdefault((cell["row"], cell["rule"]), []).append(place)
        return list(found.values())

    def config(self, cell: Cell, seeds: int) -> ImageConfig:
        """The configuration of an image run of a cell and the seeds after it."""
        own, row = self.settings, ROWS[cell["row"]]
        tree = {
            "seed": cell["seed"],
            "data": {"name": own.data or row.data, "n": own.n, "n_test": own.n_test},
            "model": {"name": row.model, "width": own.width},
            "blocks": {"rules": cell["rule"], "lr_t": own.lr_t},
            "train": {
                "seeds": seeds,
                "epochs": own.epochs or row.epochs,
                "batch_size": own.batch_size,
                "precision": own.precision,
            },
        }
        return ImageConfig.model_validate(tree)

    def run(self, cells: Sequence[Cell], pulse: Pulse = lambda share: None) -> list[dict[str, Any]]:
        """Train the seeds of one rule and test them at the end.

        Raises:
            MfresnetError: bad images, or no memory left for all seeds at once.
        """
        config, own = self.config(cells[0], len(cells)), self.settings
        job = assemble_images(config, self.images(config))
        with within_memory(
            f"lower --seeds (now {own.seeds}), --batch-size (now {own.batch_size}) or --width, or set --precision "
            "bfloat16."
        ):
            return trained(job, cells[0]["rule"], pulse)

    def images(self, config: ImageConfig) -> ImageSplit:
        """The same images for every seed and rule: drawn by the sweep's own seed."""
        wanted = (config.data.name, config.data.n, config.data.n_test)
        if wanted not in self._loaded:
            name, n, n_test = wanted
            self._loaded[wanted] = load_images(name, seed=self.settings.seed, n=n, n_test=n_test)
        return self._loaded[wanted]

    def data_sums(self, cells: Sequence[Cell]) -> dict[str, str]:
        configs = {cell["row"]: self.config(cell, 1) for cell in cells}
        loaded = {config.data.name: config for config in configs.values()}
        return {name: image_facts(self.images(config))["sha256"] for name, config in loaded.items()}

    def analyse(self, rows: Sequence[Row]) -> Result:
        """A row's errors, its paired difference and the reported figures beside them."""
        points = []
        for name in dict.fromkeys(row["row"] for row in rows):
            errors: dict[str, list[float]] = {}
            for row in rows:
                if row["row"] == name:
                    sound = row["status"] == "completed"
                    errors.setdefault(row["rule"], []).append(100 * row["test_error"] if sound else np.nan)
            reported = {"plain": ROWS[name].plain, "mean-field": ROWS[name].mean_field}
            for rule, values in errors.items():
                point = {"row": name, "rule": rule, **over_seeds(values), "reported": reported.get(rule)}
                if rule != "plain" and "plain" in errors:
                    difference = paired(errors["plain"], values)
                    point |= {f"difference_{key}": difference[key] for key in ("mean", "low", "high", "verdict")}
                points.append(point)
        compared = [point for point in points if "difference_verdict" in point]
        verdict = "; ".join(_said(point) for point in compared if point["difference_mean"] is not None)
        full = all(getattr(self.settings, key) is None for key in ("epochs", "data", "n", "n_test", "width"))
        notes = ["Reported figures are those of [L20] as recalled from the paper, not re-read; errors are in per cent."]
        if not full:
            notes.append("Epochs, images or width are not the table's: the reported figures are no comparison here.")
        return Result(
            verdict=verdict or "no two rules to compare",
            passed=judge(compared) if full else None,
            points=points,
            figures=[_figure(points)],
            notes=[*notes, *diverged(rows, "")],
        )


def judge(points: Sequence[Row]) -> bool | None:
    """Yes: mean-field training has the lower error in every row. No: it has the higher in one. Else the seeds are few.

    Other rules are controls, of which nothing is claimed.
    """
    found = [point["difference_verdict"] for point in points if point["rule"] == "mean-field"]
    if "higher error" in found:
        return False
    return True if found and set(found) == {"lower error"} else None


def _said(point: Row) -> str:
    """A difference in words."""
    low, high = point["difference_low"], point["difference_high"]
    interval = "" if low is None else f" [{low:.2f}, {high:.2f}]"
    difference = f"{point['difference_mean']:+.2f} points{interval}"
    return f"{point['row']}, {point['rule']} minus plain: {difference}, {point['difference_verdict']}"


def _figure(points: Sequence[Row]) -> Plot:
    """The error of each rule in each row, with its interval over seeds and the reported figure."""
    data: list[dict[str, Any]] = []
    for index, rule in enumerate(dict.fromkeys(point["rule"] for point in points)):
        own = [point for point in points if point["rule"] == rule]
        rows, colour = [point["row"] for point in own], f"@class-{index}"
        half = [None if p["low"] is None else p["high"] - p["mean"] for p in own]
        marker = {"color": colour, "size": 10}
        data.append(
            {"x": rows, "y": [p["mean"] for p in own], "error_y": {"type": "data", "array": half}, "mode": "markers"}
            | {"name": rule, "marker": marker}
        )
        if any(point["reported"] is not None for point in own):
            reported = [point["reported"] for point in own]
            data.append(
                {"x": rows, "y": reported, "mode": "markers", "name": f"{rule}, reported"}
                | {"marker": marker | {"symbol": "line-ew-open", "size": 14}}
            )
    axes = {"xaxis": {"type": "category"}, "yaxis": {"title": {"text": "test error, %"}}}
    return Plot("test error of each rule, 95 % interval over seeds", data, {**axes, "showlegend": True})


def trained(job: ImageJob, rule: str, pulse: Pulse = lambda share: None) -> list[dict[str, Any]]:
    """Train all seeds of a job under a rule, in memory; the measured values of each seed.

    Where blocks move, "swaps" counts swaps of neighbours, of all families and steps, and "swaps_by_epoch" lists them;
    "t" is the depth s/N of each block at the end, a list for each stage. Training ends early when no seed is left.
    """
    trainer = job.trainers[rule]
    state, done = job.begin(rule), 0
    chunk = max(1, min(trainer.per_epoch, 200))
    swaps: list[np.ndarray] = []  # of each epoch, shape (seeds,)
    lost = np.full(len(job.seeds), 0)  # the step by which a seed had left the finite numbers, 0 while it has not
    while done < trainer.steps and not lost.all():
        count = min(chunk, trainer.per_epoch - done % trainer.per_epoch)
        state = trainer.advance(state, job.train, count)
        state.step.block_until_ready()
        done += count
        lost = np.where((lost == 0) & ~np.isfinite(np.asarray(state.tally.loss)), done, lost)
        if done % trainer.per_epoch == 0 and trainer.rule.moves:
            swaps.append(np.sum(state.tally.swaps, axis=0))
        pulse(done / trainer.steps)
    loss, error = (np.asarray(value, float) for value in trainer.evaluate(state, job.test))
    last = np.asarray(state.tally.loss) / np.asarray(state.tally.steps)
    exact = np.rint(error * len(job.test)) / len(job.test)
    rows: list[dict[str, Any]] = []
    for k in range(len(job.seeds)):
        sound = lost[k] == 0 and bool(np.isfinite(loss[k]))
        row: dict[str, Any] = {
            "status": "completed" if sound else "diverged",
            "test_error": float(exact[k]) if sound else np.nan,  # argmax names a class all the same
            "test_loss": float(loss[k]),
            "train_loss": float(last[k]),
        }
        if not sound:
            row["diverged.step"] = int(lost[k] or done)
        if trainer.rule.moves:
            by_epoch = [int(epoch[k]) for epoch in swaps]
            row |= {"swaps": sum(by_epoch), "swaps_by_epoch": by_epoch}
        if "s" in state.weights.coordinates[0]:
            row["t"] = [
                [float(s) / max(place.count, 1) for s in np.asarray(family["s"][k])]
                for family, place in zip(state.weights.coordinates, trainer.architecture.places, strict=True)
            ]
        rows.append(row)
    return rows
