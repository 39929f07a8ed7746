"""Residual networks for small images: a stem, three stages, a readout; all but the first block of a stage a family.

resnetD          two 3 x 3 convolutions a block, D = 6n + 2: ResNet-8, 20, 32, 44, 56, 110 (He et al. 2016)
bottleneckD      1 x 1, 3 x 3, 1 x 1, D = 9n + 2: the ResNet-164 of He et al.
resnextD-GxWd    bottlenecks of G groups of W channels, D = 9n + 2: ResNeXt-29 8x64d (Xie et al. 2017)

Every branch is pre-activated, ResNeXt's too. A block that changes the shape has a linear 1 x 1 shortcut and is no
member of the family; in the first stage of a resnetD no block does, so that all n are (docs/theory.md, section 10).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
from jax import Array

from ..errors import MfresnetError
from .blocks import Branch, Readout, Transition, basic, bottleneck, kernel
from .convolution import Images, Kernel, convolve
from .family import Place, Plan, stack, sweep

NAMES = re.compile(
    r"(?P<kind>resnet|bottleneck|resnext)(?P<depth>[0-9]{1,5})(-(?P<groups>[0-9]{1,3})x(?P<width>[0-9]{1,4})d)?"
)
KNOWN = "resnet20 (6n + 2 layers), bottleneck164 (9n + 2) or resnext29-8x64d (9n + 2)"
EXPANSION = 4  # output over middle channels of a bottleneck
STAGES = 3


@dataclass(frozen=True)
class Architecture:
    """What a network is made of.

    Args:
        kind: resnet, bottleneck or resnext.
        blocks: n, of each stage.
        channels: output channels of the three stages.
        middle: channels of the 3 x 3 convolutions of the three stages.
        stem: channels of the first convolution.
        groups: of the 3 x 3 convolutions.
    """

    kind: str
    blocks: int
    channels: tuple[int, ...]
    middle: tuple[int, ...]
    stem: int
    groups: int = 1

    @classmethod
    def named(cls, name: str, width: int | None = None) -> Architecture:
        """The architecture of a name; ``width`` replaces the channels of the stem (16; ResNeXt 64), all else follows.

        Raises:
            MfresnetError: an unknown name, or a depth that does not fit.

        >>> Architecture.named("resnet20").blocks, Architecture.named("resnext29-8x64d").channels
        (3, (256, 512, 1024))
        >>> Architecture.named("resnet21")
        Traceback (most recent call last):
        mfresnet.errors.MfresnetError: 'resnet21' has no such depth: a resnet has 6n + 2 layers, such as 20 or 26.
        """
        match = NAMES.fullmatch(name)
        if match is None or (match["kind"] == "resnext") != (match["groups"] is not None):
            raise MfresnetError(f"unknown model {name!r}: give {KNOWN}.")
        kind, depth, groups = match["kind"], int(match["depth"]), int(match["groups"] or 1)
        layers = 6 if kind == "resnet" else 9
        blocks = (depth - 2) // layers
        if depth != layers * blocks + 2 or blocks < 1:
            near = max(blocks, 1) * layers + 2
            raise MfresnetError(
                f"{name!r} has no such depth: a {kind} has {layers}n + 2 layers, such as {near} or {near + layers}."
            )
        stem = width or (64 if kind == "resnext" else 16)
        base = [stem * 2**stage for stage in range(STAGES)]
        middle = base
        if kind == "resnext":
            per_group = int(match["width"]) * stem // 64
            if groups < 1 or per_group < 1:
                raise MfresnetError(f"{name!r} has a group without channels: give groups x channels such as 8x64d.")
            middle = [groups * per_group * 2**stage for stage in range(STAGES)]
        channels = base if kind == "resnet" else [EXPANSION * c for c in base]
        return cls(kind, blocks, tuple(channels), tuple(middle), stem, groups)

    @property
    def places(self) -> tuple[Place, ...]:
        """Where the family of each stage stands among all residual blocks."""
        total = STAGES * self.blocks
        skipped = [int(self.changes_shape(stage)) for stage in range(STAGES)]
        return tuple(
            Place(first=stage * self.blocks + 1 + skip, count=self.blocks - skip, total=total)
            for stage, skip in enumerate(skipped)
        )

    def changes_shape(self, stage: int) -> bool:
        """Whether the first block of a stage is none of the family."""
        return stage > 0 or self.channels[0] != self.stem

    def branch(self, key: Array, inputs: int, stage: int, stride: int, norm_name: str) -> Branch:
        """A residual branch of a stage."""
        if self.kind == "resnet":
            return basic(key, inputs, self.channels[stage], stride, norm_name=norm_name)
        return bottleneck(
            key, inputs, self.middle[stage], self.channels[stage], stride, self.groups, norm_name=norm_name
        )


class Stage(eqx.Module):
    """The block that changes the shape, where one does, and the stack of the others, where there are any."""

    first: Transition | None
    family: Branch | None

    def start(self) -> tuple[Any, Any]:
        """The states at the start."""
        first = None if self.first is None else self.first.start()
        return first, None if self.family is None else self.family.start()

    def __call__(self, x: Images, state: tuple[Any, Any], plan: Plan, train: bool) -> tuple[Images, tuple[Any, Any]]:
        """All blocks of the stage."""
        first, family = state
        if self.first is not None:
            x, first = self.first(x, first, train)
        if self.family is not None:
            x, family = sweep(self.family, family, x, plan, train)
        return x, (first, family)


class ImageResNet(eqx.Module):
    """The network: images (n, height, width, channels) to logits (n, classes)."""

    stem: Kernel
    stages: tuple[Stage, ...]
    readout: Readout

    @classmethod
    def create(
        cls, key: Array, architecture: Architecture, *, inputs: int = 3, classes: int = 10, norm_name: str = "batch"
    ) -> ImageResNet:
        """A network at its start: He et al.'s Gaussian kernels.

        >>> network = eqx.filter_eval_shape(ImageResNet.create, jax.random.key(0), Architecture.named("resnet20"))
        >>> sum(leaf.size for leaf in jax.tree.leaves(network) if hasattr(leaf, "size"))
        272282
        """
        k_stem, k_readout, *k_stages = jax.random.split(key, 2 + STAGES)
        stages, before = [], architecture.stem
        for index, (place, k_stage) in enumerate(zip(architecture.places, k_stages, strict=True)):
            after, stride = architecture.channels[index], 2 if index else 1
            k_first, k_shortcut, k_family = jax.random.split(k_stage, 3)
            first = family = None
            if architecture.changes_shape(index):
                first = Transition(
                    architecture.branch(k_first, before, index, stride, norm_name),
                    kernel(k_shortcut, 1, before, after),
                    stride,
                )
            if place.count:
                family = stack(
                    lambda key, index=index, after=after: architecture.branch(key, after, index, 1, norm_name),
                    jax.random.split(k_family, place.count),
                )
            stages.append(Stage(first, family))
            before = after
        return cls(
            stem=kernel(k_stem, 3, inputs, architecture.stem),
            stages=tuple(stages),
            readout=Readout.create(k_readout, before, classes, norm_name),
        )

    def start(self) -> tuple[Any, Any]:
        """The states of all normalisations at the start."""
        return tuple(stage.start() for stage in self.stages), self.readout.norm.start()

    def __call__(
        self, x: Images, states: tuple[Any, Any], plans: tuple[Plan, ...], train: bool
    ) -> tuple[Array, tuple[Any, Any]]:
        """Logits and the states after them; one plan for the family of each stage."""
        stages, last = states
        x = convolve(x, self.stem)
        after = []
        for stage, state, plan in zip(self.stages, stages, plans, strict=True):
            x, seen = stage(x, state, plan, train)
            after.append(seen)
        logits, last = self.readout(x, last, train)
        return logits, (tuple(after), last)


def plain_plans(architecture: Architecture) -> tuple[Plan, ...]:
    """The plans of the plain network."""
    return tuple(Plan(jax.numpy.ones(place.count)) for place in architecture.places)
