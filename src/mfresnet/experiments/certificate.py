"""The path certificate of Langevin training against any settings: points, depth, width, scale, noise of the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..config import DiagnosticsConfig
from ..errors import MfresnetError
from ..stats import power_law
from ..train.fit import fit
from ..train.langevin import LANGEVIN, STEPS
from .experiment import Cell, Pulse, Result, Row, completed_rows
from .grid import MEASURES, Grid
from .settings import CertificateSettings

QUIET = DiagnosticsConfig(gram_every=0, kl_every=0, landscape=False)


class CertificateSweep(Grid):
    """Each cell trains one chain and certifies it on its own points, every setting fixed in advance.

    certificate    bound of the error on new data that holds for this cell alone
    c              log-density ratio of the chain's path, what the certificate pays for training
    gamma          final inverse temperature, which pilot chains chose
    acceptance     mean over the chain

    Where the first setting is ``data.n``, each line's slope against n comes with Student's 95 % interval.
    """

    name = "certificate"
    question = "How does the certificate depend on the settings?"
    settings: CertificateSettings
    measures = ("certificate", "c", *MEASURES)

    def __init__(self, settings: CertificateSettings):
        super().__init__(settings)
        if settings.train.rule != LANGEVIN:
            raise MfresnetError(f"train.rule = {settings.train.rule!r} gives no path certificate: leave it langevin.")

    def batches(self, cells: Sequence[Cell]) -> list[list[int]]:
        return [[place] for place in range(len(cells))]

    def memory(self, cells: Sequence[Cell]) -> int:
        return 0

    def run(self, cells: Sequence[Cell], pulse: Pulse = lambda share: None) -> list[dict[str, Any]]:
        return [self._run_cell(cell, pulse) for cell in cells]

    def _run_cell(self, cell: Cell, pulse: Pulse) -> dict[str, Any]:
        config = self.config(cell).model_copy(update={"diagnostics": QUIET})

        def tell(record: Any) -> None:
            pulse(record.step / (config.train.steps or STEPS))

        result = fit(config, self.split(cell), callback=tell)
        if result.status != "completed":
            return {"status": "diverged"}
        path = result.certificates()["path"]
        scores = {name: result.summary[name] for name in MEASURES}
        details = {name: path.details[name] for name in ("c", "gamma", "acceptance")}
        return {"status": "completed", **scores, "certificate": path.value, **details}

    def analyse(self, rows: Sequence[Row]) -> Result:
        result = super().analyse(rows)
        fits = {f"slope{line}": slope for line, slope in self._slopes(completed_rows(rows)).items()}
        return Result(
            result.verdict, None, {**result.fit, **fits}, result.points, result.figures,
            [
                *(note for note in result.notes if not note.startswith("The best point")),
                "Each certificate holds for its own cell; one that is chosen among them has to pay for their number "
                "(certify.settings).",
            ],
        )  # fmt: skip

    def _slopes(self, rows: Sequence[Row]) -> dict[str, list[float]]:
        """[slope, low, high] of log certificate against log n, for each combination of the other settings."""
        axes = self.axes()
        if "data.n" not in axes or not rows:
            return {}
        others = [name for name in axes if name != "data.n"]
        slopes = {}
        for values in dict.fromkeys(tuple(row[name] for name in others) for row in rows):
            here = [row for row in rows if tuple(row[name] for name in others) == values]
            law = power_law([row["data.n"] for row in here], [row["certificate"] for row in here])
            line = "".join(f" {name} = {value}" for name, value in zip(others, values, strict=True))
            slopes[line] = [law.slope, *law.interval()]
        return slopes
