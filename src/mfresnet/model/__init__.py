"""The scaled ResNet: particles, activations, depth sweep and scales."""

from . import scaling
from .activations import ACTIVATIONS, Activation, activation
from .continuous import ContinuousResNet, reflect
from .particles import Ghosts, Particles
from .resnet import InitialScales, ScaledResNet, trainable

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "ContinuousResNet",
    "Ghosts",
    "InitialScales",
    "Particles",
    "ScaledResNet",
    "activation",
    "reflect",
    "scaling",
    "trainable",
]
