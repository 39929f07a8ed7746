"""The configuration of a run of image networks: a tree of its own beside `config.Config`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ..config import RULES, Section
from ..errors import MfresnetError, unknown_name
from ..registry import Entry, Registry

if TYPE_CHECKING:
    from .rules import Rule

BLOCK_RULES: Registry[type[Rule]] = Registry(
    "block rule",
    "mfresnet.block_rules",
    {
        "plain": Entry("mfresnet.images.rules:Plain", "the residual network as it is"),
        "mean-field": Entry("mfresnet.images.rules:MeanField", "each block has a trained depth coordinate"),
        "shuffled": Entry("mfresnet.images.rules:Shuffled", "a random order in each training step"),
        "stochastic-depth": Entry("mfresnet.images.rules:StochasticDepth", "blocks are left out at random"),
        "linear-multistep": Entry("mfresnet.images.rules:LinearMultistep", "a trained mixture with the state before"),
        "scaled": Entry("mfresnet.images.rules:Scaled", "branches times alpha/L"),
    },
    base="mfresnet.images.rules:Rule",
)

OPTIMISERS = tuple(name for name in RULES if name not in ("gradient-flow", "langevin"))
OPTIMISER_PATTERN = rf"^({'|'.join(OPTIMISERS)}|optax:[a-z_0-9]+)$"

# What an image run and a row of the table have in common; each has its own defaults.
TrainingImages = Annotated[int | None, Field(ge=2, le=10**9, description="training images (default: all)")]
TestImages = Annotated[int | None, Field(ge=1, le=10**9, description="test images (default: all)")]
StemWidth = Annotated[
    int | None, Field(ge=1, le=4096, description="channels of the stem (default: the model's own, 16; resnext 64)")
]
BatchSize = Annotated[int, Field(ge=1, le=10**6, description="images of a minibatch")]
Seeds = Annotated[int, Field(ge=1, le=1000, description="networks of each rule, with seeds seed, seed + 1, ..")]
DepthRate = Annotated[
    float,
    Field(
        ge=0,
        le=1e6,
        description="mean-field: learning rate of the depth coordinate s = N t over that of the weights (in short "
        "trainings blocks swap at 10, not at 1)",
    ),
]
AtOnce = Annotated[
    int | None,
    Field(
        ge=1,
        le=10**6,
        description="networks (rules x seeds) that one compiled program trains (default: all that fit into memory); "
        "the numbers are the same to rounding",
    ),
]
Precision = Annotated[
    Literal["float32", "bfloat16"], Field(description="of activations; parameters and statistics are float32")
]
CheckpointSeconds = Annotated[float, Field(ge=0, le=86_400, description="seconds between checkpoints")]


class ImageSection(Section):
    """Base of every part of this tree."""

    command: ClassVar[str] = "image"


class ImageDataConfig(ImageSection):
    """Where the images come from."""

    name: str = Field(
        default="cifar10",
        description="cifar10, cifar100, synthetic-images, a Parquet file (columns img, label), a directory with "
        "train.parquet and test.parquet, or a directory train/CLASS/*.png",
    )
    n: TrainingImages = None
    n_test: TestImages = None
    augment: bool = Field(
        default=True, description="random crops of the image padded by 4 pixels, and flips, on the device"
    )
    on_device: Literal["auto", "yes", "no"] = Field(
        default="auto",
        description="whether the images stay on the device; auto: where they take at most half of its memory, else "
        "minibatches come from the host, with the same numbers",
    )


class ImageModelConfig(ImageSection):
    """The network."""

    name: str = Field(
        default="resnet20",
        description="resnetD (D = 6n + 2: 8, 20, 32, 44, 56, 110), bottleneckD (D = 9n + 2: 164) or resnextD-GxWd "
        "(29-8x64d, 29-16x64d)",
    )
    width: StemWidth = None
    norm: Literal["batch", "group"] = Field(default="batch", description="normalisation")


class BlockConfig(ImageSection):
    """The block rules: how the blocks of a stage are swept, and what of it is trained."""

    rules: tuple[str, ...] = Field(
        default=("plain",),
        min_length=1,
        description=f"block rules, compared on matched seeds: {', '.join(BLOCK_RULES)}",
    )
    lr_t: DepthRate = 1.0
    cadence: int = Field(
        default=1, ge=1, le=10**9, description="mean-field: steps between sorts of the blocks by depth"
    )
    step_scale: float = Field(default=1.0, gt=0, le=1e6, description="mean-field: factor of every step N (t' - t)")
    survival: float = Field(
        default=0.5, gt=0, le=1, description="stochastic-depth: survival probability of the last block"
    )
    alpha: float = Field(default=1.0, gt=0, le=1e6, description="scaled: residual branches are multiplied by alpha/L")

    @property
    def names(self) -> tuple[str, ...]:
        """The rules, each once.

        Raises:
            MfresnetError: one of them is unknown, or it is named twice.
        """
        for index, name in enumerate(self.rules):
            if name not in BLOCK_RULES:
                raise unknown_name("block rule", name, BLOCK_RULES)
            if name in self.rules[:index]:
                raise MfresnetError(f"blocks.rules names {name!r} twice: name each rule once.")
        return self.rules


class ImageTrainConfig(ImageSection):
    """How the networks are trained."""

    rule: str = Field(
        default="momentum",
        pattern=OPTIMISER_PATTERN,
        json_schema_extra={"choices": [*OPTIMISERS, "optax:NAME"]},
        description="the optimiser: momentum (stochastic gradient descent), sgd, adam, or any of Optax as optax:NAME",
    )
    seeds: Seeds = 1
    at_once: AtOnce = None
    epochs: int = Field(default=160, ge=1, le=100_000, description="passes over the training images")
    batch_size: BatchSize = 128
    learning_rate: float = Field(default=0.1, gt=0, le=1e6, description="at the start of the schedule")
    schedule: Literal["step", "cosine", "constant"] = Field(
        default="step", description="step: divided by 10 at half and at three quarters of the epochs"
    )
    warmup: int = Field(default=0, ge=0, le=10_000, description="epochs of linear warm-up")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of the rule momentum")
    weight_decay: float | None = Field(
        default=None,
        ge=0,
        le=1e3,
        description="added to the gradient, times the weights; never of the coordinates (default: of momentum and sgd "
        "1e-4, resnext 5e-4; of others 0, since some have their own)",
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="mass spread over all classes")
    clip: float | None = Field(default=None, gt=0, le=1e9, description="largest norm of the gradient (default: any)")
    precision: Precision = "float32"


class ImageRecordConfig(ImageSection):
    """What is written, and when."""

    checkpoint_seconds: CheckpointSeconds = 60.0
    test_every: int = Field(
        default=1, ge=1, le=100_000, description="epochs between tests (the last one is always tested)"
    )
    sensitivity: bool = Field(
        default=True, description="at the end: removal and swap of blocks, first-order paths, Gram shares"
    )
    sensitivity_every: int = Field(
        default=0, ge=0, le=100_000, description="epochs between these before the end (0: at the end alone)"
    )
    report: bool = Field(default=True, description="write report.html at the end")


class ImageConfig(ImageSection):
    """The complete configuration of a run of image networks.

    >>> ImageConfig(blocks={"rules": ("plain", "mean-field")}).blocks.names
    ('plain', 'mean-field')
    """

    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="of the first network, and of the drawing of the data")
    data: ImageDataConfig = Field(default_factory=ImageDataConfig, description="data")
    model: ImageModelConfig = Field(default_factory=ImageModelConfig, description="model")
    blocks: BlockConfig = Field(default_factory=BlockConfig, description="block rules")
    train: ImageTrainConfig = Field(default_factory=ImageTrainConfig, description="training")
    record: ImageRecordConfig = Field(default_factory=ImageRecordConfig, description="recording")
