"""The settings of ``mfresnet sweep table1``, and the table itself (arXiv 2003.05508)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from ...config import Section
from ...errors import MfresnetError, unknown_name


@dataclass(frozen=True)
class TableRow:
    """A row of the table of [L20], as recalled from the paper and not re-read: test errors in per cent."""

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
    rows: str = Field(default=",".join(ROWS), description="rows of the table, separated by commas")
    rules: str = Field(
        default="plain,mean-field", description="block rules, separated by commas; plain is the reference"
    )
    seed: int = Field(default=0, ge=0, le=2**30, description="first seed")
    seeds: int = Field(default=3, ge=1, le=1000, description="matched seeds of each rule")
    epochs: int | None = Field(
        default=None, ge=1, le=100_000, description="passes over the images (default: the row's own)"
    )
    data: str | None = Field(default=None, description="other images for every row: a name, a file or a directory")
    n: int | None = Field(default=None, ge=2, le=10**9, description="training images (default: all)")
    n_test: int | None = Field(default=None, ge=1, le=10**9, description="test images (default: all)")
    width: int | None = Field(
        default=None, ge=1, le=4096, description="channels of the stem (default: the model's own)"
    )
    batch_size: int = Field(default=128, ge=1, le=10**6, description="images of a minibatch")
    lr_t: float = Field(
        default=1.0,
        ge=0,
        le=1e6,
        description="learning rate of the depth coordinate over that of the weights (in short trainings blocks swap "
        "at 10, not at 1)",
    )
    at_once: int | None = Field(
        default=None,
        ge=1,
        le=10**6,
        description="networks (rules x seeds) that one compiled program trains (default: all that fit into memory)",
    )
    checkpoint_seconds: float = Field(default=60.0, ge=0, le=86_400, description="seconds between checkpoints of a row")
    precision: Literal["float32", "bfloat16"] = Field(default="bfloat16", description="of activations")

    @property
    def names(self) -> list[str]:
        """The rows, each once.

        Raises:
            MfresnetError: none, or one that the table does not have.

        >>> Table1Settings(rows="resnet20,resnet32").names
        ['resnet20', 'resnet32']
        """
        names = list(dict.fromkeys(name.strip() for name in self.rows.split(",") if name.strip()))
        if not names:
            raise MfresnetError(f"rows = {self.rows!r} names no row: give some of {', '.join(ROWS)}.")
        for name in names:
            if name not in ROWS:
                raise unknown_name("row", name, ROWS)
        return names
