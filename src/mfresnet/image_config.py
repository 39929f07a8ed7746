"""The configuration of a run of image networks: a tree of its own beside `config.Config`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from .config import Section
from .errors import MfresnetError, unknown_name

BLOCKS = ("plain", "mean-field", "shuffled", "stochastic-depth", "linear-multistep", "scaled")


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
    n: int | None = Field(default=None, ge=2, le=10**9, description="training images (default: all)")
    n_test: int | None = Field(default=None, ge=1, le=10**9, description="test images (default: all)")
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
    width: int | None = Field(default=None, ge=1, le=4096, description="channels of the stem (default 16; resnext 64)")
    norm: Literal["batch", "group"] = Field(default="batch", description="normalisation")


class BlockConfig(ImageSection):
    """The block rules: how the blocks of a stage are swept, and what of it is trained."""

    rules: tuple[str, ...] = Field(
        default=("plain",),
        min_length=1,
        description=f"block rules, compared on matched seeds: {', '.join(BLOCKS)}",
    )
    lr_t: float = Field(
        default=1.0,
        ge=0,
        le=1e6,
        description="mean-field: learning rate of the depth coordinate s = N t over that of the weights (in short "
        "trainings blocks swap at 10, not at 1)",
    )
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
            if name not in BLOCKS:
                raise unknown_name("block rule", name, BLOCKS)
            if name in self.rules[:index]:
                raise MfresnetError(f"blocks.rules names {name!r} twice: name each rule once.")
        return self.rules


class ImageTrainConfig(ImageSection):
    """Stochastic gradient descent with momentum."""

    seeds: int = Field(default=1, ge=1, le=1000, description="networks of each rule, with seeds seed, seed + 1, ..")
    at_once: int | None = Field(
        default=None,
        ge=1,
        le=10**6,
        description="networks (rules x seeds) that one compiled program trains (default: all that fit into memory); "
        "the numbers are the same to rounding",
    )
    epochs: int = Field(default=160, ge=1, le=100_000, description="passes over the training images")
    batch_size: int = Field(default=128, ge=1, le=10**6, description="images of a minibatch")
    learning_rate: float = Field(default=0.1, gt=0, le=1e6, description="at the start of the schedule")
    schedule: Literal["step", "cosine", "constant"] = Field(
        default="step", description="step: divided by 10 at half and at three quarters of the epochs"
    )
    warmup: int = Field(default=0, ge=0, le=10_000, description="epochs of linear warm-up")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of the descent")
    weight_decay: float | None = Field(
        default=None, ge=0, le=1e3, description="of all weights, none of the coordinates (default 1e-4; resnext 5e-4)"
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="mass spread over all classes")
    clip: float | None = Field(default=None, gt=0, le=1e9, description="largest norm of the gradient (default: any)")
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="of activations; parameters and statistics are float32"
    )


class ImageRecordConfig(ImageSection):
    """What is written, and when."""

    checkpoint_seconds: float = Field(default=60.0, ge=0, le=86_400, description="seconds between checkpoints")
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
