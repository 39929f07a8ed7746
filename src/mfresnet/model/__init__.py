"""The scaled ResNet: particles, activations, depth sweep and scales."""

from . import scaling
from .activations import ACTIVATIONS, Activation, activation
from .continuous import ContinuousResNet, reflect
from .particles import Ghosts, Particles
from .resnet import AbstractResNet, InitialScales, LayeredResNet, Part, trainable

__all__ = [
    "ACTIVATIONS",
    "AbstractResNet",
    "Activation",
    "ContinuousResNet",
    "Ghosts",
    "InitialScales",
    "LayeredResNet",
    "Part",
    "Particles",
    "activation",
    "reflect",
    "scaling",
    "trainable",
]
