"""Diagnostics: pure functions of (model, arrays), usable on other people's models."""

from .convergence import Dissipation, convergence_certificate, dissipation
from .divergence import Divergence, kl_to_start
from .estimate import Estimate
from .landscape import Landscape, first_order_share, landscape
from .regime import Regime, linearised_predictions, regime
from .registry import DIAGNOSTICS
from .solver_error import SolverError, solver_error
from .tangent import TangentDissipation, tangent_dissipation, tangent_rate, tangent_regime, tangent_training
from .transport import KnnKl, knn_kl, wasserstein2

__all__ = [
    "DIAGNOSTICS",
    "Dissipation",
    "Divergence",
    "Estimate",
    "KnnKl",
    "Landscape",
    "Regime",
    "SolverError",
    "TangentDissipation",
    "convergence_certificate",
    "dissipation",
    "first_order_share",
    "kl_to_start",
    "knn_kl",
    "landscape",
    "linearised_predictions",
    "regime",
    "solver_error",
    "tangent_dissipation",
    "tangent_rate",
    "tangent_regime",
    "tangent_training",
    "wasserstein2",
]
