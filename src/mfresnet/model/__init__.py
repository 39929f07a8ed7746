"""The scaled ResNet: particles, activations, depth sweep and scales."""

from . import scaling
from .activations import ACTIVATIONS, Activation, activation
from .continuous import ContinuousResNet, reflect
from .depth import SCHEMES, Scheme
from .draws import LAWS
from .family import AbstractParticles
from .own import PARTICLES, OwnParticles, Particle, particle
from .particles import Particles, ProbePoints
from .resnet import AbstractResNet, InitialScales, LayeredResNet, Part, trainable

__all__ = [
    "ACTIVATIONS",
    "LAWS",
    "PARTICLES",
    "SCHEMES",
    "AbstractParticles",
    "AbstractResNet",
    "Activation",
    "ContinuousResNet",
    "InitialScales",
    "LayeredResNet",
    "OwnParticles",
    "Part",
    "Particle",
    "Particles",
    "ProbePoints",
    "Scheme",
    "activation",
    "particle",
    "reflect",
    "scaling",
    "trainable",
]
