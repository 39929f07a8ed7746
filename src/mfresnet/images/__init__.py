"""Image networks whose blocks are families: swept in any order, with any step, their depth trained (theory, 10, 11)."""

from .blocks import Branch, Readout, Transition, basic, bottleneck
from .convolution import convolve
from .family import Place, Plan, permuted, stack, sweep
from .norms import BatchNorm, GroupNorm, Moments, norm
from .orders import kendall, order_entropy
from .resnet import Architecture, ImageResNet, Stage, plain_plans
from .rules import (
    RULES,
    LinearMultistep,
    MeanField,
    Plain,
    Rule,
    Scaled,
    Shuffled,
    StochasticDepth,
    make_rule,
)
from .schedules import schedule
from .training import ImageData, ImageState, ImageTrainer, on_device, pixel_statistics

__all__ = [
    "RULES",
    "Architecture",
    "BatchNorm",
    "Branch",
    "GroupNorm",
    "ImageData",
    "ImageResNet",
    "ImageState",
    "ImageTrainer",
    "LinearMultistep",
    "MeanField",
    "Moments",
    "Place",
    "Plain",
    "Plan",
    "Readout",
    "Rule",
    "Scaled",
    "Shuffled",
    "Stage",
    "StochasticDepth",
    "Transition",
    "basic",
    "bottleneck",
    "convolve",
    "kendall",
    "make_rule",
    "norm",
    "on_device",
    "order_entropy",
    "permuted",
    "pixel_statistics",
    "plain_plans",
    "schedule",
    "stack",
    "sweep",
]
