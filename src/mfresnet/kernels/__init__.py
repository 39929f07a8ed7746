"""Kernels: Gram matrices, their operators and eigenvalues, the kernel at the start, the Gram matrix of any model."""

from .cost import GramCost, empirical_cost
from .eigen import Eigenvalue, largest_eigenvalue, smallest_eigenvalue, spectrum
from .empirical import empirical_gram, empirical_operator
from .gram import Gram, GramOperator, gram, gram_operator
from .initial_kernel import InitialKernel, initial_kernel
from .output_adjoint import output_adjoint

__all__ = [
    "Eigenvalue",
    "Gram",
    "GramCost",
    "GramOperator",
    "InitialKernel",
    "empirical_cost",
    "empirical_gram",
    "empirical_operator",
    "gram",
    "gram_operator",
    "initial_kernel",
    "largest_eigenvalue",
    "output_adjoint",
    "smallest_eigenvalue",
    "spectrum",
]
