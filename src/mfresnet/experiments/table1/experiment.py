"""Table 1 of Lu et al. 2020 (arXiv 2003.05508): test error of image networks, plain and with mean-field training.

A cell is a seed of a rule in a row; the cells of a row are one batch, trained side by side, and a batch that is stopped
or killed continues from its newest checkpoint. Published figures of one architecture differ by 0.1 to 0.5 points
between implementations, so the claim is the difference on matched seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ...data.images import ImageSplit, load_images
from ...images.configuration import ImageConfig
from ...images.cost import measure_cost
from ...images.job import assemble_images, check_images, image_facts
from ...images.minibatches import device_memory
from ...stats import compare_pairs, mean_interval
from ...train.cost import Cost
from ..experiment import Cell, Checkpoints, Experiment, NoCheckpoints, Pulse, Result, Row, divergence_notes
from .figures import errors, movements
from .settings import ROWS, Table1Settings
from .training import train_batch


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
            check_images(self.config([{"row": row, "rule": names[0], "seed": 0}]))
        seeds = range(self.settings.seed, self.settings.seed + self.settings.seeds)
        return [
            {"row": row, "rule": rule, "seed": seed} for row in self.settings.names for rule in names for seed in seeds
        ]

    def batches(self, cells: Sequence[Cell]) -> list[list[int]]:
        """The rules and seeds of a row are trained side by side."""
        rows: dict[str, list[int]] = {}
        for place, cell in enumerate(cells):
            rows.setdefault(cell["row"], []).append(place)
        return list(rows.values())

    def costs(self, cells: Sequence[Cell], batches: Sequence[Sequence[int]]) -> list[Cost]:
        configs = [self.config([cells[place] for place in batch]) for batch in batches]
        return [measure_cost(assemble_images(config, self.images(config))) for config in configs]

    def memory(self, cells: Sequence[Cell]) -> int:
        """A batch may take the whole device, and divides itself where that is too small."""
        return device_memory()

    def config(self, cells: Sequence[Cell]) -> ImageConfig:
        """The configuration of an image run of the cells of a row."""
        own, row = self.settings, ROWS[cells[0]["row"]]
        tree = {
            "seed": cells[0]["seed"],
            "data": {"name": own.data or row.data, "n": own.n, "n_test": own.n_test},
            "model": {"name": row.model, "width": own.width},
            "blocks": {"rules": tuple(dict.fromkeys(cell["rule"] for cell in cells)), "lr_t": own.lr_t},
            "train": {
                "seeds": len({cell["seed"] for cell in cells}),
                "epochs": own.epochs or row.epochs,
                "batch_size": own.batch_size,
                "precision": own.precision,
                "at_once": own.at_once,
            },
            "record": {
                "checkpoint_seconds": own.checkpoint_seconds,
                "test_every": own.epochs or row.epochs,
                "sensitivity": False,
            },
        }
        return ImageConfig.model_validate(tree)

    def run(self, cells: Sequence[Cell], pulse: Pulse = lambda share: None) -> list[dict[str, Any]]:
        """Train the rules and seeds of a row and test them at the end.

        Raises:
            MfresnetError: bad images, or no memory left.
        """
        return self.resume(cells, pulse, NoCheckpoints())

    def resume(self, cells: Sequence[Cell], pulse: Pulse, checkpoints: Checkpoints) -> list[dict[str, Any]]:
        """`run`, from the newest checkpoint of ``checkpoints`` on, with the same numbers to the bit."""
        config, own = self.config(cells), self.settings
        job = assemble_images(config, self.images(config))
        advice = (
            f"lower --at-once (now {own.at_once or 'as many as fit'}), --seeds (now {own.seeds}), --batch-size "
            f"(now {own.batch_size}) or --width, or set --precision bfloat16."
        )
        rules = train_batch(job, pulse, checkpoints, advice)
        return [rules[cell["rule"]][job.seeds.index(cell["seed"])] for cell in cells]

    def images(self, config: ImageConfig) -> ImageSplit:
        """The same images for every seed and rule: drawn by the sweep's own seed."""
        wanted = (config.data.name, config.data.n, config.data.n_test)
        if wanted not in self._loaded:
            name, n, n_test = wanted
            self._loaded[wanted] = load_images(name, seed=self.settings.seed, n=n, n_test=n_test)
        return self._loaded[wanted]

    def data_sums(self, cells: Sequence[Cell]) -> dict[str, str]:
        configs = {cell["row"]: self.config([cell]) for cell in cells}
        loaded = {config.data.name: config for config in configs.values()}
        return {name: image_facts(self.images(config))["sha256"] for name, config in loaded.items()}

    def analyse(self, rows: Sequence[Row]) -> Result:
        """A row's errors, its paired difference and the reported figures beside them."""
        points = []
        for name in dict.fromkeys(row["row"] for row in rows):
            errors_of: dict[str, list[float]] = {}
            for row in rows:
                if row["row"] == name:
                    completed = row["status"] == "completed"
                    errors_of.setdefault(row["rule"], []).append(100 * row["test_error"] if completed else np.nan)
            reported = {"plain": ROWS[name].plain, "mean-field": ROWS[name].mean_field}
            for rule, values in errors_of.items():
                point = {"row": name, "rule": rule, **mean_interval(values), "reported": reported.get(rule)}
                if rule != "plain" and "plain" in errors_of:
                    difference = compare_pairs(errors_of["plain"], values)
                    point |= {f"difference_{key}": difference[key] for key in ("mean", "low", "high", "verdict")}
                points.append(point)
        compared = [point for point in points if "difference_verdict" in point]
        verdict = "; ".join(_describe(point) for point in compared if point["difference_mean"] is not None)
        full = all(getattr(self.settings, key) is None for key in ("epochs", "data", "n", "n_test", "width"))
        notes = ["Reported figures are recalled from Lu et al. 2020, not re-read; errors are in per cent."]
        if not full:
            notes.append("Epochs, images or width are not the table's: the reported figures are no comparison here.")
        return Result(
            verdict=verdict or "fewer than two rules to compare",
            passed=judge(compared) if full else None,
            points=points,
            figures=[errors(points), *movements(rows)],
            notes=[*notes, *divergence_notes(rows, "")],
        )


def judge(points: Sequence[Row]) -> bool | None:
    """True: mean-field training has the lower error in every row. False: the higher in one. None: not shown either way.

    Other rules are controls, for which nothing is claimed.
    """
    verdicts = {point["difference_verdict"] for point in points if point["rule"] == "mean-field"}
    if "higher error" in verdicts:
        return False
    return True if verdicts == {"lower error"} else None


def _describe(point: Row) -> str:
    """A difference in words."""
    low, high = point["difference_low"], point["difference_high"]
    interval = "" if low is None else f" [{low:.2f}, {high:.2f}]"
    difference = f"{point['difference_mean']:+.2f} points{interval}"
    return f"{point['row']}, {point['rule']} minus plain: {difference}, {point['difference_verdict']}"
