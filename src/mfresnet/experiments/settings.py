"""The typed settings of each experiment. Nothing here is heavy: the command line reads it for its help."""

# pyright: reportInvalidTypeForm=false, reportArgumentType=false
# (a section with other defaults is made by a call, and is a type all the same)

from __future__ import annotations

from copy import copy
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import Field, create_model

from ..config import DataConfig, ModelConfig, Section, TrainConfig
from ..fields import PositiveNumbers, Sizes, WholeNumbers

Kind = TypeVar("Kind", bound=Section)


def with_defaults(kind: type[Kind], **defaults: Any) -> Any:
    """The same section with other defaults, which its help then names.

    >>> with_defaults(TrainConfig, rule="adam")().rule
    'adam'
    """
    fields: dict[str, Any] = {}
    for name, value in defaults.items():
        field = copy(kind.model_fields[name])
        field.default = value
        fields[name] = (field.annotation, field)
    return create_model(kind.__name__, __base__=kind, __doc__=kind.__doc__, **fields)


Adam = with_defaults(TrainConfig, rule="adam", learning_rate=0.01, steps=1000)


class SweepSettings(Section):
    """What every experiment over training runs has."""

    seed: int = Field(default=0, ge=0, le=2**30, description="first seed")
    seeds: int = Field(default=3, ge=1, le=100_000, description="seeds of each point of the grid")
    data: DataConfig = Field(default_factory=DataConfig, description="data")
    model: ModelConfig = Field(default_factory=ModelConfig, description="model")
    train: TrainConfig = Field(default_factory=Adam, description="training")

    def seed_range(self) -> range:
        """The seeds."""
        return range(self.seed, self.seed + self.seeds)


class RateSettings(SweepSettings):
    """``mfresnet sweep rate``."""

    command: ClassVar[str] = "sweep rate"
    n: Sizes = Field(default=(8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096), description="training points")
    train: Adam = Field(default_factory=Adam, description="training")


PhaseData = with_defaults(DataConfig, n=64, n_test=256)
PhaseTrain = with_defaults(TrainConfig, rule="gradient-flow", time=100.0, steps=20, probes=0, head_probes=0)


class PhaseSettings(SweepSettings):
    """``mfresnet sweep phase``."""

    command: ClassVar[str] = "sweep phase"
    seeds: int = Field(default=2, ge=1, le=100_000, description="seeds of each point of the grid")
    alpha: PositiveNumbers = Field(default=(0.3, 1.0, 3.0, 10.0), description="scales of the residual branch")
    beta: PositiveNumbers = Field(default=(1.0, 3.0, 10.0, 30.0, 100.0), description="scales of the output")
    data: PhaseData = Field(default_factory=PhaseData, description="data")
    train: PhaseTrain = Field(default_factory=PhaseTrain, description="training")


TransferData = with_defaults(DataConfig, n=128, n_test=512)


