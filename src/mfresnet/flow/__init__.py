"""Moving the laws: the field, the rules that follow it, and training as a pure function."""

from .adjoint import Sweep, Velocities, adjoint, states, velocities
from .annealing import AnnealingSchedule
from .divergence import first_bad_step
from .field import Batch, Field, Hessians, Laplacians, Options, Probes, decay_rate, field
from .langevin import KERNELS, Chains
from .langevin_rule import LangevinMemory, LangevinRule
from .layout import Layout
from .losses import LOSSES, Loss, error, is_misclassified, logistic, loss_of, mistakes, squared
from .rules import PRESETS, AdaptiveFlow, EulerFlow, HeunFlow, OptaxRule, Rule, optimiser
from .solvers import SOLVERS, Solver, control_steps, flow, solver_of
from .state import Ensemble, LogRatio, OneToOne, TrainState
from .trainer import Trainer, batch_of, evaluate, predict

__all__ = [
    "KERNELS",
    "LOSSES",
    "PRESETS",
    "SOLVERS",
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
    "Loss",
    "OneToOne",
    "OptaxRule",
    "Options",
    "Probes",
    "Rule",
    "Solver",
    "Sweep",
    "TrainState",
    "Trainer",
    "Velocities",
    "adjoint",
    "batch_of",
    "control_steps",
    "decay_rate",
    "error",
    "evaluate",
    "field",
    "first_bad_step",
    "flow",
    "is_misclassified",
    "logistic",
    "loss_of",
    "mistakes",
    "optimiser",
    "predict",
    "solver_of",
    "squared",
    "states",
    "velocities",
]
