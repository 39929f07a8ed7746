"""Diagnostics: pure functions of (model, arrays), usable on other people's models."""

from .convergence import Dissipation, convergence_certificate, dissipation
from .divergence import Divergence, Estimate, kl_to_start
from .eigen import Eigenvalue, largest_eigenvalue, smallest_eigenvalue, spectrum
from .empirical import empirical_gram, empirical_operator
from .gram import Gram, GramOperator, gram, gram_operator
from .initial_kernel import InitialKernel, initial_kernel
from .landscape import Landscape, first_order_share, landscape
from .regime import Regime, linearised, regime
from .sweeps import output_adjoint
from .transport import KnnKl, knn_kl, wasserstein2

__all__ = [
    "Dissipation",
    "Divergence",
    "Eigenvalue",
    "Estimate",
    "Gram",
    "GramOperator",
    "InitialKernel",
    "KnnKl",
    "Landscape",
    "Regime",
    "convergence_certificate",
    "dissipation",
    "empirical_gram",
    "empirical_operator",
    "first_order_share",
    "gram",
    "gram_operator",
    "initial_kernel",
    "kl_to_start",
    "knn_kl",
    "landscape",
    "largest_eigenvalue",
    "linearised",
    "output_adjoint",
    "regime",
    "smallest_eigenvalue",
    "spectrum",
    "wasserstein2",
]
