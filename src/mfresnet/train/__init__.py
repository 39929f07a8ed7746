"""From a configuration and data to a trained network, in memory: job, devices, what is measured, `fit`."""

from .fit import Result, fit
from .loop import Record

__all__ = ["Record", "Result", "fit"]
