"""From a model, its laws and data to certificates: the one pipeline behind estimators, command line and benchmarks."""

from ..flow.potential import GaussianPrior, PredictorPotential
from ..flow.predictor import NetworkPredictor
from ..train.pilot import Pilot, find_schedule
from .path_certificate import PathResult, path

__all__ = [
    "GaussianPrior",
    "NetworkPredictor",
    "PathResult",
    "Pilot",
    "PredictorPotential",
    "find_schedule",
    "path",
]
