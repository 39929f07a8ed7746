"""The settings of ``mfresnet sweep table1``, and the rows of the table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from ...config import Section
from ...errors import unknown_name
from ...fields import Names
from ...images.configuration import (
    AtOnce,
    BatchSize,
    CheckpointSeconds,
    DepthRate,
    Precision,
    Seeds,
    StemWidth,
    TestImages,
    TrainingImages,
)


@dataclass(frozen=True)
class TableRow:
    """A row: test errors in per cent, as recalled from Lu et al. 2020 (arXiv 2003.05508) and not re-read."""

    data: str
    model: str
    plain: float
    mean_field: float
    epochs: int = 160


ROWS = {
    "resnet20": TableRow("cifar10", "resnet20", 8.75, 8.19),
    "resnet32": TableRow("cifar10", "resnet32", 7.51, 7.15),
    "resnet44": TableRow("cifar10", "resnet44", 7.17, 6.91),
    "resnet56": TableRow("cifar10", "resnet56", 6.97, 6.72),
    "resnet110": TableRow("cifar10", "resnet110", 6.37, 6.10),
    "bottleneck164": TableRow("cifar10", "bottleneck164", 5.46, 5.19),
    "resnext29-8x64d": TableRow("cifar100", "resnext29-8x64d", 17.92, 17.53, epochs=300),
    "resnext29-16x64d": TableRow("cifar100", "resnext29-16x64d", 17.65, 16.81, epochs=300),
}


class Table1Settings(Section):
    """``mfresnet sweep table1``."""

    command: ClassVar[str] = "sweep table1"
    rows: Names = Field(default=tuple(ROWS), description="rows of the table")
    rules: Names = Field(default=("plain", "mean-field"), description="block rules; plain is the reference")
    seed: int = Field(default=0, ge=0, le=2**30, description="first seed")
    seeds: Seeds = 3
    epochs: int | None = Field(
        default=None, ge=1, le=100_000, description="passes over the images (default: the row's own)"
    )
    data: str | None = Field(default=None, description="other images for every row: a name, a file or a directory")
    n: TrainingImages = None
    n_test: TestImages = None
    width: StemWidth = None
    batch_size: BatchSize = 128
    lr_t: DepthRate = 1.0
    at_once: AtOnce = None
    checkpoint_seconds: CheckpointSeconds = 60.0
    precision: Precision = "bfloat16"

    @property
    def names(self) -> list[str]:
        """The rows, each once.

        Raises:
            MfresnetError: one that the table does not have.

        >>> Table1Settings(rows=("resnet20", "resnet32")).names
        ['resnet20', 'resnet32']
        """
        for name in self.rows:
            if name not in ROWS:
                raise unknown_name("row", name, ROWS)
        return list(self.rows)
