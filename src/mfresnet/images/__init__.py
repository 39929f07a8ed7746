"""Image networks whose blocks are families: swept in any order, with any step, their depth trained (theory, 10, 11)."""

from .augment import augment, channel_statistics, normalise
from .blocks import Branch, Readout, Transition, basic, bottleneck
from .convolution import convolve
from .ensemble import Ensemble
from .family import Place, Plan, permuted, stack, sweep
from .feeding import HostImages, ImageData, on_device
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
from .training import ImageState, ImageTrainer

__all__ = [
    "RULES",
    "Architecture",
    "BatchNorm",
    "Branch",
    "Ensemble",
    "GroupNorm",
    "HostImages",
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
    "augment",
    "basic",
    "bottleneck",
    "channel_statistics",
    "convolve",
    "kendall",
    "make_rule",
    "norm",
    "normalise",
    "on_device",
    "order_entropy",
    "permuted",
    "plain_plans",
    "schedule",
    "stack",
    "sweep",
]
