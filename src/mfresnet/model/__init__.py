"""The scaled ResNet: particles, activations, depth sweep and scales."""

from . import scaling
from .activations import ACTIVATIONS, Activation, activation
from .continuous import ContinuousResNet, reflect
from .depth import SCHEMES, Scheme
from .draws import LAWS
from .particles import Particles, ProbePoints
from .resnet import AbstractResNet, InitialScales, LayeredResNet, Part, trainable

__all__ = [
    "ACTIVATIONS",
    "LAWS",
    "SCHEMES",
    "AbstractResNet",
    "Activation",
    "ContinuousResNet",
    "InitialScales",
    "LayeredResNet",
    "Part",
    "Particles",
    "ProbePoints",
    "Scheme",
    "activation",
    "reflect",
    "scaling",
    "trainable",
]