class TransferSettings(SweepSettings):
    """``mfresnet sweep transfer``."""

    command: ClassVar[str] = "sweep transfer"
    depth: WholeNumbers = Field(default=(4, 16, 64), description="depths L at the width model.width")
    width: WholeNumbers = Field(default=(8, 32, 128), description="widths M (and K) at the depth model.depth")
    rates: PositiveNumbers = Field(
        default=(0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
        description="learning rates, one step of the grid from each to the next",
    )
    horizons: WholeNumbers = Field(default=(50, 200), description="training steps")
    scalings: tuple[Literal["mean-field", "standard"], ...] = Field(
        default=("mean-field", "standard"), min_length=1, description="scalings that are compared"
    )
    decays: tuple[Literal["none", "linear", "cosine"], ...] = Field(
        default=("none", "linear"), min_length=1, description="decays of the learning rate: none, linear, cosine"
    )
    data: TransferData = Field(default_factory=TransferData, description="data")
    model: ModelConfig = Field(default_factory=ModelConfig, description="model")
    train: Adam = Field(default_factory=Adam, description="training; its rate, steps and decay are the grid's")


class OwnTransferSettings(Section):
    """``mfresnet sweep own-transfer``."""

    command: ClassVar[str] = "sweep own-transfer"
    seed: int = Field(default=0, ge=0, le=2**30, description="first seed")
    seeds: int = Field(default=1, ge=1, le=100_000, description="seeds of each size")
    factory: str = Field(
        default="",
        description="package.module:FACTORY, a function (depth, width, seed) -> mfresnet.experiments.own_transfer.Task",
    )
    axis: Literal["depth", "width"] = Field(default="depth", description="what grows")
    sizes: WholeNumbers = Field(default=(4, 16, 64), description="its values; rates are meant at the first one")
    other: int = Field(default=32, ge=1, le=1_000_000, description="value of the other one")
    rates: PositiveNumbers = Field(
        default=tuple(2.0**-k for k in range(13, 2, -1)), description="learning rates, one step of the grid to the next"
    )
    steps: int = Field(default=100, ge=1, le=1_000_000, description="training steps")
    optimiser: Literal["adam", "sgd"] = Field(default="adam", description="with the rules of mfresnet.scaling")

    def seed_range(self) -> range:
        """The seeds."""
        return range(self.seed, self.seed + self.seeds)


KlModel = with_defaults(ModelConfig, width=64, head_width=512, alpha=1.0, antithetic=True)
KlTrain = with_defaults(
    TrainConfig,
    rule="gradient-flow",
    solver="adaptive",
    time=40.0,
    time_unit="n/beta2",
    steps=20,
    tolerance=1e-5,
    probes=128,
    head_probes=2048,
    precision="float64",
)
KlData = with_defaults(DataConfig, name="random-labels", n=32, n_test=32, dimension=8)


class KlSettings(SweepSettings):
    """``mfresnet sweep kl``."""

    command: ClassVar[str] = "sweep kl"
    seeds: int = Field(default=5, ge=1, le=100_000, description="seeds of each point of the grid")
    betabar: PositiveNumbers = Field(
        default=(1.0, 2.15443, 4.64159, 10.0, 21.5443, 46.4159, 100.0), description="betabar = beta/n"
    )
    data: KlData = Field(default_factory=KlData, description="data")
    model: KlModel = Field(default_factory=KlModel, description="model; its beta is the grid's")
    train: KlTrain = Field(default_factory=KlTrain, description="training")


class GridSettings(SweepSettings):
    """``mfresnet sweep grid``."""

    command: ClassVar[str] = "sweep grid"
    set: tuple[str, ...] = Field(
        default=(),
        json_schema_extra={"repeated": True},
        description="a setting and its values, e.g. model.depth=4,8; give it again for more settings",
    )
    measure: str = Field(default="test.error", description="the number that is compared")
    train: Adam = Field(default_factory=Adam, description="training")


Langevin = with_defaults(TrainConfig, rule="langevin")


class CertificateSettings(GridSettings):
    """``mfresnet sweep certificate``."""

    command: ClassVar[str] = "sweep certificate"
    set: tuple[str, ...] = Field(
        default=("data.n=256,512,1024", "train.freeze=none,encoder"),
        json_schema_extra={"repeated": True},
        description="a setting and its values, e.g. data.label_noise=0,0.1,0.3; give it again for more settings",
    )
    measure: str = Field(default="certificate", description="the number that is compared")
    train: Langevin = Field(default_factory=Langevin, description="training")


class FiniteSizeSettings(Section):
    """``mfresnet sweep finite-size``."""

    command: ClassVar[str] = "sweep finite-size"
    preset: Literal["chizat", "embedding", "own"] = Field(
        default="chizat",
        description="chizat ([Ch25]: no head, no bias), embedding (the same between a fixed embedding and readout, "
        "[CCM26]), own (the network of `train`, with bias and head)",
    )
    depth: WholeNumbers | None = Field(
        default=None, description="depths L (default 1,3,10,32,100,316; embedding: up to 100)"
    )
    width: WholeNumbers | None = Field(
        default=None, description="widths M (default 1,3,10,32,100,316; embedding: up to 100)"
    )
    reference: int | None = Field(
        default=None, ge=1, le=100_000, description="depth of the reference (default 1000; embedding: 316)"
    )
    reference_width: int | None = Field(
        default=None, ge=1, le=100_000, description="width of the reference (default: its depth)"
    )
    dimension: WholeNumbers | None = Field(
        default=None, description="dimensions D of the state (default 10; embedding: 16,32,64)"
    )
    inputs: int = Field(default=10, ge=1, le=10_000, description="input dimension d before the embedding")
    embeddings: int = Field(
        default=5, ge=1, le=1000, description="embeddings whose references are compared (embedding)"
    )
    points: int = Field(default=10, ge=2, le=100_000, description="training points N")
    seed: int = Field(default=0, ge=0, le=2**30, description="of the data and of the first network")
    seeds: int = Field(
        default=5, ge=2, le=1000, description="networks of each size, which tell bias from sampling error"
    )
    draws: int | None = Field(default=None, ge=1, le=1000, description="draws of (X, Y) (default 3; embedding: 6)")
    steps: int = Field(default=100, ge=1, le=1_000_000, description="gradient steps")
    step: float = Field(default=1.0, gt=0, le=1e6, description="step size, in units of D (own: of N/(20 beta^2))")
    alpha: float = Field(default=1.0, gt=0, le=1e6, description="scale of the residual branch")
    beta: float = Field(default=4.0, gt=0, le=1e6, description="scale of the output (own)")
    head_width: int = Field(default=100, ge=1, le=1_000_000, description="head particles K (own)")
    precision: Literal["float32", "float64"] = Field(default="float32", description="of training")
    least: int = Field(
        default=10, ge=1, le=10_000, description="least depth of the fits; its square is their least L M"
    )
