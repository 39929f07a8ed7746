"""Sweeps on disk: a directory of cells, an executor that runs what is missing, and a result."""

from .directory import SweepDirectory
from .driver import predict_sweep, resume_sweep, sweep

__all__ = ["SweepDirectory", "predict_sweep", "resume_sweep", "sweep"]
