"""From a model, its laws and data to certificates: the one pipeline behind estimators, command line and benchmarks."""

from .path_certificate import PathResult, path
from .path_network import NetworkPredictor
from .path_pilot import Pilot, find_schedule
from .path_potential import GaussianPrior, PredictorPotential

__all__ = [
    "GaussianPrior",
    "NetworkPredictor",
    "PathResult",
    "Pilot",
    "PredictorPotential",
    "find_schedule",
    "path",
]
