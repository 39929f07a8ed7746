"""The names that mfresnet exports, and where they are: read by type checkers, and at run time to load them lazily."""

import mfresnet.certify as _certify

from .cache import enable_compilation_cache
from .config import Config
from .data import Dataset, Split, load
from .diagnostics import kl_to_start, wasserstein2
from .errors import DivergedError, MfresnetError
from .flow import Trainer, adjoint, optimiser, states, velocities
from .kernels import (
    empirical_gram,
    empirical_operator,
    gram,
    gram_operator,
    initial_kernel,
    largest_eigenvalue,
    smallest_eigenvalue,
    spectrum,
)
from .model import (
    AbstractResNet,
    Activation,
    ContinuousResNet,
    InitialScales,
    LayeredResNet,
    Particle,
    Particles,
    activation,
)
from .train import Record, Result, fit

__all__ = [
    "AbstractResNet",
    "Activation",
    "Config",
    "ContinuousResNet",
    "Dataset",
    "DivergedError",
    "InitialScales",
    "LayeredResNet",
    "MfresnetError",
    "Particle",
    "Particles",
    "Record",
    "Result",
    "Split",
    "Trainer",
    "__version__",
    "activation",
    "adjoint",
    "certify",
    "empirical_gram",
    "empirical_operator",
    "enable_compilation_cache",
    "fit",
    "gram",
    "gram_operator",
    "initial_kernel",
    "kl_to_start",
    "largest_eigenvalue",
    "load",
    "optimiser",
    "smallest_eigenvalue",
    "spectrum",
    "states",
    "velocities",
    "wasserstein2",
]

__version__: str
certify: _certify.CertifyPackage
