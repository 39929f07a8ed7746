"""The scaled ResNet: particles, activations, depth sweep and scales."""

from . import scaling
from .activations import ACTIVATIONS, Activation, activation
from .particles import Ghosts, Particles
from .resnet import InitialScales, ScaledResNet, trainable

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Ghosts",
    "InitialScales",
    "Particles",
    "ScaledResNet",
    "activation",
    "scaling",
    "trainable",
]
