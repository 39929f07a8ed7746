"""Moving the laws: the field, the rules that follow it, and training as a pure function."""

from .adjoint import Sweep, Velocities, adjoint, states, velocities
from .annealing import AnnealingSchedule
from .divergence import first_bad_step
from .field import Batch, Field, Hessians, Laplacians, Options, Probes, decay_rate, field
from .langevin import KERNELS, Chains
from .langevin_rule import LangevinMemory, LangevinRule
from .layout import Layout
from .losses import LOSSES, error, is_misclassified, logistic, mistakes, squared
from .rules import PRESETS, AdaptiveFlow, EulerFlow, HeunFlow, OptaxRule, Rule, flow, optimiser
from .state import Ensemble, LogRatio, TrainState, Unfolded
from .trainer import Trainer, batch_of, evaluate, predict

__all__ = [
    "KERNELS",
    "LOSSES",
    "PRESETS",
    "AdaptiveFlow",
    "AnnealingSchedule",
    "Batch",
    "Chains",
    "Ensemble",
    "EulerFlow",
    "Field",
    "Hessians",
    "HeunFlow",
    "LangevinMemory",
    "LangevinRule",
    "Laplacians",
    "Layout",
    "LogRatio",
    "OptaxRule",
    "Options",
    "Probes",
    "Rule",
    "Sweep",
    "TrainState",
    "Trainer",
    "Unfolded",
    "Velocities",
    "adjoint",
    "batch_of",
    "decay_rate",
    "error",
    "evaluate",
    "field",
    "first_bad_step",
    "flow",
    "is_misclassified",
    "logistic",
    "mistakes",
    "optimiser",
    "predict",
    "squared",
    "states",
    "velocities",
]
